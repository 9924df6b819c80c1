"""What only Linux, or only POSIX, has is simulated to be absent, as on macOS and Windows."""

import functools
import importlib.util
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from images_on_disk import classes_of

from overtone import machine
from overtone.config import Augment, Data, Preprocess, Recipe
from overtone.data import opening, shared_memory, silent_codecs
from overtone.data.decoded_cache import DecodedCache, Memory
from overtone.data.decoding import decode_image
from overtone.data.loader import Loader
from overtone.data.sources import TaggedImages
from overtone.data.sources.class_folders import find_evaluation
from overtone.data.transforms import ProgressiveTransform, evaluation_transform, training_transform
from overtone.deployment.timing import lane
from overtone.engine import allocator, folder, interrupt
from overtone.errors import OvertoneError
from overtone.replacing import flush, replacing_folder
from overtone.tasks import settings_type, task_named
from overtone.tasks.task import Setup


def anew(module):
    """A second copy of a module, as it is where the system lacks what the test took away."""
    spec = importlib.util.spec_from_file_location("anew", module.__file__)
    assert spec is not None and spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


@pytest.fixture
def no_proc(monkeypatch, tmp_path):
    """There is no /proc."""
    for name in ("_STATUS", "_CLEAR"):
        monkeypatch.setattr(machine, name, tmp_path / "proc" / name)


def test_every_module_can_be_imported_without_what_windows_lacks():
    code = (
        "import builtins, os, signal, sys, pkgutil, importlib, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "import torch, timm, torchvision, filelock, tensorboard, numpy, tyro, rich.console, matplotlib, PIL.Image\n"
        "import multiprocessing.util, multiprocessing.connection, torch.utils.data, asyncio, subprocess\n"
        "for module in ('fcntl', 'resource', 'pwd', 'grp', 'termios'): sys.modules[module] = None\n"
        "for name in ('sched_getaffinity', 'memfd_create', 'register_at_fork', 'O_NONBLOCK', 'getloadavg', 'fork'):\n"
        "    delattr(os, name)\n"
        "del signal.SIGUSR1\n"
        "import overtone\n"
        "for found in pkgutil.walk_packages(overtone.__path__, 'overtone.'):\n"
        "    if not found.name.endswith('__main__'): importlib.import_module(found.name)\n"
        "print('imported')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert said.stdout == "imported\n", said.stderr


def test_cores_without_an_affinity_mask(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.usable_cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.usable_cores() == 1


@pytest.mark.usefixtures("no_proc")
def test_memory_without_proc_is_the_most_ever_held_or_unknown(monkeypatch):
    machine.forget_peak()
    assert 10e6 < machine.resident_bytes() == machine.peak_bytes() < 1e12
    monkeypatch.setattr(machine, "resource", None)
    assert math.isnan(machine.resident_bytes()) and math.isnan(machine.peak_bytes())
    assert lane._peak(lambda: None, math.nan) is None


def test_the_peak_is_that_of_the_call():
    # a process of its own: this one may hold memory that earlier tests have freed
    code = "from overtone import machine; from overtone.deployment.timing import lane\n"
    code += "print(lane._peak(lambda: b'x' * 200_000_000, machine.resident_bytes()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 190 < float(done.stdout) < 5_000


@pytest.fixture(params=["flock", "elsewhere"])
def locks(request, monkeypatch):
    if request.param == "elsewhere":
        monkeypatch.setattr(folder, "fcntl", None)


@pytest.mark.usefixtures("locks")
def test_a_run_folder_is_claimed_by_one_process_until_it_ends(tmp_path):
    run = tmp_path / "run"
    assert not folder.is_claimed(run)
    code = (
        "import sys, time; from pathlib import Path; from overtone.engine.folder import claimed\n"
        f"with claimed(Path({str(run)!r})): print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline().strip() == b"ready"
        assert folder.is_claimed(run) and folder.is_claimed(run)
        with pytest.raises(OvertoneError, match="another run is using"), folder.claimed(run):
            pass
        process.kill()
    assert not folder.is_claimed(run)
    with folder.claimed(run):
        assert folder.is_claimed(run)
    assert not folder.is_claimed(run)


@pytest.mark.usefixtures("locks")
def test_a_folder_that_cannot_be_locked_counts_as_free(tmp_path):
    (tmp_path / ".lock").mkdir()
    assert not folder.is_claimed(tmp_path)


def test_older_checkpoints_without_hard_links(tmp_path, monkeypatch):
    def refuse(self, target):
        raise error

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for error in (NotImplementedError("os.link() not available"), OSError("not supported")):
        (tmp_path / folder.LAST).write_text(str(error))
        folder.make_room(tmp_path, 2)
        assert (tmp_path / folder.last_name(1)).read_text() == str(error) and not (tmp_path / folder.LAST).exists()


def test_folders_that_cannot_be_opened_are_not_flushed(tmp_path, monkeypatch):
    opened = os.open

    def refuse(path, *args, **kwargs):
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    flush(tmp_path)
    with replacing_folder(tmp_path / "out", ["a.txt"]) as new:
        new.mkdir()
        (new / "a.txt").write_text("a")
        flush(new / "a.txt")
    assert (tmp_path / "out" / "a.txt").read_text() == "a"
    with pytest.raises(FileNotFoundError):
        flush(tmp_path / "nothing")


def test_no_allocator_to_set(monkeypatch):
    for system in ("Darwin", "Windows"):
        monkeypatch.setattr(allocator.platform, "system", lambda system=system: system)
        assert not allocator.keep_freed_memory()
    monkeypatch.setattr(allocator.platform, "system", lambda: "Linux")
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))  # musl
    assert not allocator.keep_freed_memory()


def test_signals_without_sigusr1(monkeypatch):
    monkeypatch.delattr(signal, "SIGUSR1", raising=False)
    module = anew(interrupt)
    stop = module.StopRequest()
    with stop.handled(), stop.patient():
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set
    assert "SIGTERM" in str(stop.exception())


def test_images_are_opened_without_posix_flags(two_classes, monkeypatch):
    for name in ("O_NONBLOCK", "O_CLOEXEC"):
        monkeypatch.delattr(os, name, raising=False)
    module = anew(opening)
    path = next(two_classes.rglob("*.png"))
    assert module.read_file(path) == path.read_bytes()
    with pytest.raises(OSError, match="directory"):
        module.read_file(path.parent)


def test_codecs_speak_where_there_is_no_file_in_memory(two_classes, monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(silent_codecs, "_DIVERSION", silent_codecs._Diversion())
    assert decode_image(next(two_classes.rglob("*.png")).read_bytes(), "ignore").mode == "RGB"


def test_shared_memory_is_not_limited_without_dev_shm(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_memory, "SHARED", tmp_path / "nowhere")
    assert shared_memory.fitting_workers(64, 4096, 1024, pytest.fail) == 64


def test_what_is_timed_runs_in_a_process_that_is_spawned(monkeypatch):
    monkeypatch.setattr(lane.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    with lane.Lane(functools.partial, math.sqrt, 4.0) as one:
        assert min(one.turn()) >= 0


@pytest.fixture
def spawned():
    """Processes are spawned, as on macOS and Windows."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def batches_of(source, pipeline, workers):
    loader = Loader(
        source, pipeline, batch_size=10, workers=workers, shuffle=True, seed=3, cache=DecodedCache(Memory(1 << 20))
    )
    found = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        found += [(batch.ids, batch.inputs, batch.targets) for batch in loader]
    loader.close()
    return found


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert all(map(torch.equal, one, other))


AUGMENT = Augment(rand_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5)


def growing():
    sizes = [training_transform(Preprocess(size=size), AUGMENT, scaled_decoding=True) for size in (12, 16)]
    return ProgressiveTransform(sizes, 2)


@pytest.mark.usefixtures("spawned")
def test_spawned_workers_give_the_same_batches(two_classes):
    source, pipeline = find_evaluation(two_classes), classes_of(growing(), channels_last=True)
    assert_same(batches_of(source, pipeline, 1), batches_of(source, pipeline, 0))


@pytest.mark.parametrize("transform", [evaluation_transform(Preprocess(size=16)), growing()])
def test_what_spawned_workers_get_is_pickled(two_classes, transform):
    source, pipeline = find_evaluation(two_classes), classes_of(transform)
    assert_same(batches_of(*pickle.loads(pickle.dumps((source, pipeline))), 0), batches_of(source, pipeline, 0))


@pytest.mark.parametrize("task", ["classification", "multilabel"])
@pytest.mark.parametrize("train", [True, False])
def test_so_is_what_a_task_gives_them(two_classes, task, train):
    images = find_evaluation(two_classes)
    tags = torch.nn.functional.one_hot(torch.as_tensor(images.targets), 2).numpy()
    tagged = TaggedImages(images.labels, images.paths, tags, images.origin)
    source = images if task == "classification" else tagged
    recipe = Recipe(task=task, settings=settings_type(task)(), data=Data(preprocess=Preprocess(size=16)))
    made = task_named(task)(Setup(tuple(source.labels), recipe, train=source))
    pipeline = made.pipeline(train=train, channels_last=False)
    assert_same(batches_of(*pickle.loads(pickle.dumps((source, pipeline))), 0), batches_of(source, pipeline, 0))
