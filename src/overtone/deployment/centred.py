"""HorNet with maps whose mean over the channels is zero, so that its norms need not subtract it.

Between two stages' convolutions a map only grows by what blocks add to it, and only layer norms read it. They subtract
the mean over the channels of each pixel first; so whatever adds to the map may subtract its own mean beforehand, which
for a convolution is a change of its weights. The same holds between a block's first convolution and its global filter.
This is exact. In OpenVINO a mean over channels costs a pass over the map, 3 % of HorNet-T's time on two cores.
"""

from torch import Tensor, nn

from overtone.deployment.affine import set_affine
from overtone.deployment.channel_norm import ChannelNorm
from overtone.deployment.channels_first import ChannelsFirstBlock, ChannelsFirstFilter
from overtone.deployment.inputs import FromPixels
from overtone.models.hornet import HorNet


class Centred(nn.Module):
    """A layer whose output has its mean over the channels subtracted."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        y = self.layer(x)
        return y - y.mean(1, keepdim=True)


def centre_maps(net: nn.Module) -> None:
    """Rewrite a network of `with_channels_first` if it is a HorNet, bare or behind its preprocessing.

    Its logits stay the same; the maps of its stages do not, so that a network that gives maps is left as it is, and one
    that takes their maximum: an average of centred maps is centred, a maximum is not.
    """
    found = net.net if isinstance(net, FromPixels) else net
    if not isinstance(found, HorNet) or "max" in found.global_pool.pool_type:
        return
    for before, stage in zip(found.downsample_layers.children(), found.stages.children(), strict=True):
        assert isinstance(before, nn.Sequential)
        first, last = before[0], before[-1]
        if isinstance(first, ChannelNorm):  # it reads the stage before
            first.is_centred = True
        if isinstance(last, nn.Conv2d):
            centre_output(last)
        else:
            before[-1] = Centred(last)
        for block in stage.children():
            assert isinstance(block, ChannelsFirstBlock)
            _centre_block(block)


def _centre_block(block: ChannelsFirstBlock) -> None:
    block.norm1.is_centred = block.norm2.is_centred = True
    centre_output(block.gnconv.out)
    centre_output(block.pwconv2)
    if isinstance(block.gnconv.filter, ChannelsFirstFilter):
        block.gnconv.filter.pre_norm.is_centred = True
        centre_output(block.gnconv.filter_in)


def centre_output(conv: nn.Conv2d) -> None:
    """Subtract from a convolution's output its mean over the channels."""
    weight = conv.weight.double()
    bias = None if conv.bias is None else conv.bias.double()
    set_affine(conv, weight - weight.mean(0), None if bias is None else bias - bias.mean())
