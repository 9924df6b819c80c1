"""JPEG files by NVIDIA DALI: it decodes only the crops, resizes and flips them, as one pipeline on the device.

DALI draws nothing: our crops and flips are fed to it. Its decoder is nvJPEG and its resize has kernels of its own, so
pixels differ from those of the CPU, and a little from those of the `gpu` decoder.
"""

import importlib
import importlib.util
from typing import Any

import numpy as np
import torch
from torch import Tensor

from overtone.data.device_decoding import Drawn
from overtone.errors import OvertoneError

_THREADS = 2  # that parse headers; the arithmetic is the device's
_INPUTS = ("files", "starts", "shapes", "across", "down")


class Dali:
    """See `device_decoding.Decoder`.

    Args:
        device: the CUDA device.
        interpolation: `bilinear` or `bicubic`.
    """

    def __init__(self, device: torch.device, interpolation: str) -> None:
        self.device, self.interpolation = device, interpolation
        self._pipeline: Any = None
        self._made_for = (0, 0)

    @staticmethod
    def check() -> None:
        """Refuse to begin without the package.

        Raises:
            OvertoneError: it is not installed.
        """
        if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
            raise OvertoneError("data.decoder is dali, and NVIDIA DALI is not installed: pip install 'overtone[dali]'")

    def __call__(self, files: list[Drawn], side: int) -> Tensor:
        """Decode, crop, resize and flip."""
        if len(files) > self._made_for[0] or side != self._made_for[1]:
            self._made_for = (max(len(files), self._made_for[0]), side)
            self._pipeline = built(*self._made_for, self.device, self.interpolation)
        images = run(self._pipeline, fed(files), self.device)  # (B, side, side, 3)
        return images.permute(0, 3, 1, 2)


def fed(files: list[Drawn]) -> dict[str, list[np.ndarray]]:
    """What the pipeline takes of each file."""
    values = [
        (
            file.content,
            np.array(file.box[:2], np.int32),
            np.array(file.box[2:], np.int32),
            *(np.array(flip, np.int32) for flip in file.flips),
        )
        for file in files
    ]
    return {name: list(column) for name, column in zip(_INPUTS, zip(*values, strict=True), strict=True)}


def built(batch_size: int, side: int, device: torch.device, interpolation: str) -> Any:
    """A pipeline for up to so many files; made without DALI's own prefetching, so that a run gives what it was fed."""
    dali: Any = importlib.import_module("nvidia.dali")
    fn, types = importlib.import_module("nvidia.dali.fn"), importlib.import_module("nvidia.dali.types")
    pipeline = dali.Pipeline(
        batch_size=batch_size,
        num_threads=_THREADS,
        device_id=device.index or 0,
        exec_async=False,
        exec_pipelined=False,
        prefetch_queue_depth=1,
    )
    with pipeline:
        files, starts, shapes, across, down = (fn.external_source(name=name) for name in _INPUTS)
        images = fn.decoders.image_slice(
            files,
            starts,
            shapes,
            device="mixed",
            output_type=types.RGB,
            axis_names="HW",
            normalized_anchor=False,
            normalized_shape=False,
        )
        kind = types.INTERP_LINEAR if interpolation == "bilinear" else types.INTERP_CUBIC
        images = fn.resize(images, resize_x=side, resize_y=side, interp_type=kind, antialias=True)
        pipeline.set_outputs(fn.flip(images, horizontal=across, vertical=down))
    pipeline.build()
    return pipeline


def run(pipeline: Any, inputs: dict[str, list[np.ndarray]], device: torch.device) -> Tensor:
    """Feed a pipeline once and copy what it gives: uint8 `(B, side, side, 3)`."""
    for name, values in inputs.items():
        pipeline.feed_input(name, values)
    found = pipeline.run()[0].as_tensor()
    images = torch.empty(tuple(found.shape()), dtype=torch.uint8, device=device)
    importlib.import_module("nvidia.dali.plugin.pytorch").feed_ndarray(found, images)
    return images
