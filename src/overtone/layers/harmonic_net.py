"""What the harmonic networks share: timm's contract over a chain of stages, and the published layout of their state."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.classifier import create_classifier
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from overtone.errors import OvertoneError
from overtone.layers.dct_conv import HarmConv2d


def published_state_dict(net: nn.Module) -> dict[str, Tensor]:
    """The state of a net in the published layout: `dct` banks put back before each weight, weights 4-D or 5-D.

    Args:
        net: any module that may hold `HarmConv2d` layers.

    Returns:
        New dictionary of detached tensors in the published order; `net.load_state_dict` takes it strictly.
    """
    layers = {name: m for name, m in net.named_modules(remove_duplicate=False) if isinstance(m, HarmConv2d)}
    published: dict[str, Tensor] = {}
    for key, value in net.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        if owner in layers and leaf == "weight":
            published[f"{owner}.dct" if owner else "dct"] = layers[owner].published_bank()
            value = value.reshape(layers[owner].published_shape)
        published[key] = value
    return published


def harmonic_or_plain(harmonic: bool, *args: Any, level: int | None = None, inner_bn: bool = False, **kwargs: Any):
    """A `HarmConv2d`, or the `nn.Conv2d` of the same arguments where the network has none."""
    return HarmConv2d(*args, level=level, inner_bn=inner_bn, **kwargs) if harmonic else nn.Conv2d(*args, **kwargs)


@torch.no_grad()
def init_weights(net: nn.Module) -> None:
    """The published initialisation: convolutions Kaiming normal over the fan-out, batch norm 1 and 0."""
    for module in net.modules():
        if isinstance(module, HarmConv2d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class HarmonicNet(nn.Module):
    """A network whose features are a chain: each stage maps the feature before it to the next.

    A subclass sets `feature_info` (one entry a stage) and `num_features`, defines `forward_stage`, and calls
    `reset_classifier` once its body is built.
    """

    feature_info: list[dict[str, Any]]
    num_features: int
    head_hidden_size: int

    def __init__(self, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.num_classes, self.drop_rate, self.grad_checkpointing = num_classes, drop_rate, False
        self._last_stage: int | None = None  # set where later stages have been pruned

    def forward_stage(self, index: int, x: Tensor) -> Tensor:
        """Feature `index` from the feature before it, or from the image (B, C, H, W) where it is the first."""
        raise NotImplementedError

    def forward_norm(self, x: Tensor) -> Tensor:
        """What comes between the last stage and the head."""
        return x

    def drop_stages(self, last: int) -> None:
        """Remove the stages after `last` from the body."""
        raise NotImplementedError

    @property
    def _stages(self) -> range:
        return range(len(self.feature_info) if self._last_stage is None else self._last_stage + 1)

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map (B, num_features, H / stride, W / stride) of images x (B, C, H, W)."""
        for index in self._stages:
            x = self.forward_stage(index, x)
        return self.forward_norm(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes) from a feature map; what the classifier sees where `pre_logits`."""
        x = self.global_pool(x)
        if self.drop_rate:
            x = F.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images x (B, in_chans, H, W)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The features at `indices` on the way to the last one, as timm's models give them.

        Args:
            x: images (B, C, H, W).
            indices: which features; an integer takes the last ones, None all.
            norm: apply the final norm to the last feature, where the net has one outside its stages.
            stop_early: leave out the stages after the last feature asked for.
            output_fmt: "NCHW" is all there is.
            intermediates_only: leave out the last feature map.

        Returns:
            The features in order, or the last feature map and the features.

        Raises:
            ValueError: another `output_fmt`.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"the features of a convolutional network are NCHW, not {output_fmt}")
        take, last = feature_take_indices(len(self.feature_info), indices)
        intermediates = []
        for index in self._stages:
            if stop_early and index > last:
                break
            x = self.forward_stage(index, x)
            if index in take:
                final = norm and index == len(self.feature_info) - 1
                intermediates.append(self.forward_norm(x) if final else x)
        return intermediates if intermediates_only else (self.forward_norm(x), intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the features at `indices` do not need; returns the indices, counted from the first feature."""
        take, last = feature_take_indices(len(self.feature_info), indices)
        if last < len(self.feature_info) - 1:
            self._last_stage = last
            self.drop_stages(last)
        if prune_norm or self._last_stage is not None:
            self.drop_norm()
        if prune_head:
            self.reset_classifier(0, "")
        return take

    def drop_norm(self) -> None:
        """Remove the norm between the last stage and the head, where there is one."""

    def get_classifier(self) -> nn.Module:
        """The linear classifier."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head for `num_classes` classes, none where it is 0; `global_pool` as timm names it, "" for none."""
        self.num_classes = num_classes
        pool_type = self.global_pool.pool_type if global_pool is None else global_pool
        head = create_classifier(self.num_features, num_classes, pool_type=pool_type)
        self.global_pool, self.fc = head[0], head[-1]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether to compute activations again in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Parameters, beyond biases and norms, that are not decayed: none."""
        return set()

    def published_state_dict(self) -> dict[str, Tensor]:
        """The state under the published keys, shapes and order; see `overtone.layers.harmonic_net`."""
        return published_state_dict(self)


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise OvertoneError where a constructor argument is none of its choices."""
    if value not in choices:
        raise OvertoneError(f"{name} is {value!r}; a harmonic network takes one of {', '.join(map(repr, choices))}")
