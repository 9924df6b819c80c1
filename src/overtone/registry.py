"""Networks by name for Python code: `overtone.create_model` and `overtone.list_models`."""

from pathlib import Path
from typing import Any

import timm
from torch import nn

from overtone import zoo
from overtone.errors import OvertoneError
from overtone.models import list_architectures

_CHOOSABLE = ("num_classes", "in_chans")  # of a network whose structure is that of its weights


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


def create_model(name: str | Path, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Build one of our architectures or one of timm's.

    Args:
        name: `architecture` or `architecture.tag`; with `pretrained` also what `overtone.load` takes: a run folder, a
            file of weights, or `hf-hub:owner/name`.
        pretrained: load the weights of that name.
        kwargs: arguments of the constructor, such as `num_classes`, `in_chans`, `features_only`. Of a network whose
            weights come from a run, a file or a hub the first two can be chosen: its structure is that of the weights.

    Returns:
        The network, in training mode and in NCHW. On a CPU `.to(memory_format=torch.channels_last)`, of the images too,
        takes MobileNetV2 from 26.7 to 18.7 ms and HBONet from 29.2 to 22.9 (one image of 224 pixels, eager, one thread
        of an EPYC that other jobs used); `overtone.deploy` goes further.

    Raises:
        OvertoneError: no such architecture (with the names closest to it), arguments that it does not take, or weights
            that cannot be had.
    """
    spec = str(name)
    if not pretrained or (timm.is_model(spec) and not Path(spec).is_file()):
        return zoo.build(spec, pretrained=pretrained, **kwargs)
    others = sorted(kwargs.keys() - _CHOOSABLE)
    if others:
        raise OvertoneError(
            f"{', '.join(others)} cannot be chosen for the weights of {spec}: only {' and '.join(_CHOOSABLE)} can"
        )
    return zoo.load_model(spec, **kwargs).model.train()
