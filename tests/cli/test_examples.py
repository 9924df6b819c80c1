"""Every script of examples/ runs as it is, on small images that it draws itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name, folder, **settings):
    """Run a script in a folder of its own; gives what it printed."""
    environment = {**os.environ, **settings, "OVERTONE_TRUST_DIR": str(folder / "trust"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "error::UserWarning:__main__", str(EXAMPLES / name)]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_own_photos(tmp_path):
    printed = run_example("own_photos.py", tmp_path, EPOCHS="1", SIZE="32")
    assert printed.count("top-1") == 2 and "held-out part" in printed and "circle" in printed
    assert (tmp_path / "runs" / "own_photos" / "prediction.png").stat().st_size > 1000


@pytest.mark.slow
def test_timm_to_phone(tmp_path):
    pytest.importorskip("onnxruntime")
    printed = run_example("timm_to_phone.py", tmp_path, EPOCHS="1", SIZE="32", NETWORK="test_efficientnet")
    assert (tmp_path / "phone" / "onnx" / "model.onnx").is_file()
    assert "largest difference" in printed and "\nonnx " in printed


@pytest.mark.slow
def test_features(tmp_path, trained):
    pytest.importorskip("sklearn")
    printed = run_example("features.py", tmp_path, MODEL=str(trained / "run"))
    assert "120 images" in printed and "accuracy" in printed


def test_every_example_is_run():
    scripts = {path.name for path in EXAMPLES.glob("*.py")} - {"shapes.py"}
    assert all(f'"{name}"' in Path(__file__).read_text(encoding="utf-8") for name in scripts)
