"""Files of the published layout: recognised by keys and shapes, loaded strictly, written."""

from pathlib import Path

import pytest
import torch

from overtone.errors import OvertoneError
from overtone.heads import PUBLISHED_SEGMENTERS, Segmenter, build_segmenter, create_segmenter
from overtone.heads.segmentation_files import (
    infer_segmenter,
    load_published_segmenter,
    published_checkpoint,
    segmentation_state,
)
from overtone.models import list_architectures

# Parameters of the published networks, by the original classes; those of the last two by the HorFPN configurations.
PARAMETERS = {
    "upernet_hornet_tiny_7x7": 52_205_036,
    "upernet_gn7x7_hornet_small_7x7": 74_275_404,
    "upernet_gngf_hornet_small_7x7": 74_661_324,
}


def on_meta(name: str, **arguments: object) -> Segmenter:
    with torch.device("meta"):
        return create_segmenter(name, **arguments)  # type: ignore[arg-type]


def shapes_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", [*PUBLISHED_SEGMENTERS, "upernet_gngf_hornet_base_gf"])
def test_published_networks_are_recognised(name: str) -> None:
    model = on_meta(name)
    found = infer_segmenter(shapes_of(model))
    assert found is not None
    assert found.name == name
    assert found.num_classes == 150 and found.auxiliary
    with torch.device("meta"):
        assert shapes_of(build_segmenter(**found.arguments)) == shapes_of(model)
    if name in PARAMETERS:
        assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_what_differs_from_the_published_is_recognised() -> None:
    arguments = {"backbone_args": {"filter_size": (256, 512), "in_chans": 4}, "head_args": {"channels": 64}}
    model = on_meta("upernet_gn7x7_hornet_tiny_gf", num_classes=11, auxiliary=False, **arguments)
    found = infer_segmenter(shapes_of(model))
    assert found is not None
    assert found.name is None and found.num_classes == 11 and not found.auxiliary
    with torch.device("meta"):
        assert shapes_of(build_segmenter(**found.arguments)) == shapes_of(model)


def test_other_networks_are_not_taken_for_one() -> None:
    with torch.device("meta"):
        for name in ("fcn_hornet_tiny_7x7", "upernet_mobilenetv2_x010"):
            assert infer_segmenter(shapes_of(create_segmenter(name))) is None
    assert "hornet_tiny_7x7" in list_architectures()
    shapes = shapes_of(on_meta("upernet_hornet_tiny_7x7"))
    assert infer_segmenter({key: shape for key, shape in shapes.items() if key.startswith("backbone.")}) is None
    assert infer_segmenter(shapes | {"backbone.downsample_layers.0.0.weight": (64,)}) is None
    assert infer_segmenter(shapes | {"decode_head.conv_seg.weight": ()}) is None


def small() -> Segmenter:
    return build_segmenter("hornet_tiny_7x7", "upernet", 5, {"depths": (1, 1, 1, 1), "base_dim": 16}, {"channels": 8})


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_file_goes_there_and_back(tmp_path: Path, prefix: str, wrapped: bool) -> None:
    model, path = small(), tmp_path / "net.pth"
    written = published_checkpoint(model, {"CLASSES": ("a", "b"), "PALETTE": [[0, 0, 0]]})
    assert written["meta"]["CLASSES"] == ("a", "b")
    state = {f"{prefix}{key}": value for key, value in written["state_dict"].items()}
    torch.save({"meta": written["meta"], "state_dict": state} if wrapped else state, path)
    values = torch.load(path, weights_only=True)
    found = infer_segmenter({key: tuple(value.shape) for key, value in segmentation_state(values).items()})
    assert found is not None
    other = build_segmenter(**found.arguments)
    load_published_segmenter(other, values)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_loading_is_strict(change: str) -> None:
    model = small()
    state = dict(model.state_dict())
    key = "decode_head.conv_seg.bias"
    if change == "missing":
        del state[key]
    else:
        state[f"{key}2" if change == "unknown" else key] = torch.zeros(6)
    with pytest.raises(OvertoneError, match=key):
        load_published_segmenter(model, {"state_dict": state})


def test_what_holds_no_tensors_is_refused() -> None:
    with pytest.raises(OvertoneError, match="meta"):
        segmentation_state({"meta": {"epoch": 3}})


def test_other_networks_have_no_published_layout() -> None:
    with pytest.raises(OvertoneError, match=r"upernet_hornet.*FCN"):
        published_checkpoint(build_segmenter("hbonet_x010", "fcn", 2))
