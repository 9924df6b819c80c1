"""UPerNet, the segmentation head of HorNet's published networks, its variant with a gated convolution, its auxiliary.

Papers: Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018, arXiv:1807.10221; the variant is
HorFPN of Rao et al., arXiv:2207.14284, at the place of the last convolution. State dicts have the published keys.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overtone.errors import OvertoneError
from overtone.layers.affine import fold_batch_norm
from overtone.layers.gnconv import ChannelsFirstGnConv, DeployedGnConv, GnConv

POOL_SIZES = (1, 2, 3, 6)
GLOBAL_FILTER_SIZE = (32, 32)  # of the maps that the published global filter of the head is stored for: (32, 17)
FUSIONS = ("conv", "gn7x7", "gngf")


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, ReLU, under the published keys `conv` and `bn`.

    The padding `kernel_size // 2` keeps the size of the maps.
    """

    def __init__(self, in_chs: int, out_chs: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chs, out_chs, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chs, H, W) -> (B, out_chs, H, W)."""
        return F.relu(self.bn(self.conv(x)))


class GnConvBN(GnConv):
    """A gated convolution of order 2 without a scale, batch norm, ReLU, on (B, C, H, W): the published HorFPN fusion.

    The keys of `GnConv` and `bn` lie side by side in the published files, hence a subclass.

    Args:
        in_chs: Channels of the input.
        out_chs: Channels of the output.
        spatial_filter: "7x7" or "gf".
    """

    def __init__(self, in_chs: int, out_chs: int, spatial_filter: str) -> None:
        super().__init__(out_chs, 2, spatial_filter, GLOBAL_FILTER_SIZE, scale=1.0, in_dim=in_chs)
        self.bn = nn.BatchNorm2d(out_chs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chs, H, W) -> (B, out_chs, H, W)."""
        gated = super().forward(x.permute(0, 2, 3, 1))
        return F.relu(self.bn(gated.permute(0, 3, 1, 2)))

    def deployed(self, shape: tuple[int, ...] | None) -> nn.Module:
        """The fastest exact form for inference on maps of `shape` (B, C, H, W)."""
        return self if shape is None else DeployedGnConvBN(self, (shape[2], shape[3]))

    def multiply_adds(self, inputs: tuple[Tensor, ...], output: Tensor) -> int:
        """See `GnConv`, whose maps are (B, H, W, C)."""
        return super().multiply_adds(inputs, output.permute(0, 2, 3, 1))


class DeployedGnConvBN(nn.Module):
    """A `GnConvBN` whose batch norm is in its last product, from the one it is to replace.

    Args:
        source: what is replaced; it is left as it is.
        map_size: height and width of its maps; only a global filter depends on it.
    """

    def __init__(self, source: GnConvBN, map_size: tuple[int, int]) -> None:
        super().__init__()
        self.gnconv: DeployedGnConv | ChannelsFirstGnConv = DeployedGnConv(source, map_size)
        fold_batch_norm(self.gnconv.out, source.bn)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chs, H, W) -> (B, out_chs, H, W)."""
        if isinstance(self.gnconv, ChannelsFirstGnConv):
            return F.relu(self.gnconv(x))
        return F.relu(self.gnconv(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class UPerHead(nn.Module):
    """Pooling pyramid on the last map, feature pyramid over all, and a classifier of every pixel.

    Args:
        in_chs: Channels of the maps, from fine to coarse; two or more (published: C, 2C, 4C, 8C at strides 4 to 32).
        reductions: Their strides; the head is the same at all of them.
        num_classes: Classes.
        channels: Width inside (published: 512).
        fusion: The convolution over the concatenated pyramid: "conv" (3x3), or the gated convolutions "gn7x7" and
            "gngf" (global filter) of the `horfpn` networks.
        dropout: Probability of dropping a channel before the classifier.

    Raises:
        OvertoneError: fewer than two maps, or an unknown fusion.
    """

    def __init__(
        self,
        in_chs: Sequence[int],
        reductions: Sequence[int],
        num_classes: int,
        *,
        channels: int = 512,
        fusion: str = "conv",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if len(in_chs) < 2:
            raise OvertoneError(f"a UPerNet joins two maps or more, the backbone gives {len(in_chs)}: use head 'fcn'")
        if fusion not in FUSIONS:
            raise OvertoneError(f"UPerNet has no fusion {fusion!r}: choose one of {', '.join(FUSIONS)}")
        *fine_chs, last_chs = in_chs
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), ConvBN(last_chs, channels, 1)) for size in POOL_SIZES
        )
        self.bottleneck = ConvBN(last_chs + len(POOL_SIZES) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvBN(chs, channels, 1) for chs in fine_chs)
        self.fpn_convs = nn.ModuleList(ConvBN(channels, channels, 3) for _ in fine_chs)
        joined_chs = len(in_chs) * channels
        self.fpn_bottleneck: nn.Module = (
            ConvBN(joined_chs, channels, 3)
            if fusion == "conv"
            else GnConvBN(joined_chs, channels, fusion.removeprefix("gn"))
        )
        init_dense_head(self)

    def pool_pyramid(self, x: Tensor) -> Tensor:
        """The coarsest map (B, C, h, w) with what it looks like at four scales: (B, channels, h, w)."""
        pooled = [resize(branch(x), x.shape[-2:]) for branch in self.psp_modules]
        return self.bottleneck(torch.cat([x, *pooled], dim=1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (B, num_classes, H, W) at the size of the first map.

        Args:
            maps: (B, in_chs[i], H_i, W_i), from fine to coarse.
        """
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, maps[:-1], strict=True)]
        laterals.append(self.pool_pyramid(maps[-1]))
        for i in range(len(laterals) - 2, -1, -1):
            laterals[i] = laterals[i] + resize(laterals[i + 1], laterals[i].shape[-2:])
        levels = [conv(x) for conv, x in zip(self.fpn_convs, laterals[:-1], strict=True)]
        joined = torch.cat([resize(x, levels[0].shape[-2:]) for x in (*levels, laterals[-1])], dim=1)
        return self.conv_seg(self.dropout(self.fpn_bottleneck(joined)))


class AuxiliaryHead(nn.Module):
    """A small fully convolutional head on one map, for a second loss in training.

    Args:
        in_chs: Channels of the map.
        num_classes: Classes.
        channels: Width inside.
        dropout: Probability of dropping a channel before the classifier.
    """

    def __init__(self, in_chs: int, num_classes: int, *, channels: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.convs = nn.Sequential(ConvBN(in_chs, channels, 3))
        init_dense_head(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chs, H, W) -> logits (B, num_classes, H, W)."""
        return self.conv_seg(self.dropout(self.convs(x)))


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resizing of (B, C, H, W) to `size` = (height, width), corners not aligned."""
    sizes = (tuple(x.shape[-2:]), tuple(size))
    # Sizes that an export leaves open must not be compared: the graph would be of those that happen to be equal.
    if all(isinstance(side, int) for one in sizes for side in one) and sizes[0] == sizes[1]:
        return x  # the weights of every pixel are 1 and 0: the same numbers
    return F.interpolate(x, size=(size[0], size[1]), mode="bilinear", align_corners=False)


def init_dense_head(head: nn.Module) -> None:
    """The published initialisation of a head with a classifier `conv_seg`.

    Convolutions: Kaiming normal, fan-out; those of a gated convolution: Xavier uniform; classifier: normal of std 0.01;
    biases 0; batch norm 1 and 0.
    """
    gated = {inner for module in head.modules() if isinstance(module, GnConv) for inner in module.modules()}
    for name, module in head.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if name == "conv_seg":
            nn.init.normal_(module.weight, std=0.01)
        elif module in gated:
            nn.init.xavier_uniform_(module.weight)
        else:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
