"""Every layout is recognised, its network inferred from the shapes, loaded strictly, and written back as it was."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from fill import image_batch
from golden_record import published_state, read_record
from small_nets import LAYOUTS, SMALL, filled, identical, noise, openmmlab, prefixed, write

from overtone import zoo
from overtone.checkpoint import Manifest, write_checkpoint
from overtone.config import Preprocess
from overtone.errors import OvertoneError

every_small_net = pytest.mark.parametrize("name", SMALL)


# Eleven million parameters: only the layouts that its files were published in.
OF_THE_LARGEST = ("bare", "module")
EVERY_LAYOUT = [(n, layout) for n in SMALL for layout in LAYOUTS if n != "harm_resnet" or layout in OF_THE_LARGEST]


@pytest.mark.parametrize(("name", "layout"), EVERY_LAYOUT)
def test_every_layout_there_and_back(name: str, layout: str, tmp_path: Path) -> None:
    expected, wrap = LAYOUTS[layout]
    net = filled(name)
    published = net.published_state_dict()
    legacy = layout in ("bare", "model")
    path = write(tmp_path / "some.pth.tar", wrap(published), legacy)
    loaded = zoo.load_model(str(path))
    assert loaded.layout == expected
    assert not loaded.model.training and all(p.dtype == torch.float32 for p in loaded.model.parameters())
    again = loaded.model.published_state_dict()
    assert identical(again, published)
    images = torch.from_numpy(image_batch(name, 1, 64, 64)).float()
    with torch.inference_mode():
        assert torch.equal(loaded.model(images), net(images))


@pytest.mark.parametrize("name", ["hbonet", "harm_wrn", "hornet_gf"])
@pytest.mark.parametrize("layout", ["bare", "module", "model", "state_dict"])
def test_written_in_the_published_layout(name: str, layout: str, tmp_path: Path) -> None:
    net = filled(name)
    published = net.published_state_dict()
    path = tmp_path / "written.pth"
    zoo.write_published(path, net, layout, {"epoch": 5} if layout in ("model", "state_dict") else None)
    plain = torch.load(path, weights_only=True)
    wanted = prefixed(published) if layout in ("module", "state_dict") else published
    inside = plain[layout] if layout in ("model", "state_dict") else plain
    assert identical(inside, wanted)
    assert inside is plain or plain["epoch"] == 5
    state = zoo.read_state(path)
    assert identical(state.entries, published)


@every_small_net
def test_safetensors_bare(name: str, tmp_path: Path) -> None:
    published = filled(name).published_state_dict()
    loaded = zoo.load_model(str(write(tmp_path / "net.safetensors", published)))
    assert loaded.layout == "bare" and identical(loaded.model.published_state_dict(), published)


@every_small_net
def test_checkpoints_of_overtone(name: str, tmp_path: Path) -> None:
    architecture, args = SMALL[name]
    net = filled(name)
    args = {key: value for key, value in args.items() if key != "num_classes"}
    classes = tuple(f"class {i}" for i in range(net.num_classes))
    preprocess = Preprocess(size=96, resize="squash", crop_fraction=1.0, interpolation="bicubic")
    manifest = Manifest(architecture, classes, preprocess, args, source="a test")
    path = tmp_path / "best.safetensors"
    write_checkpoint(path, manifest, net.state_dict(), {"optimizer/step": torch.tensor(3)})
    for spec in (path, tmp_path):  # the file, and the run folder
        loaded = zoo.load_model(str(spec))
        assert loaded.layout == "overtone" and loaded.labels == classes and loaded.preprocess == preprocess
        assert identical(loaded.model.published_state_dict(), net.published_state_dict())
    description = zoo.describe(path)
    assert description.architecture == architecture and description.num_classes == len(classes)
    assert description.num_tensors == len(net.state_dict())


@pytest.mark.parametrize("name", ["hornet_7x7", "hornet_gf"])
@pytest.mark.parametrize("has_head", [True, False])
def test_openmmlabs_copies(name: str, has_head: bool, tmp_path: Path) -> None:
    net = filled(name) if has_head else filled(name, num_classes=0)
    published = net.published_state_dict()
    path = write(tmp_path / "copy.pth", openmmlab(published))
    loaded = zoo.load_model(str(path))
    assert loaded.layout == "openmmlab" and identical(loaded.model.published_state_dict(), published)
    assert loaded.model.num_classes == (10 if has_head else 0)
    new = zoo.load_model(str(path), num_classes=4)
    assert new.model.num_classes == 4 and new.model.head.weight.isfinite().all()
    assert any("classifier of 4 classes is new" in note for note in new.notes)
    if not has_head:
        description = zoo.describe(path)
        assert description.num_classes == 0 and description.layout == "openmmlab"


@pytest.mark.parametrize("wrapper", ["model_ema", "state_dict_ema"])
def test_the_moving_average_on_request(wrapper: str, tmp_path: Path) -> None:
    published = filled("hornet_7x7").published_state_dict()
    path = write(tmp_path / "training.pth", {"model": published, wrapper: noise(published), "epoch": 9})
    loaded = zoo.load_model(str(path))
    assert identical(loaded.model.published_state_dict(), published)
    average = zoo.load_model(str(path), ema=True)
    assert average.layout == wrapper and identical(average.model.published_state_dict(), noise(published))
    description = zoo.describe(path)
    assert description.has_ema and description.extra == {"epoch": 9}
    with pytest.raises(OvertoneError, match="no moving average"):
        zoo.load_model(str(write(tmp_path / "bare.pth", published)), ema=True)


def test_training_arguments_of_hornet(tmp_path: Path) -> None:
    published = filled("hornet_gf").published_state_dict()
    values = {"model": published, "args": argparse.Namespace(model="hornet_tiny_gf", lr=4e-3), "epoch": 3}
    loaded = zoo.load_model(str(write(tmp_path / "training.pth", values, legacy=True)))
    assert identical(loaded.model.published_state_dict(), published)


@pytest.mark.parametrize(
    ("name", "legacy"), [("mobilenetv2_w010", True), ("hbonet_w010", False), ("harm_wrn16_4", True)]
)
def test_golden_outputs_by_name_by_path_and_by_inference(name: str, legacy: bool, tmp_path: Path) -> None:
    record = read_record(name)
    path = write(tmp_path / "golden.pth", {"model": published_state(record)}, legacy)
    loaded = [zoo.load_model(str(path))]
    loaded.append(zoo.load_model(str(path), architecture=loaded[0].architecture))
    for result in loaded:
        model = result.model.double()
        model.load_state_dict(zoo.read_state_dict(path))  # the file is in float64, the network was not
        for size, expected in record.logits.items():
            height, width = map(int, size.split("x")) if "x" in size else (int(size), int(size))
            with torch.inference_mode():
                logits = model(torch.from_numpy(image_batch(name, 1, height, width)))[0].numpy()
            assert np.abs(logits - expected).max() <= 1e-9 * np.abs(expected).max()


def test_a_description_says_what_a_file_is(tmp_path: Path) -> None:
    published = filled("harm_resnet").published_state_dict()
    _, wrap = LAYOUTS["mobile and harmonic training"]
    description = zoo.describe(write(tmp_path / "checkpoint.pth.tar", wrap(published), legacy=True))
    assert (description.format, description.layout) == ("torch legacy", "state_dict+module")
    assert (description.architecture, description.num_classes, description.in_chans) == ("harm_resnet18", 7, 3)
    assert description.num_tensors == len(published)
    assert description.num_parameters == sum(value.numel() for value in published.values())
    counters = sum(key.endswith("num_batches_tracked") for key in published)
    assert description.dtypes == {"float32": len(published) - counters, "int64": counters}
    assert description.extra["epoch"] == 42 and description.extra["arch"] == "net"
    assert description.published is None and "pool" in description.notes[0]


def test_files_of_other_nets_and_without_tensors(tmp_path: Path) -> None:
    other = write(tmp_path / "other.pth", {"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)})
    assert zoo.describe(other).architecture is None
    with pytest.raises(OvertoneError, match=r"no network that is known here .*fc\.weight"):
        zoo.load_model(str(other))
    with pytest.raises(OvertoneError, match="holds no tensors by name but epoch, lr"):
        zoo.load_model(str(write(tmp_path / "none.pth", {"epoch": 1, "lr": 0.1})))
    with pytest.raises(OvertoneError, match="holds a list"):
        zoo.load_model(str(write(tmp_path / "list.pth", [torch.ones(2)])))
