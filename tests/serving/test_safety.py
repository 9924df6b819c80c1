"""Rows 23 to 26 of what may go wrong: whatever a client sends gets a 4xx or 503 in one line; the next is served."""

import asyncio
import io
import json
import struct
import time
import zlib
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from small_server import encoded, get, post, served, talk

from overtone.serving.app import create_app
from overtone.serving.guards import is_local, local_names
from overtone.serving.limits import Limits
from overtone.serving.models import Served


def refusal(response: httpx.Response, status: int, *words: str) -> None:
    """The answer is one line of JSON that names these words and nothing of the machine."""
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"] and "\n" not in response.text
    assert all(word in response.json()["error"] for word in words), response.text
    assert "/secret" not in response.text and "Traceback" not in response.text and ".py" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


def sent(app: FastAPI, parts: list[bytes], headers: dict[str, str], pause: float = 0) -> tuple[dict[str, Any], int]:
    """The answer to a body that comes in parts, and how many of them were read."""
    messages: list[dict[str, Any]] = []
    read = 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        await asyncio.sleep(pause)
        read += 1
        return {"type": "http.request", "body": parts[read - 1], "more_body": read < len(parts)}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    async def run() -> None:
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/predict", "query_string": b""}
        raw = [(name.lower().encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()]
        async with app.router.lifespan_context(app):
            await app({**scope, "raw_path": b"", "root_path": "", "scheme": "http", "headers": raw}, receive, send)

    asyncio.run(run())
    return {"status": messages[0]["status"], **json.loads(messages[1]["body"])}, read


def test_a_large_body_is_refused_before_it_is_read(small: Served) -> None:
    app = create_app([small], Limits(max_bytes=1000))
    answer, read = sent(app, [b"x" * 2000], {"content-length": "2000"})
    assert answer["status"] == 413 and "1000 bytes" in answer["error"] and read == 0
    answer, read = sent(app, [b"x" * 400] * 50, {})  # its length is not given
    assert answer["status"] == 413 and read == 3


def test_a_slow_body_is_not_waited_for(small: Served) -> None:
    answer, _ = sent(create_app([small], Limits(upload_s=0.2)), [b"x"] * 50, {}, pause=0.05)
    assert answer["status"] == 408 and "0.2 s" in answer["error"]


def png(width: int, height: int) -> bytes:
    """A valid PNG of one colour, which takes few bytes."""
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, format="PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG whose header promises ten thousand million pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 1, 0, 0, 0, 0)
    content = png(60, 60)
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


@pytest.mark.parametrize(
    ("content", "kind", "status", "word"),
    [
        (b"", "image/jpeg", 400, "empty"),
        (b"hello", "image/jpeg", 400, "known format"),
        (encoded()[:300], "image/jpeg", 400, "cannot be read"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "image/png", 400, "cannot be read"),
        (png(4000, 3000), "image/png", 413, "4000x3000"),
        (bomb(), "image/png", 400, "pixels"),
        (b"%!PS-Adobe\nshowpage", "application/octet-stream", 400, "known format"),
        (encoded(), "text/html", 415, "text/html"),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x", 400, "form"),
        (b"", "multipart/form-data", 400, "form"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "0 files"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(
    small: Served, content: bytes, kind: str, status: int, word: str
) -> None:
    app = create_app([small], Limits(max_pixels=1_000_000))
    refusal(post(app, content=content, headers={"Content-Type": kind}), status, word)


def test_odd_questions_are_refused(small: Served) -> None:
    app = create_app([small], Limits(max_files=2))
    refusal(post(app, "/v1/predict?top_k=0", content=encoded()), 422, "top_k")
    refusal(post(app, "/v1/predict?masks=x", content=encoded()), 422, "masks")
    refusal(post(app, "/v1/predict?model=%00/etc", content=encoded()), 404, "no model")
    refusal(post(app, files=[("image", ("a.jpg", encoded()))] * 3), 400, "files")
    refusal(get(app, "/nothing/../../etc/passwd"), 404, "path")
    refusal(get(app, "/%2e%2e/%2e%2e/app.py"), 404)


def test_an_image_of_absurd_shape_is_served(small: Served) -> None:
    app = create_app([small])
    assert post(app, content=png(1, 2_000_000)).status_code in (200, 400)
    assert post(app, content=png(1, 1)).status_code == 200


def test_the_host_and_the_origin_are_checked(small: Served) -> None:
    app = create_app([small], hosts=local_names("127.0.0.1"))
    for host in ("localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000"):
        assert get(app, "/v1/models", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example:8000", "", "[", "localhost@evil.example"):
        refusal(get(app, "/v1/models", headers={"Host": host}), 421)
    assert get(app, "/", headers={"Origin": "http://localhost"}).status_code == 200
    refusal(get(app, "/", headers={"Origin": "http://evil.example"}), 403)
    refusal(get(app, "/", headers={"Origin": "null"}), 403)
    assert is_local("127.0.0.2") and is_local("::1") and is_local("localhost")
    assert not is_local("0.0.0.0") and not is_local("10.0.0.1") and not is_local("example.org")


def test_a_token_closes_all_but_the_page_and_health(small: Served) -> None:
    app = create_app([small], token="sécret")
    for path in ("/v1/models", "/v2", "/v2/models/small", "/metrics", "/openapi.json", "/docs"):
        refusal(get(app, path), 401, "token")
        refusal(get(app, path, headers={"Authorization": "Bearer secre"}), 401)
        good = {"Authorization": b"Bearer s\xc3\xa9cret"}
        assert get(app, path, headers=good).status_code == 200
    refusal(post(app, content=encoded()), 401)
    for path in ("/", "/v2/health/live", "/v2/health/ready"):
        assert get(app, path).status_code == 200


def test_no_other_origin_may_read_and_the_page_loads_nothing_from_elsewhere(small: Served) -> None:
    for path in ("/", "/v1/models", "/nothing"):
        headers = get(create_app([small]), path, headers={"Origin": "http://localhost"}).headers
        assert not [name for name in headers if name.startswith("access-control")]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert "frame-ancestors 'none'" in policy


def slow_model(seconds: float) -> Served:
    """A model that takes its time."""
    model = served()
    predict = model.predict

    def slowly(*args: Any) -> Any:
        time.sleep(seconds)
        return predict(*args)

    model.predict = slowly  # type: ignore[method-assign]
    return model


def test_a_full_queue_answers_503_and_recovers() -> None:
    app = create_app([slow_model(0.1)], Limits(max_queue=4, max_batch=2))

    async def conversation(client: httpx.AsyncClient) -> list[httpx.Response]:
        many = await asyncio.gather(*(client.post("/v1/predict", content=encoded()) for _ in range(20)))
        return [*many, await client.post("/v1/predict", content=encoded())]

    *many, last = talk(app, conversation)
    counts = {status: sum(one.status_code == status for one in many) for status in (200, 503)}
    assert counts == {200: 4, 503: 16} and last.status_code == 200
    refused = next(one for one in many if one.status_code == 503)
    refusal(refused, 503, "busy")
    assert 1 <= int(refused.headers["retry-after"]) <= 30


def test_uploads_that_would_fill_the_memory_answer_503(small: Served) -> None:
    app = create_app([small], Limits(max_memory=5000))
    memory = app.state.service.reader.memory

    async def conversation(client: httpx.AsyncClient) -> list[httpx.Response]:
        memory.take(4000)  # of another client's
        full = await client.post("/v1/predict", content=encoded())
        memory.held -= 4000
        return [full, await client.post("/v1/predict", content=encoded())]

    full, later = talk(app, conversation)
    refusal(full, 503, "memory")
    assert later.status_code == 200 and memory.held == 0


def test_an_answer_that_comes_too_late_is_504_and_the_next_is_served() -> None:
    app = create_app([slow_model(0.3)], Limits(deadline_s=0.1))
    refusal(post(app, content=encoded()), 504, "0.1 s")
    assert get(app, "/v2/health/ready").status_code == 200


def test_one_that_fails_does_not_spoil_its_batch(caplog: pytest.LogCaptureFixture) -> None:
    model = served()
    predict = model.predict

    def failing(samples: Any, counts: Any) -> Any:
        if any(sample.size == (13, 13) for sample in samples):
            raise RuntimeError("/secret/folder")
        return predict(samples, counts)

    model.predict = failing  # type: ignore[method-assign]
    app = create_app([model], Limits(max_wait_ms=200, decoders=1))

    async def conversation(client: httpx.AsyncClient) -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as careful:
            sizes = (40, 13, 41)
            return await asyncio.gather(*(careful.post("/v1/predict", content=encoded(s, s)) for s in sizes))

    answers = talk(app, conversation)
    assert [answer.status_code for answer in answers] == [200, 500, 200]
    refusal(answers[1], 500, "internal error")
    assert "/secret/folder" in caplog.text  # the log of the server has it
