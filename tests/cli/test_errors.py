"""What goes wrong is said in one line, with an exit code that says whose turn it is."""

import errno
import os
import subprocess
import sys
import warnings

import pytest

from overtone.verbs import models as models_verb


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("traim", "no verb 'traim'; did you mean train?"),
        ("train digts", "no recipe 'digts' and no folder of that name; did you mean digits?"),
        ("train unlike_any", "no recipe 'unlike_any' and no folder of that name; overtone train --help lists"),
        ("train --data.root nowhere", "nowhere does not exist"),
        ("train some/photos", "some/photos does not exist"),
        ("train --train.epochs 3", "no images are given"),
        ("train digits --data.root x --task nothing-like-it --settings.x 1", "no option --settings.x"),
        ("train digits", "--data.root DIR or --data.table FILE"),
        ("train digits --data.root x --optim.lrr 1", "no option --optim.lrr; did you mean --optim.lr"),
        ("train digits --data.root x --lr 1", "no option --lr; did you mean --optim.lr?"),
        ("train digits --data.root x --optim.lr high", "--optim.lr: could not convert string to float: 'high'"),
        ("train digits --data.root x --optim.lr -1", "optim.lr is -1.0; it must be 0 or more"),
        ("train digits --data.root x --train.epochs", "Missing value for argument '--train.epochs'"),
        ("train digits --data.root x --optim.name adam", "invalid choice 'adam'"),
        ("train digits --data.root x --model.args levels", "'levels' is not NAME=VALUE"),
        ("train digits x more", "does not take 'more'"),
        ("train digits --data.root nowhere", "nowhere"),
        ("train finetune --data.root x", "starts from trained weights and none are given"),
        ("train finetune --data.root x --model.weights nowhere", "neither a checkpoint file nor a run folder"),
        ("train digits x --data.root y", "x and --data.root y"),
        ("evaluate", "missing: MODEL"),
        ("evaluate hbonet_x010", "no images are given"),
        ("evaluate hbonet_x010 x --data.root y", "x and --data.root y"),
        ("weights convert", "missing: FILE|NAME, --out"),
        ("evaluate runs/nowhere --data.root .", "runs/nowhere is not there"),
        ("evaluate hbonet_x01 --data.root .", "did you mean hbonet_x010"),
        ("evaluate hbonet_x010 --data.root nowhere", "nowhere"),
        ("evaluate hbonet_x010 --data.root . --data.split vall", "invalid choice 'vall'"),
        ("predict", "missing: MODEL"),
        ("predict hbonet_x010", "no images are given"),
        ("predict hbonet_x010 . --top-k 0", "top_k is 0; it must be at least 1"),
        ("models nothing_like_it", "no architecture matches 'nothing_like_it'"),
        ("models efficientnet_b0", "add --timm"),
        ("models --tim", "no option --tim; did you mean --timm?"),
    ],
)
def test_a_mistake_is_one_clear_line(overtone, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    assert says in overtone(*words.split()).error


@pytest.fixture
def models_raises(monkeypatch):
    def install(error):
        def models(chosen):
            raise error

        monkeypatch.setattr(models_verb, "models", models)

    return install


def test_a_defect_is_one_line_and_a_traceback_only_with_debug(overtone, models_raises):
    models_raises(ZeroDivisionError("of\nours"))
    outcome = overtone("models")
    assert (outcome.code, outcome.err) == (
        1,
        "overtone: error: internal error: ZeroDivisionError: of ours; run again with --debug\n",
    )
    for words in (("models", "--debug"), ("--debug", "models")):
        outcome = overtone(*words)
        assert outcome.code == 1
        assert "Traceback" in outcome.err


def test_debug_shows_where_a_clear_error_comes_from(overtone):
    outcome = overtone("models", "nothing_like_it", "--debug")
    assert outcome.code == 2
    assert "Traceback" in outcome.err and "OvertoneError" in outcome.err


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_without_a_path_of_code(overtone, monkeypatch):
    def models(chosen):
        warnings.warn("of\nours", UserWarning, stacklevel=1)
        warnings.warn("of another's", FutureWarning, stacklevel=1)
        return 0

    monkeypatch.setattr(models_verb, "models", models)
    expected = "overtone: warning: of ours\novertone: warning: FutureWarning: of another's\n"
    assert overtone("models").err == expected
    assert "test_errors.py:" in overtone("models", "--debug").err


def test_ctrl_c_is_130(overtone, models_raises):
    models_raises(KeyboardInterrupt())
    outcome = overtone("models")
    assert (outcome.code, outcome.err) == (130, "overtone: error: stopped\n")


def test_a_reader_that_goes_away_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "overtone", "train", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "photos/a.jpg"), "photos/a.jpg: No such file; check"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "runs: Permission denied; change its permissions"),
        (OSError(errno.ENOSPC, "No space left on device"), "TMPDIR"),
        (OSError(errno.EROFS, "Read-only file system", "/mnt/a", None, "/mnt/b"), "/mnt/a and /mnt/b: Read-only"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), "xxx … xxx"),
        (OSError(errno.EMFILE, "Too many open files", b"a\xff"), r"a\xff: Too many open files; raise the limit"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "a\x1b[2J\n"), r"a\x1b[2J"),
        (ValueError("embedded null byte"), "a path contains a NUL"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "a smaller batch"),
    ],
)
def test_an_error_of_the_operating_system_is_one_line_and_no_defect(overtone, models_raises, error, says):
    models_raises(error)
    message = overtone("models").error
    assert says in message and len(message) < 600 and "internal" not in message
    assert message.rstrip("\n").isprintable()


@pytest.mark.parametrize("error", [ValueError("other"), RuntimeError("other"), KeyError("x")])
def test_other_errors_are_defects(overtone, models_raises, error):
    models_raises(error)
    outcome = overtone("models")
    assert outcome.code == 1 and "internal error" in outcome.err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_folders_without_permission(overtone, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    try:
        for words in (("runs", closed), ("predict", closed, "a.jpg"), ("train", closed)):
            assert "closed" in overtone(*words).error
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("path", ["x" * 5000, "a/" * 3000, "nul\0nul"])
@pytest.mark.parametrize(
    "words", ["runs {}", "train {}/", "predict {} a.jpg", "evaluate {} photos", "weights inspect {}"]
)
def test_impossible_paths(overtone, words, path):
    assert overtone(*(word.format(path) for word in words.split())).error
