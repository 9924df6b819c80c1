"""Feature maps of strides 4 to 32 from any timm network, as dense heads take them."""

from collections.abc import Sequence
from typing import Any

import timm
from timm.layers.norm import LayerNorm2d
from timm.models import FeatureInfo
from torch import Tensor, nn

from overtone.errors import OvertoneError
from overtone.models import HorNet

PYRAMID_STRIDES = (4, 8, 16, 32)
_NORM_EPS = 1e-6


class BackboneMaps(nn.Module):
    """A network without classifier that gives one map a stride.

    Args:
        name: A timm architecture, ours among them.
        strides: Strides of the maps, ascending; the deepest map of each stride is taken.
        normalise: Whether a channel-wise LayerNorm (eps 1e-6) acts on each map. HorNet's published dense networks have
            it, on the output only: the next stage sees the map before the norm. None: for HorNet alone.
        pretrained: Load the published weights of the classifier's body.
        arguments: Further arguments of the constructor, such as `drop_path_rate` or `filter_size`.

    Attributes:
        channels: Channels of each map.
        strides: Strides of the maps.

    Raises:
        OvertoneError: The network has no map of one of the strides, or gives no maps.
    """

    def __init__(
        self,
        name: str,
        strides: Sequence[int] = PYRAMID_STRIDES,
        *,
        normalise: bool | None = None,
        pretrained: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        try:
            net = timm.create_model(name, pretrained, features_only=True, **arguments)
        except (AttributeError, RuntimeError, TypeError) as error:
            raise OvertoneError(f"{name} gives no feature maps ({error}): choose a net that does") from None
        self.net = net
        info: FeatureInfo = net.feature_info  # pyright: ignore[reportAssignmentType]
        self._taken = _deepest(name, info.reduction(), self.strides)
        self.channels = [info.channels()[i] for i in self._taken]
        if normalise is None:
            normalise = isinstance(getattr(self.net, "model", None), HorNet)
        self.norms = nn.ModuleList(LayerNorm2d(dim, eps=_NORM_EPS) for dim in self.channels if normalise)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) to one map (B, channels[i], about H / strides[i], about W / strides[i]) a stride."""
        maps = self.net(images)
        maps = [maps[i] for i in self._taken]
        if not self.norms:
            return maps
        return [norm(x) for norm, x in zip(self.norms, maps, strict=True)]


def _deepest(name: str, reductions: list[int], strides: tuple[int, ...]) -> list[int]:
    """For each stride the last of the maps that has it."""
    last = {reduction: i for i, reduction in enumerate(reductions)}
    missing = [stride for stride in strides if stride not in last]
    if missing:
        raise OvertoneError(
            f"{name} has no map of stride {missing[0]}, only of {sorted(last)}: choose a net that has, or other strides"
        )
    return [last[stride] for stride in strides]
