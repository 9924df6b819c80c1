"""No runtime looks up a host, opens a connection or writes a file of its own, whatever its makers' default is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from exported_nets import needs, origin, plain_net

from overtone.deployment.export import Request, export

# Python's own sockets are caught by the audit hook; those of compiled code by the C library's functions, which the
# preloaded one replaces where a compiler is at hand.
_GUARD = """
import sys, time
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print("NETWORK", event, arguments, file=sys.stderr, flush=True)
        raise SystemExit(9)
sys.addaudithook(refuse)
"""
_LIBRARY = """
#include <stdio.h>
struct addrinfo; struct sockaddr;
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    fprintf(stderr, "NETWORK getaddrinfo %s\\n", node ? node : "");
    return -2;
}
"""


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory):
    """A library that reports every look-up of a host, also one of compiled code; None without a compiler."""
    folder = tmp_path_factory.mktemp("guard")
    (folder / "guard.c").write_text(_LIBRARY)
    words = ["cc", "-shared", "-fPIC", "-o", str(folder / "guard.so"), str(folder / "guard.c")]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return folder / "guard.so"


def run_alone(code, home, preloaded):
    """Run code in a process with an empty home folder; it must write nothing there and look nothing up."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    environment |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "OVERTONE_TRUST_DIR": str(home.parent / "trust")}
    if preloaded is not None:
        environment["LD_PRELOAD"] = str(preloaded)
    home.mkdir()
    words = [sys.executable, "-W", "ignore", "-c", _GUARD + code]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "NETWORK" not in done.stderr
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def exported(request, tmp_path_factory):
    needs(request.param)
    folder = tmp_path_factory.mktemp("telemetry") / request.param
    export(plain_net(), origin(), Request(request.param, checked=2), folder)
    return folder


@pytest.mark.slow
def test_an_export_is_opened_in_silence(exported, tmp_path, preloaded, monkeypatch):
    code = (
        "import numpy; from pathlib import Path; from overtone.deployment.artifact import trust\n"
        "from overtone.deployment.export import open_export\n"
        f"folder = Path({str(exported)!r}); trust(folder); predictor, about = open_export(folder)\n"
        "predictor.predict(numpy.zeros((1, 3, 32, 32), 'float32')); time.sleep(1)"
    )
    run_alone(code, tmp_path / "home", preloaded)


@pytest.mark.slow
def test_its_script_runs_in_silence(exported, tmp_path, preloaded):
    code = (
        "import runpy\n"
        f"sys.argv = ['run.py', {str(exported / 'golden.png')!r}]\n"
        f"runpy.run_path({str(exported / 'run.py')!r}, run_name='__main__'); time.sleep(1)"
    )
    run_alone(code, tmp_path / "home", preloaded)


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "precision"), [("onnx", "float32"), ("openvino", "int8")])
def test_an_export_is_written_in_silence(tmp_path, preloaded, runtime, precision):
    needs(runtime)
    tests = str(Path(__file__).parent)
    code = (
        f"sys.path.insert(0, {tests!r})\n"
        "from pathlib import Path; from exported_nets import origin, images_in, plain_net\n"
        "from overtone.deployment.export import Request, export\n"
        f"folder = Path({str(tmp_path)!r}); images = images_in(folder / 'images', 8)\n"
        f"export(plain_net(), origin(), Request({runtime!r}, {precision!r}, image_folder=images, checked=2), "
        "folder / 'export'); time.sleep(1)"
    )
    run_alone(code, tmp_path / "home", preloaded)
