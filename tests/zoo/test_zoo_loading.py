"""Weights into nets: strictly, or adapted to other classes, channels and filter sizes where that is asked for."""

import dataclasses
import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from small_nets import HORNET, filled, identical, openmmlab, write
from timm.models import adapt_input_conv
from torch import nn
from torch.nn import functional as F

import overtone
from overtone import zoo
from overtone.checkpoint import Manifest, write_checkpoint
from overtone.config import Model, Preprocess
from overtone.errors import OvertoneError
from overtone.layers.dct_conv import HarmConv2d
from overtone.models._families import head_rows_of
from overtone.published import PUBLISHED, Published, find
from overtone.tasks import task_named

# Strictness


def test_every_difference_is_named(tmp_path: Path) -> None:
    state = filled("mobilenetv2").published_state_dict()
    del state["features.3.conv.0.weight"], state["conv.1.running_var"]
    state |= {"extra.weight": torch.ones(1), "features.2.conv.1.weight": torch.ones(5)}
    state["features.1.conv.0.weight"] = state["features.1.conv.0.weight"].to(torch.int32)
    path = write(tmp_path / "net.pth", state)
    with pytest.raises(OvertoneError) as caught:
        zoo.load_model(str(path), architecture="mobilenetv2_x010")
    message = str(caught.value)
    assert message.startswith(f"{path} does not fit mobilenetv2_x010: ") and "\n" not in message
    assert "2 missing: conv.1.running_var, features.3.conv.0.weight" in message
    assert "1 unexpected: extra.weight" in message
    assert "features.2.conv.1.weight (5,) instead of (" in message
    assert "features.1.conv.0.weight as int32" in message
    loose = zoo.load_model(str(path), architecture="mobilenetv2_x010", strict=False)
    assert "extra.weight" in " ".join(loose.notes)
    assert torch.equal(loose.model.state_dict()["conv.0.weight"], state["conv.0.weight"])


def test_another_net_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pth", filled("hornet_7x7").published_state_dict())
    with pytest.raises(OvertoneError, match=r"does not fit hbonet_x010: \d+ missing: .* and \d+ more") as caught:
        zoo.load_model(str(path), architecture="hbonet_x010")
    assert len(str(caught.value)) < 2000


def test_files_without_counters_as_of_old_versions(tmp_path: Path) -> None:
    state = filled("hbonet").published_state_dict()
    path = write(tmp_path / "old.pth", {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")})
    loaded = zoo.load_model(str(path))
    assert identical(
        loaded.model.published_state_dict(), {k: v * 0 if k.endswith("tracked") else v for k, v in state.items()}
    )


def test_a_damaged_bank_of_dct_filters_is_found(tmp_path: Path) -> None:
    state = filled("harm_resnet").published_state_dict()
    state["layer1.0.harm1.dct"] = state["layer1.0.harm1.dct"] + 1e-3
    with pytest.raises(OvertoneError, match=r"layer1\.0\.harm1\.dct differs from the DCT formula"):
        zoo.load_model(str(write(tmp_path / "net.pth", state)))


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in filled("hornet_gf").published_state_dict().items()}
    loaded = zoo.load_model(str(write(tmp_path / "net.pth", state)))
    assert all(p.dtype == torch.float32 for p in loaded.model.parameters())
    assert torch.equal(loaded.model.head.weight, state["head.weight"].float())


# Other classes


@pytest.mark.parametrize("name", ["mobilenetv2", "harm_wrn", "hornet_7x7"])
def test_a_new_classifier_when_asked_for(name: str, tmp_path: Path) -> None:
    net = filled(name)
    path = write(tmp_path / "net.pth", net.published_state_dict())
    torch.manual_seed(0)
    loaded = zoo.load_model(str(path), num_classes=4)
    weight = loaded.model.get_classifier().weight
    assert weight.shape[0] == 4 and weight.isfinite().all() and 0 < weight.std() < 1
    assert not loaded.model.get_classifier().bias.any() or name == "harm_wrn"
    assert f"the classifier of 4 classes is new (the file has {net.num_classes})" in loaded.notes[-1]
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded.model.forward_features(images), net.forward_features(images))
    without = zoo.load_model(str(path), num_classes=0)
    assert without.model(images).shape == (1, net.head_hidden_size)
    same = zoo.load_model(str(path), num_classes=net.num_classes)
    assert identical(same.model.published_state_dict(), net.published_state_dict())


def test_a_file_of_other_classes_is_refused_without_asking(tmp_path: Path) -> None:
    model = filled("mobilenetv2", num_classes=5)
    path = write(tmp_path / "net.pth", filled("mobilenetv2").published_state_dict())
    with pytest.raises(OvertoneError, match=r"classifier\.weight .*give num_classes for a new classifier"):
        zoo.load_state(model, zoo.read_state_dict(path), str(path))
    before = model.classifier.weight.clone()
    notes = zoo.load_weights(model, str(path))  # as fine-tuning does
    assert torch.equal(model.classifier.weight, before) and "new" in notes[0]


def test_imagenet_22k_is_reduced_to_1k_by_the_published_list(tmp_path: Path) -> None:
    indices = json.loads(resources.files("overtone.models").joinpath("hornet_in22k_to_in1k.json").read_text())[
        "indices"
    ]
    assert len(set(indices)) == 1000 and indices[:5] == [209, 213, 245, 257, 261] and max(indices) < 10459
    net = filled("hornet_gf", num_classes=10459)
    path = write(tmp_path / "22k.pth", {"model": net.published_state_dict()})
    assert zoo.load_model(str(path)).model.num_classes == 10459
    reduced = zoo.load_model(str(path), num_classes=1000)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(reduced.model(images), net(images)[:, indices])
    assert "reduced to 1000" in reduced.notes[-1]
    other = zoo.load_model(str(path), num_classes=999)
    assert "is new" in other.notes[-1]


# Other filter sizes and channels


def test_global_filters_are_resized_with_aligned_corners(tmp_path: Path) -> None:
    small = filled("hornet_gf")
    path = write(tmp_path / "net.pth", {"model": small.published_state_dict()})
    large = overtone.create_model("hornet_tiny_gf", **(HORNET | {"filter_size": 128, "num_classes": 10}))
    zoo.load_weights(large, str(path))
    key = "stages.2.0.gnconv.dwconv.complex_weight"
    before, after = small.state_dict()[key], large.state_dict()[key]
    assert (before.shape[1:3], after.shape[1:3]) == ((4, 3), (8, 5))
    by_hand = F.interpolate(before.permute(0, 3, 1, 2), (8, 5), mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    torch.testing.assert_close(after, by_hand)
    assert torch.equal(after[:, 0, 0], before[:, 0, 0]) and torch.equal(after[:, -1, -1], before[:, -1, -1])
    images = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():  # the run-time resize of the small filters is the same
        torch.testing.assert_close(large.eval()(images), small(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenetv2", "hbonet", "hornet_7x7"])
@pytest.mark.parametrize("in_chans", [1, 2, 4, 6])
def test_other_channels_as_timm_adapts_them(name: str, in_chans: int, tmp_path: Path) -> None:
    net = filled(name)
    path = write(tmp_path / "net.pth", net.published_state_dict())
    loaded = zoo.load_model(str(path), in_chans=in_chans)
    first = next(iter(net.parameters()))
    expected = adapt_input_conv(in_chans, first.detach().clone())
    torch.testing.assert_close(next(iter(loaded.model.parameters())).detach(), expected)
    assert loaded.model_args["in_chans"] == in_chans
    assert f"the first layer takes {in_chans} channels, adapted from 3" in loaded.notes[0] + loaded.notes[-1]
    again = zoo.load_model(str(write(tmp_path / "again.pth", loaded.model.published_state_dict())))
    assert again.model.in_chans == in_chans  # and a file of these is recognised as such


def first_layer(model: nn.Module) -> HarmConv2d:
    return next(module for module in model.modules() if isinstance(module, HarmConv2d))


@pytest.mark.parametrize("keys", ["published", "ours"])
def test_one_channel_of_a_harmonic_layer_is_exact_for_grey(keys: str, tmp_path: Path) -> None:
    """The layer has a bias in VGG, so that the whole of the difference of the means has a place to go."""
    net = overtone.create_model("harm_vgg11_bn", num_classes=0, global_pool="").eval()
    layer = first_layer(net)
    assert layer.bn is not None
    with torch.no_grad():
        layer.bn.running_mean.copy_(torch.rand(27) - 0.5)
        layer.bn.running_var.copy_(torch.rand(27) + 0.5)
        layer.bias.copy_(torch.rand(64))
    state = net.published_state_dict() if keys == "published" else net.state_dict()
    loaded = zoo.load_model(str(write(tmp_path / "net.pth", dict(state))), in_chans=1)
    grey = torch.rand(2, 1, 12, 12)
    with torch.inference_mode():
        torch.testing.assert_close(
            first_layer(loaded.model)(grey), layer(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(("name", "in_chans"), [("harm_wrn", 1), ("harm_wrn", 2), ("harm_wrn", 5), ("harm_resnet", 1)])
def test_channels_of_a_harmonic_layer_are_channel_major(name: str, in_chans: int, tmp_path: Path) -> None:
    """With the same statistics in each channel the layer is an ordinary convolution, adapted as timm does."""
    net = filled(name)
    layer = first_layer(net)
    assert layer.bn is not None
    with torch.no_grad():
        for statistic in (layer.bn.running_mean, layer.bn.running_var):
            statistic.copy_(statistic[: layer.num_filters].repeat(3))
    loaded = zoo.load_model(str(write(tmp_path / "net.pth", net.published_state_dict())), in_chans=in_chans)
    adapted, plain = first_layer(loaded.model).folded(), layer.folded()
    expected = adapt_input_conv(in_chans, plain.weight.detach())
    torch.testing.assert_close(adapted.weight.detach(), expected, rtol=1e-4, atol=1e-5)
    if in_chans == 1:
        torch.testing.assert_close(adapted.bias, plain.bias, rtol=1e-4, atol=1e-5)


# Published rows by name: through our own fetch and verification


@pytest.fixture
def published_tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Published, Path]:
    """The smallest published net, whose "published" file is one of ours that lies in a folder of weights."""
    real = find("mobilenetv2_x010.dli14_in1k")
    assert real is not None and real.file is not None
    folder = tmp_path / "by hand"
    folder.mkdir()
    path = write(folder / real.file, filled("mobilenetv2").published_state_dict(), legacy=True)
    row = dataclasses.replace(real, git_blob_sha1=zoo.digests(path).git_blob_sha1, urls=("http://127.0.0.1:9/",))
    for module in ("resolver", "starting"):
        monkeypatch.setattr(f"overtone.zoo.{module}.find", lambda name: row if name == row.full_name else find(name))
    monkeypatch.setattr("overtone.zoo.proof.PUBLISHED", (row,))
    monkeypatch.setenv("OVERTONE_WEIGHTS_DIR", str(folder))
    return row, path


def test_a_published_tag_is_found_verified_and_loaded(published_tiny: tuple[Published, Path]) -> None:
    row, path = published_tiny
    wanted = filled("mobilenetv2").published_state_dict()
    loaded = zoo.load_model(row.full_name)
    assert loaded.published is row and loaded.proof is not None and loaded.proof.verified
    assert row.full_name in loaded.source and str(path) in loaded.source
    by_path = zoo.load_model(str(path))  # the bytes say which of the published files this is
    assert by_path.published is row and by_path.preprocess == loaded.preprocess
    for model in (
        loaded.model,
        by_path.model,
        timm.create_model(row.full_name, pretrained=True),
        timm.create_model("mobilenetv2_x010", pretrained=True),
        overtone.create_model("mobilenetv2_x010", pretrained=True),
        overtone.create_model(row.full_name, pretrained=True),
    ):
        assert identical(model.published_state_dict(), wanted)
    assert zoo.describe(path).published is row


def test_timms_arguments_with_published_weights(published_tiny: tuple[Published, Path]) -> None:
    row, _ = published_tiny
    wanted = filled("mobilenetv2")
    features = timm.create_model(row.full_name, pretrained=True, features_only=True, out_indices=(0, 1))
    assert torch.equal(features.model.features[0][0].weight, wanted.features[0][0].weight)
    other = timm.create_model(row.full_name, pretrained=True, num_classes=7, in_chans=1, drop_rate=0.2)
    assert other.num_classes == 7 and torch.equal(other.conv[0].weight, wanted.conv[0].weight)
    torch.testing.assert_close(other.features[0][0].weight, wanted.features[0][0].weight.sum(1, keepdim=True))
    trained = zoo.build_for_training(task_named("classification"), Model(name=row.full_name, freeze=True), "abc")
    assert trained.num_classes == 3 and torch.equal(trained.conv[0].weight, wanted.conv[0].weight)
    started = zoo.build_for_training(
        task_named("classification"), Model(name="mobilenetv2_x010", weights=row.full_name), "abc"
    )
    assert torch.equal(started.conv[0].weight, wanted.conv[0].weight)


def test_an_altered_published_file_is_never_loaded(published_tiny: tuple[Published, Path]) -> None:
    row, path = published_tiny
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for attempt in (
        lambda: zoo.load_model(row.full_name),
        lambda: timm.create_model(row.full_name, pretrained=True),
        lambda: overtone.create_model(row.full_name, pretrained=True),
    ):
        with pytest.raises(OvertoneError, match="not the file that was published"):
            attempt()


def test_headless_copies_of_published_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find("hornet_large_gf.rao_in22k")
    assert real is not None
    path = write(tmp_path / "copy.pth", openmmlab(filled("hornet_gf", num_classes=0).published_state_dict()))
    row = dataclasses.replace(real, architecture="hornet_tiny_gf", tag="rao_in1k")
    monkeypatch.setattr("overtone.zoo.resolver.identify", lambda _: row)
    monkeypatch.setattr(
        "overtone.zoo.filling.build", lambda name, **args: overtone.create_model(name, **(HORNET | args))
    )
    loaded = zoo.load_model(str(path))
    assert loaded.model.num_classes == 0 and "no classifier" in loaded.notes[0]
    assert zoo.load_model(str(path), num_classes=5).model.num_classes == 5


def test_a_headless_copy_does_not_pass_for_a_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What timm is asked for must not come with random outputs."""
    real = find("hornet_large_gf.rao_in22k")
    assert real is not None
    path = write(
        tmp_path / f"{real.full_name}.pth", openmmlab(filled("hornet_gf", num_classes=0).published_state_dict())
    )
    monkeypatch.setenv("OVERTONE_WEIGHTS_DIR", str(path.parent))
    with pytest.warns(zoo.UnverifiedWarning), pytest.raises(OvertoneError, match=r"missing: head\.bias, head\.weight"):
        timm.create_model(real.full_name, pretrained=True, **HORNET)
    other = timm.create_model(real.full_name, pretrained=True, **HORNET, num_classes=3)
    assert other.num_classes == 3


def test_the_published_head_of_22k_is_reduced_by_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As timm is asked for it: 1000 classes of the published 10,459 are those of ImageNet-1K, not new ones."""
    net, name = filled("hornet_gf", num_classes=10459), "hornet_large_gf.rao_in22k"
    write(tmp_path / f"{name}.pth", {"model": net.published_state_dict()})
    monkeypatch.setenv("OVERTONE_WEIGHTS_DIR", str(tmp_path))
    with pytest.warns(zoo.UnverifiedWarning):
        reduced = overtone.create_model(name, pretrained=True, num_classes=1000, **HORNET)
    rows = head_rows_of(10459, 1000)
    assert rows is not None and torch.equal(reduced.head.weight, net.head.weight[rows])


def test_a_reduced_checkpoint_keeps_the_names_of_its_classes(tmp_path: Path) -> None:
    net, path = filled("hornet_gf", num_classes=10459), tmp_path / "22k.safetensors"
    names = tuple(f"class {i}" for i in range(10459))
    write_checkpoint(path, Manifest("hornet_tiny_gf", names, Preprocess(), HORNET), net.state_dict())
    classes = zoo.load_model(str(path), num_classes=1000).labels
    assert classes is not None and len(classes) == 1000 and classes[:2] == ("class 209", "class 213")
    assert zoo.load_model(str(path), num_classes=7).labels is None
    with pytest.raises(OvertoneError, match=r"holds a hornet_tiny_gf, not a hornet_tiny_7x7"):
        zoo.load_model(str(path), architecture="hornet_tiny_7x7")


def test_converted_files_by_the_name_of_the_row(tmp_path: Path) -> None:
    net = filled("mobilenetv2")
    name = "mobilenetv2_x010.dli14_in1k"
    manifest = Manifest("mobilenetv2_x010", tuple(map(str, range(1000))), Preprocess())
    write_checkpoint(tmp_path / f"{name}.safetensors", manifest, net.state_dict())
    loaded = zoo.load_model(name, weights_dir=tmp_path)
    assert loaded.proof is not None and loaded.proof.kind == "converted" and loaded.published is find(name)
    assert identical(loaded.model.published_state_dict(), net.published_state_dict())
    write_checkpoint(tmp_path / "hbonet_x010.dli14_in1k.safetensors", manifest, net.state_dict())
    found = find("hbonet_x010.dli14_in1k")
    assert found is not None and zoo.find_published(found, tmp_path) is None  # the name of another net's


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports", ["import timm, overtone", "import overtone, timm", "from overtone.models import hbonet; import timm"]
)
def test_timm_asks_the_zoo_whichever_is_imported_first(imports: str, tmp_path: Path) -> None:
    code = f"{imports}\nimport sys\nassert 'overtone.zoo' not in sys.modules\n"
    code += "timm.create_model('mobilenetv2_x010', pretrained=True)\nassert 'overtone.zoo' in sys.modules"
    manifest = Manifest("mobilenetv2_x010", tuple(map(str, range(1000))), Preprocess())
    write_checkpoint(tmp_path / "mobilenetv2_x010.dli14_in1k.safetensors", manifest, filled("mobilenetv2").state_dict())
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"OVERTONE_WEIGHTS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr


def test_timm_lists_what_was_published_with_weights() -> None:
    listed = set(timm.list_models(pretrained=True))
    for row in PUBLISHED:
        assert (row.full_name in listed) == bool(row.urls), row.full_name
        cfg = timm.get_pretrained_cfg(row.full_name)
        assert cfg.input_size == (3, row.resolution, row.resolution) and cfg.num_classes == row.num_classes
        assert cfg.interpolation == row.interpolation and cfg.crop_pct == row.crop_fraction
        assert (cfg.crop_mode == "squash") == (row.resize == "squash")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hbonet_x100.nonsense", r"no weights called 'nonsense'; there are: hbonet_x100\.dli14_in1k"),
        ("harm_resnet50_avgpool.ulicny_in1k", "published without weights"),
        ("hbonet_x10", "did you mean"),
        ("nowhere/net.pth", "is not there"),
        ("net.safetensors", "is not there"),
    ],
)
def test_names_of_nothing(spec: str, message: str) -> None:
    with pytest.raises(OvertoneError, match=message) as caught:
        zoo.load_model(spec)
    assert "\n" not in str(caught.value)


def test_pretrained_without_published_weights() -> None:
    for name in ("harm_vgg11", "harm_resnet50_avgpool"):
        with pytest.raises(OvertoneError, match="published without weights"):
            overtone.create_model(name, pretrained=True)


# Run folders, and a flipped bit (row 12)


def run_folder(folder: Path, **more: Any) -> Path:
    net = filled("harm_wrn")
    args = {"depth": 10, "width": 1, "level": 3}
    for name, value in (("best", 0.0), ("last", 1.0)):
        with torch.no_grad():
            net.fc.bias.fill_(value)
        manifest = Manifest("harm_wrn16_4", tuple("abcdefghij"), Preprocess(size=32), args)
        write_checkpoint(folder / f"{name}.safetensors", manifest, net.state_dict())
    return folder


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)


def test_a_flipped_bit_is_found_and_the_last_checkpoint_used(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    assert not zoo.load_model(str(folder)).model.fc.bias.any()
    flip_a_bit(folder / zoo.BEST)
    with pytest.warns(UserWarning, match=r"best\.safetensors is damaged: .*last\.safetensors is used instead"):
        loaded = zoo.load_model(str(folder))
    assert loaded.model.fc.bias.all() and loaded.source.endswith(zoo.LAST)
    with pytest.warns(UserWarning, match="used instead"):
        zoo.load_weights(filled("harm_wrn"), str(folder))
    with pytest.raises(OvertoneError, match=r"best\.safetensors is damaged"):  # named, it is not replaced by another
        zoo.load_model(str(folder / zoo.BEST))
    flip_a_bit(folder / zoo.LAST)
    with pytest.raises(OvertoneError, match=r"last\.safetensors is damaged"):
        zoo.load_model(str(folder))


def test_a_run_with_other_classes_or_channels(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    loaded = zoo.load_model(str(folder), num_classes=3, in_chans=1)
    assert loaded.labels is None and loaded.model.num_classes == 3 and loaded.model.in_chans == 1
    assert loaded.preprocess == Preprocess(size=32)


# The Hugging Face Hub


def test_a_repository_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = filled("hornet_gf")
    cfg = {"num_classes": 10, "input_size": (3, 64, 64), "crop_pct": 0.9, "interpolation": "bicubic"}
    cfg |= {"label_names": list("abcdefghij"), "source": "hf-hub", "hf_hub_id": "somebody/tiny", "classifier": "head"}
    asked = []

    def config_of(name: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
        asked.append(name)
        return dict(cfg), "hornet_tiny_gf", dict(HORNET)

    monkeypatch.setattr("overtone.zoo.hub.load_model_config_from_hf", config_of)
    monkeypatch.setattr("overtone.zoo.hub.load_state_dict_from_hf", lambda name, weights_only: net.state_dict())
    loaded = zoo.load_model("hf-hub:somebody/tiny")
    assert asked == ["somebody/tiny"] and loaded.architecture == "hornet_tiny_gf"
    assert loaded.labels == tuple("abcdefghij") and loaded.preprocess.crop_fraction == 0.9
    assert identical(loaded.model.published_state_dict(), net.published_state_dict())
    other = zoo.load_model("hf-hub:somebody/tiny", num_classes=4, in_chans=1)
    assert other.model.num_classes == 4 and other.model.in_chans == 1 and other.labels is None


def test_the_hub_out_of_reach_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("We couldn't connect.\nCheck your connection.")

    monkeypatch.setattr("overtone.zoo.hub.load_model_config_from_hf", fail)
    with pytest.raises(OvertoneError, match=r"hf-hub:somebody/tiny could not be fetched .* couldn't connect") as caught:
        zoo.load_model("hf-hub:somebody/tiny")
    assert "\n" not in str(caught.value)


def test_nets_of_timm_are_loaded_from_files_too(tmp_path: Path) -> None:
    net = timm.create_model("test_resnet", num_classes=5)
    path = write(tmp_path / "net.pth", {"state_dict": net.state_dict()})
    loaded = zoo.load_model(str(path), architecture="test_resnet", num_classes=5)
    assert identical(dict(loaded.model.state_dict()), dict(net.state_dict()))
    new = zoo.load_model(str(path), architecture="test_resnet", num_classes=2, in_chans=1)
    assert new.model.num_classes == 2
