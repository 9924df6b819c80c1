"""The server as a process: signals, slow clients, addresses, what the command line says."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from small_server import encoded

from overtone.cli import main
from overtone.serving import server as running
from overtone.serving.app import create_app
from overtone.serving.limits import Limits
from overtone.serving.models import Served


def posted(address: str, content: bytes) -> int:
    with urllib.request.urlopen(f"{address}/v1/predict", data=content, timeout=60) as answer:
        return answer.status


def soon(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_sigterm_finishes_what_was_accepted_and_exits_0(tmp_path: Path) -> None:
    words = ["serve", "hbonet_x010", "--size", "64", "--port", "0", "--threads", "1", "--max-wait-ms", "30000"]
    with subprocess.Popen(
        [sys.executable, "-m", "overtone", *words], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        try:
            assert process.stderr is not None
            line = "-"
            while line and " at http" not in line:
                line = process.stderr.readline()
            address = line.partition(" at ")[2].strip()
            image = encoded()
            host, port = address.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port)), timeout=60) as late, ThreadPoolExecutor(5) as clients:
                # the others wait for this one, whose body is not whole yet
                head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(image)}\r\n\r\n"
                late.sendall(head.encode() + image[:100])
                answers = [clients.submit(posted, address, image) for _ in range(5)]
                soon(lambda: b'queue_images{model="hbonet_x010"} 5.0' in read(f"{address}/metrics"))
                process.send_signal(signal.SIGTERM)
                time.sleep(0.5)
                assert not any(answer.done() for answer in answers)
                began = time.monotonic()
                late.sendall(image[100:])
                assert late.recv(1000).startswith(b"HTTP/1.1 200")
                assert [answer.result(60) for answer in answers] == [200] * 5
                assert time.monotonic() - began < 20  # and no longer than for the late one
            assert process.wait(60) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


def read(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read()


def test_clients_that_send_no_whole_header_are_cut_off(small: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_HEADER_S", 0.5)
    monkeypatch.setattr(running, "_TICK_S", 0.05)
    limits = Limits(upload_s=1)
    app = create_app([small], limits)
    server, bound = running.listen(app, limits, "127.0.0.1", 0)

    def slow_client() -> float:
        began = time.monotonic()
        with socket.create_connection(bound.getsockname(), timeout=30) as client:
            client.sendall(b"GET / HT")
            try:
                while client.recv(100):
                    pass
            except ConnectionResetError:
                pass
        return time.monotonic() - began

    async def conversation() -> float:
        serving = asyncio.create_task(running.run(server, bound, app, limits))
        while not server.started:
            await asyncio.sleep(0.01)
        seconds = await asyncio.to_thread(slow_client)
        assert await asyncio.to_thread(read, f"http://127.0.0.1:{bound.getsockname()[1]}/v2/health/ready")
        server.should_exit = True
        await serving
        return seconds

    assert asyncio.run(conversation()) < 10
    bound.close()


def test_a_connection_is_late_only_within_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(running.time, "monotonic", lambda: now)
    stalled, connection, requests = running._Stalled(10), object(), [object() for _ in range(40)]
    for request in requests:  # seen between its requests at every look, for 40 s
        assert not stalled.late({connection: request})
        now += 1
    for _ in range(11):
        found = stalled.late({connection: requests[-1]})
        now += 1
    assert found == {connection}
    assert not stalled.late({}) and not stalled.late({connection: requests[-1]})


def test_an_address_that_is_taken_and_options_without_meaning(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "hbonet_x010", "--size", "64", "--port", str(port)]) == 2
    assert f"127.0.0.1:{port}" in capfd.readouterr().err
    assert main(["serve"]) == 2 and "no model" in capfd.readouterr().err
    assert main(["serve", "hbonet_x010", "--port", "70000"]) == 2 and "port" in capfd.readouterr().err
    assert main(["serve", "hbonet_x010", "--runs", str(tmp_path / "none")]) == 2
    assert "--runs" in capfd.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["serve", "hbonet_x010"]) == 2
    assert "overtone[serve]" in capfd.readouterr().err


def test_an_open_address_without_a_token_is_said_in_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def warnings_of(*words: str) -> str:
        assert main(["serve", "hbonet_x010", "--size", "64", *words]) == 0
        return capfd.readouterr().err

    monkeypatch.setattr(running, "serve", lambda *_: None)
    assert "open to everyone" in warnings_of("--host", "0.0.0.0")
    assert "open to everyone" not in warnings_of("--host", "0.0.0.0", "--token", "x")
    assert "open to everyone" not in warnings_of()
    monkeypatch.setenv("OVERTONE_SERVE_TOKEN", "x")
    assert "open to everyone" not in warnings_of("--host", "0.0.0.0")
