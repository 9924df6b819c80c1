"""Training, resuming, evaluation and prediction where what only Linux has is missing, as on macOS and Windows.

What is simulated here: no `fcntl`, no CPU affinity, no SIGUSR1, no /dev/shm, another C
library, and processes that are spawned rather than forked.
"""

import os
import subprocess
import sys

import pytest
from small_photos import TINY

SCRIPT = """
import filelock, multiprocessing, os, pathlib, platform, signal, sys  # filelock has other locks of its own there
sys.modules["fcntl"] = None
for name in ("sched_getaffinity", "sched_setaffinity", "O_CLOEXEC"):
    if hasattr(os, name):
        delattr(os, name)
if hasattr(signal, "SIGUSR1"):
    del signal.SIGUSR1
platform.libc_ver = lambda *_: ("", "")
from overtone.data import shared_memory
shared_memory.SHARED = pathlib.Path("no/such/folder")

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    from overtone.cli import main
    from overtone.engine import folder
    assert folder.fcntl is None
    photos, run, *tiny = sys.argv[1:]
    train = ["train", photos, "--run.out", run, *tiny]
    assert main([*train, "--run.max-steps=2"]) == 0
    assert main([*train, "--run.resume"]) == 0
    assert main(["evaluate", run, photos, "--run.workers=0"]) == 0
    assert main(["predict", run, photos]) == 0
    assert main(["runs", run]) == 0
"""


@pytest.mark.slow
def test_the_verbs_without_what_only_linux_has(tmp_path, trained):
    script = tmp_path / "elsewhere.py"
    script.write_text(SCRIPT, encoding="utf-8")
    options = [*TINY, "--run.workers=1", "--train.epochs=1"]
    done = subprocess.run(
        [sys.executable, str(script), str(trained / "photos"), str(tmp_path / "run"), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "best epoch" in done.stdout and "red" in done.stdout
