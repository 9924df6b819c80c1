"""Light heads for mobile backbones, out of torchvision's own modules: LR-ASPP, FCN and DeepLabV3.

Papers: LR-ASPP of Howard et al., arXiv:1905.02244; Long et al., arXiv:1411.4038; Chen et al., arXiv:1706.05587.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead
from torchvision.models.segmentation.lraspp import LRASPPHead


class LRASPP(nn.Module):
    """Lite R-ASPP: the last map, gated by its mean, at the size of a finer map and classified together with it.

    Args:
        in_chs: Channels of the maps, from fine to coarse.
        reductions: Their strides.
        num_classes: Classes.
        channels: Width inside.

    Attributes:
        low: Which map gives the logits their size: the finest of stride 8 or more, or the coarsest of all.
    """

    def __init__(
        self, in_chs: Sequence[int], reductions: Sequence[int], num_classes: int, *, channels: int = 128
    ) -> None:
        super().__init__()
        self.low = next((i for i, reduction in enumerate(reductions) if reduction >= 8), len(in_chs) - 1)
        self.head = LRASPPHead(in_chs[self.low], in_chs[-1], num_classes, channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (B, num_classes, H, W) at the size of the map `low`."""
        return self.head({"low": maps[self.low], "high": maps[-1]})


class FCN(nn.Module):
    """A 3x3 convolution to a quarter of the channels and a classifier, on the last map.

    Args:
        in_chs: Channels of the maps, from fine to coarse.
        reductions: Their strides; the head is the same at all of them.
        num_classes: Classes.
    """

    def __init__(self, in_chs: Sequence[int], reductions: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.head = FCNHead(in_chs[-1], num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (B, num_classes, h, w) at the size of the last map."""
        return self.head(maps[-1])


class DeepLabV3(nn.Module):
    """Dilated convolutions of several rates and a global mean beside each other, on the last map.

    In training it needs two images or more in a batch: its batch norm sees one pixel per image.

    Args:
        in_chs: Channels of the maps, from fine to coarse.
        reductions: Their strides.
        num_classes: Classes.
        atrous_rates: Dilations; None: the paper's, (12, 24, 36) at stride 8 and half of them at coarser ones.
    """

    def __init__(
        self,
        in_chs: Sequence[int],
        reductions: Sequence[int],
        num_classes: int,
        *,
        atrous_rates: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if atrous_rates is None:
            atrous_rates = (12, 24, 36) if reductions[-1] <= 8 else (6, 12, 18)
        self.head = DeepLabHead(in_chs[-1], num_classes, tuple(atrous_rates))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (B, num_classes, h, w) at the size of the last map."""
        return self.head(maps[-1])
