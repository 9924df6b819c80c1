"""Networks by name for Python code: `overtone.create_model` and `overtone.list_models`."""

from typing import Any

import timm
from torch import nn

from overtone import zoo
from overtone.models import list_architectures


def list_models(pattern: str = "", *, with_timm: bool = False) -> list[str]:
    """Names of architectures, ours family by family and in natural order (2 before 10).

    Args:
        pattern: a shell pattern such as `hbonet_*`, or a part of the name such as `vgg`.
        with_timm: timm's own architectures too, after ours.
    """
    wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
    ours = list_architectures(wanted)
    if not with_timm:
        return ours
    known = set(ours)
    return ours + [name for name in timm.list_models(wanted) if name not in known]


def create_model(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build one of our architectures or one of timm's.

    Args:
        name: `architecture` or `architecture.tag`.
        pretrained: load the published weights of that tag.
        kwargs: arguments of the constructor, such as `num_classes`, `in_chans`, `features_only`.

    Returns:
        The network, in training mode.

    Raises:
        OvertoneError: no such architecture (with the names closest to it), or arguments that it does not take.
    """
    return zoo.build(name, pretrained=pretrained, **kwargs)
