"""Where a network looks: Grad-CAM of any task and any backbone, by Captum.

Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): the maps of a layer, weighted by the mean gradient of a class's
score, summed over the channels, positive part. The layer is the last of the backbone that has maps.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from overtone.engine.inference import Inference
from overtone.errors import OvertoneError

_COLOURS = "inferno"
_PANEL, _HEADING, _GAP, _DPI = 480, 28, 8, 100  # pixels, and pixels per inch
_LONGEST = 60


@dataclass(frozen=True, eq=False)
class HeatMap:
    """How much each part of an image counts for a class.

    Attributes:
        label: the class; `index` its output.
        score: of the class, as the task gives it: a logit, the logits of its pixels, the scores of its objects.
        values: float32 `(h, w)` in 0..1, over `box`; all 0 where nothing counts for the class.
        box: left, top, right and bottom of what the network saw, in pixels of the image.
        size: width and height of the image.
    """

    label: str
    index: int
    score: float
    values: np.ndarray
    box: tuple[float, float, float, float]
    size: tuple[int, int]

    def strength(self) -> np.ndarray:
        """The values at the size of the image, float32 `(height, width)`, 0 outside of what the network saw."""
        width, height = self.size
        rows, columns = (np.arange(side, dtype=np.float32) + 0.5 for side in (height, width))
        left, top, right, bottom = self.box
        y, x = (rows - top) / (bottom - top), (columns - left) / (right - left)
        grid = torch.from_numpy(np.stack(np.meshgrid(x, y), axis=-1) * 2 - 1).unsqueeze(0)
        values = torch.from_numpy(self.values)[None, None]
        found = nn.functional.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
        inside = ((y >= 0) & (y <= 1))[:, None] & ((x >= 0) & (x <= 1))
        return np.where(inside, found[0, 0].numpy(), 0.0).astype(np.float32)

    def layer(self, opacity: float = 0.7) -> Image.Image:
        """A transparent image to lay over the original: the stronger, the brighter and the less transparent."""
        strength = self.strength()
        pixels = colormaps[_COLOURS](strength, bytes=True)
        pixels[..., 3] = np.rint(255 * opacity * np.sqrt(strength)).astype(np.uint8)
        return Image.fromarray(pixels, "RGBA") if pixels.size else Image.new("RGBA", self.size)

    def overlay(self, image: Image.Image, opacity: float = 0.7) -> Image.Image:
        """The image with the map over it."""
        return Image.alpha_composite(image.convert("RGBA"), self.layer(opacity)).convert("RGB")

    def peak(self) -> tuple[float, float]:
        """Column and row of the strongest place, in pixels of the image."""
        row, column = np.unravel_index(int(self.values.argmax()), self.values.shape)
        left, top, right, bottom = self.box
        height, width = self.values.shape
        x, y = left + (column + 0.5) / width * (right - left), top + (row + 0.5) / height * (bottom - top)
        return float(x), float(y)

    def to_dict(self) -> dict[str, Any]:
        """What is known beside the values, as JSON values."""
        return {
            "label": self.label,
            "index": self.index,
            "score": self.score,
            "peak": [round(value, 1) for value in self.peak()],
            "box": [round(value, 1) for value in self.box],
        }


def heat_maps(
    inference: Inference, image: Image.Image, labels: Sequence[str] = (), *, top_k: int = 1, layer: str | None = None
) -> list[HeatMap]:
    """Grad-CAM of an image for some classes.

    Args:
        inference: the network, in PyTorch.
        image: in RGB, upright where the network's preprocessing turns it.
        labels: of the maps; none: the `top_k` of the highest score.
        top_k: how many.
        layer: name of a module whose output is explained; None: see `explained_layer`.

    Raises:
        OvertoneError: no such label or layer, a layer without maps, an export, or Captum is not installed.
    """
    gradcam = _gradcam()
    task, network = inference.task, inference.placement.forward(inference.model)
    if not any(True for _ in inference.model.parameters()):
        raise OvertoneError("an export has no gradients to explain it by; explain the network that it was made from")
    view = task.view(image)
    pixels = inference.placement.inputs(view.pixels).detach().requires_grad_()
    with torch.no_grad():
        scores = task.class_scores(network, pixels)[0]
    tap = _Tap()
    hook = _module(inference.model, layer).register_forward_hook(_through(tap, inference.model, layer))
    try:
        explain = gradcam(lambda given: task.class_scores(network, given), tap)
        return [
            HeatMap(
                task.labels[index],
                index,
                float(scores[index]),
                _normalised(explain.attribute(pixels, target=index, relu_attributions=True)),
                view.box,
                image.size,
            )
            for index in _indices(task.labels, labels, scores, top_k)
        ]
    finally:
        hook.remove()


def panels(image: Image.Image, maps: Sequence[HeatMap], opacity: float = 0.7) -> Image.Image:
    """The image, and beside it each map over it under its label, at most 480 pixels high."""
    small = image.convert("RGB")
    small.thumbnail((2 * _PANEL, _PANEL))
    shown = [("image", small)]
    shown += [(f"{found.label}: {found.score:.4g}", found.overlay(image, opacity).resize(small.size)) for found in maps]
    width = len(shown) * (small.width + _GAP) + _GAP
    height = small.height + _HEADING + _GAP
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    for number, (name, panel) in enumerate(shown):
        left = _GAP + number * (small.width + _GAP)
        axes = figure.add_axes((left / width, _GAP / height, small.width / width, small.height / height))
        axes.imshow(np.asarray(panel), interpolation="none", aspect="auto")
        axes.set_axis_off()
        axes.set_title(name[:_LONGEST], fontsize=9, loc="left", parse_math=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def explained_layer(model: Any) -> nn.Module:
    """The layer that heat maps are of: the backbone of a dense network, else the last stage of timm's `feature_info`.

    Of a transformer that classifies by a token of its own it is the stage before, since the last one gives the patches
    no gradient.

    Raises:
        OvertoneError: the network says nothing of its stages.
    """
    backbone = getattr(getattr(model, "detector", model), "backbone", None)
    if isinstance(backbone, nn.Module):
        return getattr(backbone, "maps", backbone)
    info = list(getattr(model, "feature_info", None) or ())
    if not info:
        raise OvertoneError(f"{type(model).__name__} does not name its stages; name a layer with --layer")
    at = -2 if getattr(model, "global_pool", None) == "token" and len(info) > 1 else -1
    return model.get_submodule(info[at]["module"])


class _Tap(nn.Module):
    """Lets maps (B, C, H, W) through, where Captum takes them from."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.clone()  # what follows may change its input in place


def _gradcam() -> Any:
    try:
        from captum.attr import LayerGradCam  # noqa: PLC0415 (an optional dependency)
    except ImportError:
        raise OvertoneError("heat maps need Captum; pip install 'overtone[explain]'") from None
    return LayerGradCam


def _module(model: nn.Module, name: str | None) -> nn.Module:
    if name is None:
        return explained_layer(model)
    try:
        return model.get_submodule(name)
    except AttributeError:
        known = ", ".join(dict(model.named_children()))
        raise OvertoneError(f"the network has no layer {name!r}; its first level is {known}") from None


def _indices(names: Sequence[str], wanted: Sequence[str], scores: Tensor, top_k: int) -> list[int]:
    unknown = [label for label in wanted if label not in names]
    if unknown:
        raise OvertoneError(f"there is no label {unknown[0]!r}; the network has {len(names)}, such as {names[0]!r}")
    return [names.index(label) for label in wanted] or scores.topk(min(top_k, len(names))).indices.tolist()


def _through(tap: _Tap, model: Any, layer: str | None) -> Callable[[nn.Module, Any, Any], Any]:
    """A hook that leads the layer's output, the last one of several, through the tap as (B, C, H, W)."""
    prefix = int(getattr(model, "num_prefix_tokens", 0) or 0)
    stages = list(getattr(model, "feature_info", None) or ())
    named = [stage for stage in stages if stage["module"] == layer]
    channels = {int(stage["num_chs"]) for stage in named or stages[-1:]}

    def hook(module: nn.Module, given: Any, output: Any) -> Any:
        several = list(output) if isinstance(output, (list, tuple)) else [output]
        several[-1] = _tapped(several[-1], tap, prefix, channels)
        return several[0] if isinstance(output, Tensor) else type(output)(several)

    return hook


def _tapped(maps: Tensor, tap: _Tap, prefix: int, channels: set[int]) -> Tensor:
    if maps.ndim == 4 and maps.shape[1] not in channels and maps.shape[3] in channels:
        return tap(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    if maps.ndim == 4:
        return tap(maps)
    side = math.isqrt(max(maps.shape[1] - prefix, 0)) if maps.ndim == 3 else 0
    if not side or side**2 != maps.shape[1] - prefix:
        raise OvertoneError(f"the layer's output has shape {tuple(maps.shape)}, which is no map; choose another layer")
    grid = maps[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
    return torch.cat((maps[:, :prefix], tap(grid).flatten(2).transpose(1, 2)), dim=1)


def _normalised(found: Tensor) -> np.ndarray:
    values = found.detach()[0, 0].float().cpu().numpy()
    largest = float(values.max(initial=0.0))
    return values / largest if largest > 0 else np.zeros_like(values)
