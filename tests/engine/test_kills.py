"""SIGKILL at random moments (reliability row 10); `kill_loop.py --kills 100` is the long version of this."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 6


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_training_always_goes_on_to_the_same_end():
    script = Path(__file__).with_name("kill_loop.py")
    command = [sys.executable, str(script), "--kills", str(KILLS), "--seed", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{KILLS} kills" in ended.stdout and "all were resumed" in ended.stdout
