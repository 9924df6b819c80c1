"""Files that nobody vouches for: what a manifest may choose, what it may look like, weights that are not finite."""

import dataclasses
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_nets import filled, write
from torch import nn

from overtone import checkpoint, zoo
from overtone.checkpoint import DamagedCheckpoint, Manifest, read_manifest, verify_checkpoint, write_checkpoint
from overtone.config import Data, Model, Preprocess, Recipe, to_dict
from overtone.errors import OvertoneError
from overtone.recipes import load_recipe
from overtone.tasks import task_named

LABELS = tuple("abcdefg")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Nothing here may open a connection."""
    asked: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield asked
    assert not asked


def checkpoint_of(path: Path, architecture: str = "harm_wrn16_4", **changes: Any) -> Path:
    model = filled("harm_wrn", num_classes=len(LABELS))
    args = {"depth": 10, "width": 1, "level": 3}
    manifest = Manifest(architecture, LABELS, Preprocess(), args)
    write_checkpoint(path, dataclasses.replace(manifest, **changes), model.state_dict())
    return path


def one_line(caught: pytest.ExceptionInfo[OvertoneError], *named: str) -> None:
    message = str(caught.value)
    assert "\n" not in message and len(message) < 2000
    assert all(name in message for name in named), message


@pytest.mark.parametrize(
    ("architecture", "args"),
    [
        ("resnet18", {"checkpoint_path": "EVIL"}),
        ("resnet18", {"pretrained": True}),
        ("resnet18", {"pretrained_cfg": {"url": "http://127.0.0.1:9/evil.pth"}, "pretrained": True}),
        ("hbonet_x100", {"pretrained_cfg_overlay": {"file": "EVIL"}}),
        ("hbonet_x100", {"width_mult": 1e9}),
        ("harm_wrn16_4", {"depth": 10, "width": 10**6}),
        ("resnet18", {"base_width": 10**9}),
    ],
)
def test_a_manifest_cannot_choose_what_is_fetched_or_how_much_memory(
    tmp_path: Path, architecture: str, args: dict[str, Any]
) -> None:
    evil = tmp_path / "evil.pth"
    torch.save({"state_dict": {}}, evil)
    args = json.loads(json.dumps(args).replace("EVIL", str(evil)))
    path = checkpoint_of(tmp_path / "net.safetensors", architecture, model_args=args)
    recipe = dataclasses.replace(load_recipe("finetune"), model=Model(weights=str(path)))
    for attempt in (lambda: zoo.load_model(str(path)), lambda: zoo.fitted_to_weights(recipe)):
        with pytest.raises(OvertoneError) as caught:
            attempt()
        one_line(caught, str(path), next(iter(args)) if "depth" not in args else "width")


@pytest.mark.parametrize("architecture", ["hf-hub:evil/net", "local-dir:/tmp/net", "../net", "no_such_net", ""])
def test_a_manifest_names_a_known_architecture(tmp_path: Path, architecture: str) -> None:
    path = checkpoint_of(tmp_path / "net.safetensors", architecture, model_args={})
    with pytest.raises(OvertoneError, match="is neither a model") as caught:
        zoo.load_model(str(path))
    one_line(caught)


def test_arguments_within_their_ranges_but_far_beyond_the_file(tmp_path: Path) -> None:
    """Each range is kept to; together they would take gigabytes."""
    path = checkpoint_of(tmp_path / "net.safetensors", model_args={"depth": 100, "width": 20})
    with pytest.raises(OvertoneError, match="asks for a network of") as caught:
        zoo.load_model(str(path))
    one_line(caught, str(path))
    path = checkpoint_of(tmp_path / "vit.safetensors", "vit_tiny_patch16_224", model_args={"embed_dim": 8160})
    with pytest.raises(OvertoneError, match="asks for a network of"):
        zoo.load_model(str(path))


def test_the_recipe_of_a_run_passes_the_same_gate() -> None:
    for args in ({"checkpoint_path": "evil.pth"}, {"width_mult": 1e9}, {"num_classes": 7}, [1]):
        with pytest.raises(OvertoneError, match=r"--model\.args"):
            zoo.build_for_training(task_named("classification"), Model(name="hbonet_x010", args=args), "abc")


@pytest.mark.parametrize("where", ["model_args", "pretrained_cfg"])
def test_a_hub_repository_passes_the_same_gate(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg: dict[str, Any] = {"num_classes": 10, "url": "http://127.0.0.1:9/evil.pth", "file": "evil.pth"}
    args: dict[str, Any] = {}
    net = timm.create_model("test_resnet", num_classes=10)
    monkeypatch.setattr("overtone.zoo.hub.load_model_config_from_hf", lambda name: (cfg, "test_resnet", args))
    monkeypatch.setattr("overtone.zoo.hub.load_state_dict_from_hf", lambda name, weights_only: net.state_dict())
    loaded = zoo.load_model("hf-hub:somebody/tiny")
    assert loaded.model.num_classes == 10 and loaded.model.pretrained_cfg.get("file") != "evil.pth"
    assert loaded.model.pretrained_cfg.get("url") != cfg["url"]
    if where == "model_args":
        args["checkpoint_path"] = "evil.pth"
    else:
        cfg["num_classes"] = 10**9
    with pytest.raises(OvertoneError, match=r"checkpoint_path|num_classes") as caught:
        zoo.load_model("hf-hub:somebody/tiny")
    one_line(caught, "hf-hub:somebody/tiny")


# Manifests of another shape


def with_manifest(path: Path, text: str) -> Path:
    tensors = {"weight": torch.zeros(2)}
    metadata = {"overtone": text, "overtone.sha256": checkpoint._sha256(text, tensors)}
    save_file(tensors, path, metadata=metadata)
    return path


GOOD = to_dict(Manifest("hbonet_x010", ("a", "b"), Preprocess(), recipe=to_dict(Recipe(data=Data(root=Path("x"))))))


@pytest.mark.parametrize(
    "change",
    [
        {"model_args": [1, 2]},
        {"model_args": "width_mult"},
        {"model_args": None},
        {"recipe": 5},
        {"recipe": GOOD["recipe"] | {"data": 5}},
        {"recipe": GOOD["recipe"] | {"model": [1]}},
        {"labels": 5},
        {"labels": "ab"},
        {"labels": [1, 2]},
        {"architecture": {"a": 1}},
        {"preprocess": 5},
        {"preprocess": {"size": "large"}},
        {"preprocess": {"mean": [1, 2]}},
        {"preprocess": {"mean": 5}},
        {"metrics": [1]},
        {"settings": 3},
        {"split": "seeded"},
        {"format": "2"},
        {"format": None},
        {"what": "is this"},
    ],
    ids=lambda change: str(change)[:60],
)
def test_a_manifest_of_the_wrong_kind_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    path = with_manifest(tmp_path / "net.safetensors", json.dumps(GOOD | change))
    for attempt in (lambda: read_manifest(path), lambda: zoo.load_model(str(path)), lambda: zoo.describe(path)):
        with pytest.raises(DamagedCheckpoint) as caught:
            attempt()
        one_line(caught, str(path))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "[" * 5000 + "]" * 5000,
        json.dumps(GOOD | {"metrics": json.loads("[" * 900 + "]" * 900)}),
        json.dumps(GOOD)[:-1] + ', "metrics": ' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}",
        "5",
        "null",
        "{",
    ],
    ids=["open", "deep", "deep within", "deep mapping", "number", "null", "cut"],
)
def test_nested_and_broken_json(tmp_path: Path, text: str) -> None:
    path = with_manifest(tmp_path / "net.safetensors", text)
    for attempt in (lambda: read_manifest(path), lambda: zoo.load_model(str(path))):
        with pytest.raises(DamagedCheckpoint) as caught:
            attempt()
        one_line(caught, str(path))


def test_format_1_still_loads(tmp_path: Path) -> None:
    values = {key: value for key, value in GOOD.items() if key not in ("labels", "task", "head", "settings", "split")}
    values = {key: value for key, value in values.items() if key != "published"} | {"format": 1, "classes": ["a", "b"]}
    manifest = read_manifest(with_manifest(tmp_path / "net.safetensors", json.dumps(values)))
    assert manifest.labels == ("a", "b") and manifest.task == "classification" and manifest.published is None


# Damage and weights that are not finite


def test_a_damaged_file_is_found_without_using_it(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path / "best.safetensors")
    assert verify_checkpoint(path).labels == LABELS
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match=r"best\.safetensors is damaged"):
        verify_checkpoint(path)
    with pytest.raises(OvertoneError, match="none"):
        verify_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float, suffix: str) -> None:
    net = filled("mobilenetv2")
    with torch.no_grad():
        net.classifier.bias[3] = value
    path = write(tmp_path / f"net{suffix}", net.published_state_dict())
    attempts = [lambda: zoo.load_model(str(path)), lambda: zoo.load_weights(filled("mobilenetv2"), str(path))]
    for attempt in attempts:
        with pytest.raises(OvertoneError, match="NaN or infinite") as caught:
            attempt()
        one_line(caught, str(path), "classifier.bias")
    loaded = zoo.load_model(str(path), allow_nonfinite=True)
    assert not loaded.model.classifier.bias.isfinite().all()
    assert any("classifier.bias" in note for note in loaded.notes)


def test_large_and_whole_numbers_are_finite() -> None:
    state = {"large": torch.full((10,), 3e38), "count": torch.tensor(3), "half": torch.full((9,), 6e4).half()}
    assert zoo.nonfinite(state) == []
    assert zoo.nonfinite(state | {"x": torch.tensor([1.0, float("nan")])}) == ["x"]


def test_path_and_tag_say_where_weights_are_from(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path / "net.safetensors")
    loaded = zoo.load_model(str(path))
    assert loaded.path == path and loaded.tag is None and loaded.task == "classification"
    bare = write(tmp_path / "bare.pth", filled("mobilenetv2").published_state_dict())
    assert zoo.load_model(str(bare)).path == bare
    random = zoo.load_model("mobilenetv2_x010")
    assert random.path is None and random.tag is None and not random.trained
    assert isinstance(random.model, nn.Module)


def test_a_task_that_is_unknown_here_is_named(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path / "net.safetensors", task="levitation")
    with pytest.raises(OvertoneError, match="levitation"):
        zoo.load_model(str(path))


def test_a_task_builds_what_its_checkpoint_holds(tmp_path: Path) -> None:
    path = checkpoint_of(tmp_path / "net.safetensors", task="multilabel")
    loaded = zoo.load_model(str(path))
    assert loaded.task == "multilabel" and loaded.labels == LABELS and loaded.model.num_classes == len(LABELS)
    with pytest.raises(OvertoneError, match="in_chans"):
        zoo.load_model(str(path), in_chans=1)
