"""Paths that are no files, names that a terminal would obey, and a system that refuses (rows 30 and 39)."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from small_photos import draw

from overtone.verbs import models as models_verb

FEW = ("--run.workers", "0", "--run.threads", "1", "--run.device", "cpu")
_RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def called(*words: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command as a user calls it, within a time in which nothing can have hung."""
    command = [sys.executable, "-m", "overtone", *map(str, words)]
    return subprocess.run(command, capture_output=True, timeout=90, env=os.environ | environment)


def test_odd_paths_are_one_line_each_and_the_others_go_on(trained: Path, tmp_path: Path) -> None:
    good = trained / "photos" / "red" / "0.png"
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    odd = [tmp_path / "pipe.jpg", tmp_path / "itself.jpg", Path("/dev/zero"), tmp_path / ("a" * 5000)]
    names = [
        b"esc\x1b]0;owned\x07\x1b[2J.jpg",
        b"two\nlines\r.jpg",
        b"bytes\xff\xfe.jpg",
        "turned\u202egpj.exe".encode(),
    ]
    for name in names:
        path = os.fsencode(tmp_path) + b"/" + name
        Path(os.fsdecode(path)).write_bytes(b"no image")
        odd.append(Path(os.fsdecode(path)))
    plain = called("predict", trained / "run", *odd, good, *FEW)
    assert plain.returncode == 1, plain.stderr
    for text in (plain.stdout.decode(), plain.stderr.decode()):
        assert not _RAW.search(text)
    lines = [line for line in plain.stderr.decode().splitlines() if "could not be read: " in line]
    assert len(lines) == len(odd)
    for path, line in zip(
        ("pipe.jpg", "itself.jpg", "/dev/zero", "aaa", r"esc\x1b", r"two\nlines\r"), lines, strict=False
    ):
        assert path in line
    assert "0.png" in plain.stdout.decode() and "%" in plain.stdout.decode()
    as_json = called("predict", trained / "run", *odd, good, "--json", *FEW)
    assert not _RAW.search(as_json.stdout.decode())
    found = json.loads(as_json.stdout)
    assert [bad["image"] for bad in found["bad"]] == [str(path) for path in odd]
    assert [image["image"] for image in found["images"]] == [str(good)]


def test_classes_with_control_characters_are_escaped(trained: Path, tmp_path: Path) -> None:
    draw(tmp_path / "photos", {"blue": 1, "green": 1, "red\x1b[31m": 1})
    outcome = called("evaluate", trained / "run", "--data.root", tmp_path / "photos", *FEW)
    assert outcome.returncode == 2
    assert rb"red\x1b[31m" in outcome.stderr and b"\x1b" not in outcome.stderr + outcome.stdout


def test_a_name_given_as_model_is_escaped(overtone) -> None:
    assert "\x1b" not in overtone("predict", "run\x1b[2J", "a.jpg").error
    assert "\x1b" not in overtone("trai\x1b[2Jn").error


_WITH_A_PATH = (
    "predict {} {photo}",
    "evaluate {} --data.root {photos}",
    "evaluate {run} --data.root {}",
    "evaluate {run} --data.root {photos} --out {}",
    "runs {}",
    "compare {} {}",
    "train digits --data.root {}",
    "train digits --data.root {photos} --run.out {}",
    "train finetune --data.root {photos} --model.weights {}",
    "export {run} --to torch --out {}",
    "predict mobilenetv2_x100.dli14_in1k {photo} --weights-dir {}",
)


@pytest.mark.parametrize("words", _WITH_A_PATH)
@pytest.mark.parametrize("kind", ["long", "deep", "nul", "pipe", "itself", "device", "below a file"])
def test_odd_paths_of_every_option_are_mistakes_in_one_line(
    overtone, trained: Path, tmp_path: Path, kind: str, words: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "file").write_bytes(b"a")
    odd = {
        "long": "a" * 5000,
        "deep": "/".join("a" * 5000),
        "nul": "a\0b",
        "pipe": tmp_path / "pipe",
        "itself": tmp_path / "itself",
        "device": "/dev/null",
        "below a file": tmp_path / "file" / "below",
    }
    given = {"run": trained / "run", "photos": trained / "photos", "photo": trained / "photos" / "red" / "0.png"}
    outcome = overtone(*(word.replace("{}", str(odd[kind])).format(**given) for word in words.split()))
    assert outcome.code == 2 and "internal error" not in outcome.err
    assert sum(line.startswith("overtone: error: ") for line in outcome.err.splitlines()) == 1


def test_a_disk_that_takes_no_more_is_one_line(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    # a limit of the size of files is the disk that is full: what is written stops in the middle
    words = ["predict", trained / "run", trained / "photos" / "red" / "0.png", "--runtime", "onnx", *FEW]
    command = ["bash", "-c", 'ulimit -f 4; exec "$@"', "-", sys.executable, "-m", "overtone", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 2, done.stderr
    assert "internal error" not in done.stderr and "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "denied", "/x/y" * 900)])
def test_what_the_system_refuses_is_no_defect(overtone, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def models(chosen: object) -> int:
        raise error

    monkeypatch.setattr(models_verb, "models", models)
    line = overtone("models").error
    assert str(error.strerror) in line and len(line) < 600
    assert ("TMPDIR" if error.errno == 28 else "permissions") in line


_SEVERAL = """
from overtone.cli import main
codes = [
    main("runs closed".split()),
    main("runs closed/below".split()),
    main("predict closed/run photos/red/1.png".split()),
    main("evaluate run --data.root photos".split()),
    main("evaluate run --data.root closed/photos".split()),
    main("predict run photos/red/0.png photos/red/1.png closed/a.png".split()),
]
for code in codes:
    print("code", code)
"""


def test_a_folder_without_permission_is_one_line(trained: Path) -> None:
    prefix: list[str] = []
    if os.geteuid() == 0:  # whom no permission stops
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("runs as root, and cannot become another user")
        prefix = [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "closed").mkdir()
        shutil.copytree(trained / "run", root / "run")
        shutil.copytree(trained / "photos", root / "photos")
        closed_image = root / "photos" / "red" / "0.png"
        closed_image.chmod(0)
        for closed in (root / "closed", root / "photos" / "blue"):
            closed.chmod(0)
        command = [*prefix, sys.executable, "-c", _SEVERAL]
        environment = os.environ | {"HOME": folder, "MPLCONFIGDIR": folder}
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=root, env=environment)
        (root / "closed").chmod(0o755)
        (root / "photos" / "blue").chmod(0o755)
    if "No module named" in done.stderr:
        pytest.skip("another user may not read this installation")
    assert "internal error" not in done.stderr, done.stderr
    assert done.stdout.splitlines()[-6:] == ["code 2", "code 2", "code 2", "code 2", "code 2", "code 1"], done.stderr
    assert sum("ermission" in line or "cannot be read" in line for line in done.stderr.splitlines()) >= 6
