"""No verb asks the network, and none writes outside of the folders that it was given (row 38).

Every call of Python is seen by an audit hook, every call of the system, from compiled code too, by strace where it is
installed. (What the runtimes of exports do has its own tests.)
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_photos import TINY, draw

_GUARD = """
import atexit, os, sys

_LOG = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_NETWORK = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.connect", "socket.sendto",
            "socket.sendmsg", "urllib.Request", "http.client.connect", "smtplib.connect")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _hook(event, arguments):
    if event in _NETWORK:
        os.write(_LOG, f"network {event} {arguments}\\n".encode("utf-8", "backslashreplace"))
        raise ConnectionRefusedError(f"{event} is not allowed here")
    if event == "open" and isinstance(arguments[0], (str, bytes)) and arguments[2] & _WRITING:
        os.write(_LOG, f"write {os.path.abspath(os.fsdecode(arguments[0]))}\\n".encode("utf-8", "backslashreplace"))
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link"):
        os.write(_LOG, f"write {os.path.abspath(os.fsdecode(arguments[0]))}\\n".encode("utf-8", "backslashreplace"))


sys.addaudithook(_hook)
"""
_RUN = """
import sys
from overtone.cli import main
for words in sys.argv[1].split(";"):
    code = main(words.split())
    print("code", code, words)
"""
_VERBS = (
    "models hbonet_*",
    "weights list hbonet_*",
    "train digits --data.root photos --run.out out/run {tiny}",
    "train digits --data.root photos --run.out out/other --train.seed 1 {tiny}",
    "evaluate out/run --data.root photos --out out/report {few}",
    "predict out/run photos/blue/0.png {few}",
    "runs out",
    "compare out/run out/other --out out/compared.png",
    "export out/run --to torch --out out/export",
)


def traced(tmp_path: Path, prefix: list[str]) -> subprocess.CompletedProcess[str]:
    """All verbs one after the other in a process with an empty home folder."""
    for name in ("home", "tmp", "guard", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(_GUARD)
    draw(tmp_path / "work" / "photos", {"blue": 6, "green": 6})
    tiny = " ".join(word for word in TINY if word not in ("--run.no-plots", "--run.no-tensorboard"))
    few = "--run.workers 0 --run.threads 1 --run.device cpu"
    words = ";".join(verb.format(tiny=tiny, few=few) for verb in _VERBS)
    paths = [str(tmp_path / "guard"), *(path for path in sys.path if path)]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AUDIT_LOG": str(tmp_path / "audit"),
        "OMP_NUM_THREADS": "1",
    }
    command = [*prefix, sys.executable, "-c", _RUN, words]
    return subprocess.run(command, env=environment, cwd=tmp_path / "work", capture_output=True, text=True, timeout=280)


def outside(paths: list[str], tmp_path: Path) -> list[str]:
    """The paths that lie in none of the folders that were given."""
    record = tmp_path / "home" / ".local" / "state" / "overtone"  # of what was exported
    ours = (str(tmp_path / "work" / "out"), str(record), "/dev/", "/proc/")
    ours += (str(tmp_path / "home" / ".cache" / "overtone"),)  # the fonts that matplotlib has found
    ours += (str(tmp_path / "audit"), str(tmp_path / "tmp"))  # what lies in TMPDIR must be gone in the end
    above = {str(parent) for folder in ours[1:] for parent in Path(folder).parents}  # made on the way to it
    relative = str(tmp_path / "work" / ".lock")  # opened relative to the run folder, whose descriptor is not recorded
    assert not Path(relative).exists()
    return [path for path in paths if not path.startswith(ours) and path not in above and path != relative]


def check(done: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    codes = [line for line in done.stdout.splitlines() if line.startswith("code ")]
    assert [line.split(maxsplit=2)[1:] for line in codes if line.split()[1] != "0"] == [], done.stdout + done.stderr
    assert len(codes) == len(_VERBS)
    lines = (tmp_path / "audit").read_text().splitlines()
    assert [line for line in lines if line.startswith("network")] == []
    assert outside([line.removeprefix("write ") for line in lines if line.startswith("write")], tmp_path) == []
    assert any(line.startswith("write") and "metrics" in line for line in lines)  # the hook hears
    # an export leaves PyTorch's cache of compiled code, which the next one reads, with the temporary files
    assert [path for path in (tmp_path / "tmp").iterdir() if not path.name.startswith("torchinductor_")] == []
    left = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert outside([str(path) for path in left], tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["out", "photos"]


@pytest.mark.slow
def test_verbs_ask_no_network_and_write_where_they_were_told(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    log = tmp_path / "calls"
    prefix: list[str] = []
    if strace is not None:
        usable = subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True)
        if usable.returncode == 0:  # it may be forbidden to trace
            kinds = "trace=connect,sendto,sendmsg,sendmmsg,bind,openat,creat,mkdir,rename"
            prefix = [strace, "-f", "-qq", "-s", "400", "--seccomp-bpf", "-e", kinds, "-o", str(log)]
    done = traced(tmp_path, prefix)
    check(done, tmp_path)
    if not prefix:
        return
    calls = log.read_text(errors="replace").splitlines()
    # urllib3, which tensorboard imports where boto3 is installed, asks so whether there is IPv6: nothing is sent
    asked = re.compile(r'bind\(.*sin6_port=htons\(0\).*"::1"')
    assert [call for call in calls if re.search(r"AF_INET|AF_INET6", call) and not asked.search(call)] == []
    writing = [call for call in calls if re.search(r"O_WRONLY|O_RDWR|O_CREAT|creat\(|mkdir\(|rename\(", call)]
    written = [match[1] for call in writing if " = -1 " not in call and (match := re.search(r'"([^"]*)"', call))]
    work = tmp_path / "work"
    assert outside([os.path.normpath(work / path) for path in written], tmp_path) == []
    assert any("best.safetensors" in path for path in written)
