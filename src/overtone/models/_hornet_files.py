"""What HorNet checkpoints look like: OpenMMLab's keys, the shapes of each variant, the classes of ImageNet-22K."""

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any


def foreign_layout(entries: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """OpenMMLab's copy of a HorNet under the published keys, and the name of its layout; None for anything else."""
    if "backbone.downsample_layers.0.0.weight" not in entries:
        return None
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
    return json.loads(resources.files("overtone.models").joinpath("hornet_in22k_to_in1k.json").read_text())["indices"]


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
