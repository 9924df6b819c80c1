"""HorNet's variants and arguments, its checkpoints' keys and shapes, the classes of ImageNet-22K, its groups."""

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from torch import Tensor, nn

from overtone.layers.circular_conv import resize_complex_weight
from overtone.models._cfg import Inferred, common_args, unwrap_state_dict
from overtone.models.arguments import Rule, choice, either, number, several, whole

# What a file, a recipe or the command line may choose.
ARGUMENTS: dict[str, Rule] = {
    "depths": several(whole(1, 36), 1, 4),
    "base_dim": whole(4, 256),
    "orders": several(whole(1, 8), 1, 4),
    "spatial_filter": choice("7x7", "gf"),
    "filter_size": either(whole(32, 2048), several(whole(32, 2048), 2, 2)),
    "scale": number(0, 10),
    "layer_scale_init": number(0, 10),
    "head_init_scale": number(0, 100),
    "global_pool": choice("avg", "max", "avgmax", ""),
}

# What each registered architecture is built with.
VARIANTS: dict[str, dict[str, Any]] = {
    f"hornet_{size}_{kind}{resolution}": {"base_dim": dim} | more
    for size, dim in (("tiny", 64), ("small", 96), ("base", 128), ("large", 192))
    for kind, resolution, more in (
        ("7x7", "", {}),
        ("gf", "", {"spatial_filter": "gf", "filter_size": 224}),
        ("gf", "_img384", {"spatial_filter": "gf", "filter_size": 384}),
    )
}


_DENSE_PARTS = ("decode_head.", "auxiliary_head.", "neck.", "rpn_head.", "roi_head.")


def foreign_layout(entries: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """OpenMMLab's copy of a HorNet under the published keys, and the name of its layout; None for anything else."""
    is_dense = any(key.startswith(_DENSE_PARTS) for key in entries)
    if "backbone.downsample_layers.0.0.weight" not in entries or is_dense:
        return None  # another network, or one for detection or segmentation, whose keys are ours
    known = {key: value for key, value in entries.items() if key.startswith(("backbone.", "head."))}
    return "openmmlab", {_published_key(key): value for key, value in known.items()}


def _published_key(key: str) -> str:
    if key.startswith("backbone."):
        key = re.sub(r"^norm3\.", "norm.", key.removeprefix("backbone."))
        key = key.replace(".gnconv.projs.", ".gnconv.pws.")
        return re.sub(r"\.(gamma[12])\.weight$", r".\1", key)
    return re.sub(r"^head\.fc\.", "head.", key)


def head_rows(num_from: int, num_to: int) -> list[int] | None:
    """Which outputs of an ImageNet-22K classifier are the ImageNet-1K classes, in their order; None: no such pair."""
    if (num_from, num_to) != (10459, 1000):
        return None
    return json.loads(resources.files("overtone.models").joinpath("hornet_in22k_to_in1k.json").read_text("utf-8"))[
        "indices"
    ]


def infer_arguments(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The arguments of `HorNet` that give a state dict of these shapes; None where it is another net."""
    stem = shapes.get("downsample_layers.0.0.weight", ())
    if len(stem) != 4 or "stages.0.0.gnconv.proj_in.weight" not in shapes:
        return None
    blocks = {tuple(key.split(".")[1:3]) for key in shapes if key.startswith("stages.")}
    num_stages = 1 + max(int(stage) for stage, _ in blocks)
    first = [f"stages.{stage}.0." for stage in range(num_stages)]
    inferred: dict[str, Any] = {
        "base_dim": stem[0],
        "depths": tuple(sum(stage == str(number) for stage, _ in blocks) for number in range(num_stages)),
        "orders": tuple(1 + sum(f"{prefix}gnconv.pws.{i}.weight" in shapes for i in range(16)) for prefix in first),
        "spatial_filter": "7x7",
    }
    spectrum = shapes.get(f"stages.{num_stages - 2}.0.gnconv.dwconv.complex_weight")
    if spectrum is not None:
        stride, (height, half_width) = 4 * 2 ** (num_stages - 2), spectrum[1:3]
        width = height if height // 2 + 1 == half_width else 2 * (half_width - 1)
        size = (stride * height, stride * width)
        inferred |= {"spatial_filter": "gf", "filter_size": size[0] if size[0] == size[1] else size}
    if "stages.0.0.gamma1" not in shapes:
        inferred["layer_scale_init"] = 0.0
    return inferred


def layer_decay_group(name: str) -> int:
    """The published learning-rate-decay group of a parameter, 0 (stem) to 13 (final norm and head)."""
    match = re.match(r"(downsample_layers|stages)\.(\d)\.(\d+)\.", name)
    if match is None:
        return 13
    kind, stage, index = match[1], int(match[2]), int(match[3])
    if kind == "stages" and stage == 2:
        return min(3 + index // 2, 11)
    return {"downsample_layers": (0, 2, 3, 12), "stages": (1, 2, 3, 12)}[kind][stage]


def stage_group(name: str) -> int:
    """Stem 0, the stages with what leads to them 1 to 4, final norm and head 5."""
    match = re.match(r"(downsample_layers|stages)\.(\d)\.", name)
    if match is None:
        return 5
    return 0 if match[0] == "downsample_layers.0." else int(match[2]) + 1


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """A published file as the state dict of `model`.

    Takes off the wrappers, gives OpenMMLab's keys their published names, and resizes global filters to the size that
    `model` stores (as the run-time resize does), for fine-tuning at another resolution.
    """
    state = unwrap_state_dict(state_dict)
    foreign = foreign_layout(state)
    state, own = (state if foreign is None else foreign[1]), model.state_dict()
    for key, value in state.items():
        if key.endswith(".complex_weight") and key in own and value.shape != own[key].shape:
            state[key] = resize_complex_weight(value.float(), *own[key].shape[1:3])
    return state


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Inferred | None:
    """The HorNet that a state dict of these shapes belongs to; None where it is another net."""
    inferred = infer_arguments(shapes)
    if inferred is None:
        return None
    common = common_args(shapes, "head", shapes["downsample_layers.0.0.weight"][1])
    for name, variant in VARIANTS.items():
        if {"depths": (2, 3, 18, 2), "orders": (2, 3, 4, 5), "spatial_filter": "7x7"} | variant == inferred:
            return Inferred(name, common)
    return Inferred("hornet_tiny_7x7", inferred | common)
