"""Decoders of JPEG files on a device: functions of files, crops and flips (`device_decoding.Decoder`) by name."""

import functools
from collections.abc import Callable

import torch

from overtone.data.decoders.dali import Dali
from overtone.data.decoders.gpu import Gpu
from overtone.data.device_decoding import Decoder
from overtone.errors import OvertoneError

_DECODERS = {"gpu": Gpu, "dali": Dali}


def decoder_named(name: str, device: torch.device, interpolation: str) -> Callable[[], Decoder]:
    """What makes a decoder.

    Args:
        name: `gpu` (torchvision's nvJPEG) or `dali` (NVIDIA DALI).
        device: a CUDA device.
        interpolation: filter of the resize.

    Raises:
        OvertoneError: the device, the package or the filter is not there.
    """
    kind = _DECODERS[name]
    if device.type != "cuda":
        raise OvertoneError(f"data.decoder is {name}, and the run is on {device.type}: it needs CUDA; set it to cpu")
    if interpolation not in ("bilinear", "bicubic"):
        raise OvertoneError(
            f"data.decoder is {name}, which has no filter {interpolation} (data.preprocess.interpolation): choose "
            "bilinear or bicubic, or set data.decoder to cpu"
        )
    kind.check()
    return functools.partial(kind, device, interpolation)
