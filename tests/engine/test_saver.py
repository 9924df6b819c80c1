"""Checkpoints written beside the training, the last few of them, and what is left of them after a fault."""

import dataclasses
import errno
import json
import os
import threading
import time

import pytest
import torch
from safetensors import SafetensorError
from torch.optim import SGD

from overtone import checkpoint
from overtone.checkpoint import DamagedCheckpoint, Manifest, is_temporary, read_checkpoint, read_manifest
from overtone.config import Preprocess, Run
from overtone.engine import folder as files
from overtone.engine import saver
from overtone.engine.background import Background
from overtone.engine.placement import place
from overtone.engine.saver import Saver, read_last
from overtone.engine.state import State
from overtone.engine.step import Trainer
from overtone.errors import OvertoneError

MANIFEST = Manifest("tiny", ("a", "b", "c"), Preprocess(size=8))


@pytest.fixture
def trainer(tiny):
    optimizer = SGD(tiny.parameters(), lr=0.1, momentum=0.9)
    sum(parameter.sum() for parameter in tiny.parameters()).backward()
    optimizer.step()
    return Trainer(tiny, None, optimizer, lr_at=lambda step: 0.1, placement=place(Run(device="cpu")))


def save_steps(folder, trainer, steps, **options):
    with Saver(folder, MANIFEST, **options) as writer:
        for step in steps:
            with torch.no_grad():
                trainer.model.head.bias.fill_(step)
            writer.save(trainer, State(step=step), {"top1": float(step)})


def steps_in(folder):
    return [read_checkpoint(path).manifest.progress["step"] for path in files.checkpoints(folder)]


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_training_may_go_on_while_its_state_is_written(trainer, tmp_path, monkeypatch):
    written, may_write, original = [], threading.Event(), saver.write_tensors

    def write_later(*args):
        assert may_write.wait(10)
        original(*args)
        written.append(threading.current_thread())

    monkeypatch.setattr(saver, "write_tensors", write_later)
    trained = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    momentum = trainer.optimizer.state[trainer.model.head.bias]["momentum_buffer"].clone()
    state = State(step=1, bad=[4])
    with Saver(tmp_path, MANIFEST) as writer:
        writer.save(trainer, state, {"top1": 50.0}, best=True, report="{}")
        assert not written and not files.checkpoints(tmp_path)
        with torch.no_grad():
            trainer.model.head.bias.fill_(9)
        trainer.optimizer.state[trainer.model.head.bias]["momentum_buffer"].fill_(9)
        state.step, state.bad = 2, [*state.bad, 5]
        may_write.set()
    last, best = read_checkpoint(tmp_path / files.LAST), read_checkpoint(tmp_path / files.BEST)
    assert threading.main_thread() not in written and len(written) == 2
    for found in (last, best):
        assert found.weights.keys() == trained.keys()
        assert all(torch.equal(found.weights[key], trained[key]) for key in trained)
        assert found.manifest.metrics == {"top1": 50.0}
    assert torch.equal(last.training["optimizer/head.bias/momentum_buffer"], momentum) and not best.training
    assert (last.manifest.progress["step"], last.manifest.progress["bad"]) == (1, [4])
    assert (tmp_path / files.REPORT).read_text() == "{}"


def test_one_at_a_time_and_errors_come_out_in_the_main_thread():
    background, order = Background(), []

    def slow():
        time.sleep(0.1)
        order.append("first")

    def fails():
        order.append("second")
        raise ValueError("no")

    background.submit(slow)
    assert background.is_busy
    background.check()  # still running: nothing to say yet
    background.submit(fails)
    assert order[0] == "first"
    with pytest.raises(ValueError, match="no"):
        background.submit(slow)
    background.close()
    assert order == ["first", "second"]
    background.submit(fails)
    while background.is_busy:
        time.sleep(0.001)
    with pytest.raises(ValueError, match="no"):
        background.check()


def test_leaving_at_once_does_not_wait():
    release = threading.Event()
    started = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        _leave(Background(), lambda: release.wait(20), KeyboardInterrupt())
    assert time.perf_counter() - started < 10
    release.set()
    done = []
    with pytest.raises(RuntimeError, match="the first"):
        _leave(Background(), lambda: (time.sleep(0.1), done.append(True)), RuntimeError("the first error"))
    assert done


def _leave(background, work, error):
    with background:
        background.submit(work)
        raise error


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_few_stay(trainer, tmp_path, keep):
    save_steps(tmp_path, trainer, range(1, 6), keep_last=keep)
    assert steps_in(tmp_path) == list(range(5, 5 - keep, -1))
    assert len({path.stat().st_ino for path in files.checkpoints(tmp_path)}) == keep
    save_steps(tmp_path, trainer, [6], keep_last=1)
    assert {path.name for path in tmp_path.iterdir()} == {files.LAST} and steps_in(tmp_path) == [6]


def test_without_hard_links(trainer, tmp_path, monkeypatch):
    def link(source, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    save_steps(tmp_path, trainer, range(1, 5), keep_last=3)
    assert steps_in(tmp_path) == [4, 3, 2]


class Crash(BaseException):
    """The power has gone."""


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_a_crash_at_any_call_leaves_a_whole_checkpoint(trainer, tmp_path, monkeypatch, keep, links):
    """Each call that changes the folder or flushes it is the last one, in turn; nothing may be cleaned up after it."""
    calls = {"until": -1}
    for name in ("replace", "link", "unlink", "fsync", "rename"):
        original = getattr(os, name)

        def crashing(*args, _original=original, _name=name, **options):
            if calls["until"] == 0:
                raise Crash
            calls["until"] -= 1
            if _name == "link" and not links:
                raise OSError(errno.EPERM, "no links here")
            return _original(*args, **options)

        monkeypatch.setattr(os, name, crashing)
    step, crashed_at = 3, 0
    save_steps(tmp_path, trainer, range(1, step + 1), keep_last=keep)
    while True:
        step += 1
        calls["until"] = crashed_at
        try:
            save_steps(tmp_path, trainer, [step], keep_last=keep)
        except Crash:
            calls["until"] = -1
            found = steps_in(tmp_path)
            assert found and found[0] in (step, step - 1), (crashed_at, found)
            assert found == sorted(found, reverse=True)
            files.remove_temporary(tmp_path)
            save_steps(tmp_path, trainer, [step], keep_last=keep)
            assert steps_in(tmp_path)[0] == step and len(steps_in(tmp_path)) <= keep
            crashed_at += 1
        else:
            break
    assert crashed_at >= {1: 3, 2: 5, 3: 6}[keep]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SafetensorError("I/O error: No space left on device")],
)
def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_stays(trainer, tmp_path, monkeypatch, error):
    save_steps(tmp_path, trainer, [1, 2])

    def save_file(tensors, path, metadata):
        path.write_bytes(b"some of it")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    writer = Saver(tmp_path, MANIFEST, every_steps=1)
    writer.save(trainer, State(step=3), {})
    with pytest.raises(OvertoneError, match=r"last\.safetensors could not be written: .*No space left.*free some"):
        writer.close()
    writer.save(trainer, State(step=3), {})
    while writer._background.is_busy:
        time.sleep(0.001)
    with pytest.raises(OvertoneError, match="No space left"):
        writer.is_due(4)
    assert steps_in(tmp_path) == [2, 1] and not any(map(is_temporary, tmp_path.iterdir()))


def test_damaged_checkpoints_are_set_aside_and_the_one_before_is_used(trainer, tmp_path):
    save_steps(tmp_path, trainer, [1, 2, 3], keep_last=3)
    newest = tmp_path / files.LAST
    flip(newest, newest.stat().st_size - 3)
    second = tmp_path / "last-1.safetensors"
    os.truncate(second, second.stat().st_size // 2)
    messages = []
    path, found = read_last(tmp_path, messages.append)
    assert path == newest and found.manifest.progress["step"] == 1
    assert "last.safetensors is damaged" in messages[0] and "SHA-256" in messages[0]
    assert "last.safetensors.damaged now, and last-2.safetensors is used instead" in messages[0]
    assert "last-1.safetensors" in messages[1] and len(messages) == 2 and not any("\n" in line for line in messages)
    assert steps_in(tmp_path) == [1]
    save_steps(tmp_path, trainer, [2], keep_last=2)
    assert steps_in(tmp_path) == [2, 1]


def test_no_bit_of_a_checkpoint_may_change(trainer, tmp_path):
    save_steps(tmp_path, trainer, [1], keep_last=1)
    path = tmp_path / files.LAST
    whole = path.read_bytes()
    tried = 0
    for position in (*range(0, 600, 7), *range(600, len(whole), 41)):
        flip(path, position)
        tried += 1
        with pytest.raises(DamagedCheckpoint, match=r"last\.safetensors"):
            read_checkpoint(path)
        path.write_bytes(whole)
    for length in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedCheckpoint, match=r"last\.safetensors"):
            read_checkpoint(path)
    assert tried > 100


def test_nothing_whole_is_a_clear_error(trainer, tmp_path):
    assert read_last(tmp_path, print) is None
    save_steps(tmp_path, trainer, [1, 2])
    for path in files.checkpoints(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(OvertoneError, match=r"no checkpoint .* is whole \(last\.safetensors, last-1\.safetensors; .*"):
        read_last(tmp_path, print)
    assert len(files.checkpoints(tmp_path)) == 2


def test_a_newer_format_is_not_taken_for_damage(trainer, tmp_path):
    save_steps(tmp_path, trainer, [1], keep_last=1)
    newer = dataclasses.replace(MANIFEST, format=99)
    checkpoint.write_checkpoint(tmp_path / "last-1.safetensors", MANIFEST, {})
    checkpoint.write_checkpoint(tmp_path / files.LAST, newer, {})
    with pytest.raises(OvertoneError, match="newer overtone"):
        read_last(tmp_path, print)
    assert (tmp_path / files.LAST).is_file()


def test_when_a_checkpoint_is_due(trainer, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    writer = Saver(tmp_path, MANIFEST, every_minutes=2, every_steps=5)
    writer.start(3)
    assert not writer.is_due(7) and writer.is_due(8)
    now[0] = 119
    assert not writer.is_due(4)
    now[0] = 120
    assert writer.is_due(4)
    writer.save(trainer, State(step=4), {})
    writer.close()
    assert not writer.is_due(5) and writer.is_due(9)
    never = Saver(tmp_path, MANIFEST)
    assert not never.is_due(10**9)


def test_folders_that_a_run_may_use(trainer, tmp_path):
    folder = tmp_path / "run"
    assert not files.check_folder(folder, overwrite=False, resume=False)
    folder.mkdir()
    for name in (".lock", ".recipe.json.123.tmp"):
        (folder / name).touch()
    assert not files.check_folder(folder, overwrite=False, resume=False)
    files.remove_temporary(folder)
    assert [path.name for path in folder.iterdir()] == [".lock"]
    (folder / files.RECIPE).write_text(json.dumps({}))
    assert files.check_folder(folder, overwrite=False, resume=False)
    with pytest.raises(OvertoneError, match=r"has no last\.safetensors"):
        files.check_folder(folder, overwrite=False, resume=True)
    (folder / files.RECIPE).unlink()
    save_steps(folder, trainer, [1, 2])
    assert files.check_folder(folder, overwrite=False, resume=True)
    assert not files.check_folder(folder, overwrite=True, resume=False)
    with pytest.raises(OvertoneError, match="give one of them"):
        files.check_folder(folder, overwrite=True, resume=True)
    (folder / "last.safetensors.damaged").touch()
    (folder / "last-minute.safetensors").touch()
    files.clear(folder)
    assert {path.name for path in folder.iterdir()} == {".lock", "last-minute.safetensors"}
    assert read_manifest_fails(folder / "last-minute.safetensors")


def read_manifest_fails(path):
    with pytest.raises(DamagedCheckpoint):
        read_manifest(path)
    return True
