"""A new family is one file and one published row: `toynet.py` beside this file, and `ROW`."""

import dataclasses
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import _registry as timms_registry
from torch import Tensor

import overtone
from overtone import published, zoo
from overtone.checkpoint import Manifest, write_checkpoint
from overtone.config import Model, Preprocess
from overtone.errors import OvertoneError
from overtone.models import _families, families, family_of, is_ours, list_architectures
from overtone.models.multiply_adds import count_multiply_adds
from overtone.published import PUBLISHED, Published
from overtone.recipes import load_recipe
from overtone.tasks import task_named

ROW = dataclasses.replace(
    PUBLISHED[0],
    family="toy",
    architecture="toynet_small",
    tag="somebody_in1k",
    build={"width": 4},
    resolution=32,
    file="toynet.pth",
    urls=("http://127.0.0.1:9/toynet.pth",),
    git_blob_sha1=None,
    sha256=None,
    sha256_prefix=None,
    params_m=(4 * 27 + 4 + 8 * 36 + 8 + 1000 * 8 + 1000) / 1e6,
    macs_m=(4 * 27 * 16**2 + 8 * 36 * 8**2 + 8000) / 1e6,
)


@pytest.fixture
def toynet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """The family, known for one test only."""
    tables = {name: value for name, value in vars(timms_registry).items() if isinstance(value, (dict, set))}
    before = {name: value.copy() for name, value in tables.items()}
    known = {"_module_to_models": {key: value.copy() for key, value in before["_module_to_models"].items()}}
    monkeypatch.setattr(_families, "_FAMILIES", dict(_families._FAMILIES))
    publish(monkeypatch, ROW)
    monkeypatch.setenv("OVERTONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OVERTONE_WEIGHTS_DIR", raising=False)
    spec = importlib.util.spec_from_file_location("toynet", Path(__file__).with_name("toynet.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "toynet", module)
    spec.loader.exec_module(module)
    yield module
    for name, table in tables.items():
        table.clear()
        table.update(known.get(name, before[name]))


def publish(monkeypatch: pytest.MonkeyPatch, row: Published) -> None:
    rows = (*PUBLISHED, row)
    monkeypatch.setattr(published, "PUBLISHED", rows)
    monkeypatch.setattr(published, "_BY_NAME", {each.full_name: each for each in rows})
    monkeypatch.setattr("overtone.zoo.proof.PUBLISHED", rows)


def a_state(seed: int = 0, **arguments: int) -> dict[str, Tensor]:
    """The published state dict of a small ToyNet with numbers of its own."""
    torch.manual_seed(seed)
    return overtone.create_model("toynet_small", **arguments).published_state_dict()


def test_it_is_listed_and_built(toynet: ModuleType) -> None:
    assert toynet in families() and family_of("toynet_large") is toynet and is_ours("toynet_small.somebody_in1k")
    assert {"toynet_small", "toynet_large"} <= set(list_architectures())
    assert {"toynet_small", "toynet_large"} == set(overtone.list_models("toynet*"))
    net = timm.create_model("toynet_large", num_classes=3)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(OvertoneError, match=r"toynet_small\.somebody_in1k"):
        overtone.create_model("toynet_small.nobody", pretrained=True)


def test_its_row_is_reproduced(toynet: ModuleType) -> None:
    net = overtone.create_model("toynet_small.somebody_in1k")
    assert sum(parameter.numel() for parameter in net.parameters()) == round(ROW.params_m * 1e6)
    assert count_multiply_adds(net, (3, ROW.resolution, ROW.resolution)) == round(ROW.macs_m * 1e6)
    assert zoo.preprocess_of(net).size == 32


@pytest.mark.parametrize("layout", ["published", "wrapped", "shouted", "safetensors"])
def test_a_bare_file_is_inferred_and_loaded_strictly(toynet: ModuleType, tmp_path: Path, layout: str) -> None:
    state = a_state(num_classes=7, width=5)
    path = tmp_path / "net.pth"
    if layout == "safetensors":
        path = tmp_path / "net.safetensors"
        save_file(state, path)
    else:
        wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
        shouted = {key.replace("/", ".").upper(): value for key, value in state.items()}
        torch.save({"published": state, "wrapped": wrapped, "shouted": shouted}[layout], path)
    found = zoo.describe(path)
    assert (found.architecture, found.model_args, found.num_classes) == ("toynet_small", {"width": 5}, 7)
    loaded = zoo.load_model(str(path))
    for key, value in loaded.model.published_state_dict().items():
        assert torch.equal(value, state[key])
    del state["toy/body.bias"]
    torch.save(state, path := tmp_path / "cut.pth")
    with pytest.raises(OvertoneError, match=r"missing: body\.bias|missing: toy/body\.bias"):
        zoo.load_model(str(path))


def test_its_published_file_is_verified_and_loaded_by_every_name(
    toynet: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save(state := a_state(), path := folder / "toynet.pth")
    publish(monkeypatch, dataclasses.replace(ROW, git_blob_sha1=zoo.digests(path).git_blob_sha1))
    monkeypatch.setenv("OVERTONE_WEIGHTS_DIR", str(folder))
    loaded = zoo.load_model(ROW.full_name)
    assert loaded.tag == "somebody_in1k" and loaded.path == path and loaded.proof is not None and loaded.proof.verified
    by_path = zoo.load_model(str(path))
    assert by_path.published is not None and by_path.published.full_name == ROW.full_name
    for net in (loaded.model, by_path.model, timm.create_model("toynet_small", pretrained=True)):
        assert all(torch.equal(value, state[key]) for key, value in net.published_state_dict().items())


def test_a_checkpoint_of_it_goes_round_within_its_own_limits(toynet: ModuleType, tmp_path: Path) -> None:
    net = overtone.create_model("toynet_small", width=6, num_classes=2)
    manifest = Manifest("toynet_small", ("a", "b"), Preprocess(size=32), {"width": 6})
    write_checkpoint(path := tmp_path / "net.safetensors", manifest, net.state_dict())
    loaded = zoo.load_model(str(path))
    assert loaded.labels == ("a", "b") and torch.equal(loaded.model.stem.weight, net.stem.weight)
    gray = zoo.load_model(str(path), in_chans=1)
    torch.testing.assert_close(gray.model.stem.weight, net.stem.weight.sum(1, keepdim=True))
    recipe = dataclasses.replace(load_recipe("finetune"), model=Model(weights=str(path)))
    started = zoo.build_for_training(task_named("classification"), zoo.fitted_to_weights(recipe).model, "xyz")
    assert started.num_classes == 3 and torch.equal(started.body.weight, net.body.weight)
    write_checkpoint(path, dataclasses.replace(manifest, model_args={"width": 10**9}), net.state_dict())
    with pytest.raises(
        OvertoneError, match="width of toynet_small is 1000000000; it must be a whole number from 1 to 64"
    ):
        zoo.load_model(str(path))


def test_nothing_of_it_stays() -> None:
    assert not timm.is_model("toynet_small") and "toynet" not in sys.modules
    assert not any("toynet" in module.__name__ for module in families())
