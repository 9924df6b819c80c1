"""Feature pyramids: FPN (arXiv:1612.03144) and HorFPN (HorNet, arXiv:2207.14284, section 4.2).

torchvision's `FeaturePyramidNetwork` with a fifth level of every second pixel of the fourth is the published FPN, bit
for bit. HorFPN has a recursive gated convolution of order 2 where FPN has a 3x3 convolution.
"""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from overtone.errors import OvertoneError
from overtone.layers.gnconv import GnConv

NECKS = ("fpn", "horfpn_7x7", "horfpn_gf")
# HorFPN's global filters are stored as (32, 17), the spectrum of maps of 32 x 32.
_STORED_MAP = (32, 32)


class GnConv2d(GnConv):
    """The recursive gated convolution on (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return super().forward(x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)


class Neck(nn.Module):
    """Maps of four strides to a pyramid of five levels of the same width.

    Args:
        kind: `fpn`, `horfpn_7x7` (depthwise filters) or `horfpn_gf` (global filters).
        in_channels: Channels of the maps, from fine to coarse.
        out_channels: Channels of the pyramid.

    Raises:
        OvertoneError: No such kind.
    """

    def __init__(self, kind: str, in_channels: Sequence[int], out_channels: int = 256) -> None:
        super().__init__()
        if kind not in NECKS:
            raise OvertoneError(f"there is no neck {kind!r}: choose one of {', '.join(NECKS)}")
        self.kind = kind
        self.out_channels = out_channels
        self.pyramid = FeaturePyramidNetwork(list(in_channels), out_channels, LastLevelMaxPool())
        if kind != "fpn":
            spatial_filter = kind.removeprefix("horfpn_")
            self.pyramid.layer_blocks = nn.ModuleList(
                GnConv2d(out_channels, 2, spatial_filter, _STORED_MAP, scale=1.0) for _ in in_channels
            )
        self.init_weights()

    def init_weights(self) -> None:
        """Convolutions: Xavier uniform, bias 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps from fine to coarse to levels (B, out_channels, H_i, W_i), the last one of twice the coarsest stride."""
        return list(self.pyramid(OrderedDict((str(i), x) for i, x in enumerate(maps))).values())
