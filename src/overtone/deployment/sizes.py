"""Whether a network takes images of a size: networks say that they do not with exceptions of every kind."""

import torch
from torch import Tensor, nn

from overtone.config import Preprocess
from overtone.deployment.inputs import example_input
from overtone.deployment.runtimes.runtime import first_line
from overtone.errors import OvertoneError


def check_size(model: nn.Module, name: str, preprocess: Preprocess) -> None:
    """Make sure that the network takes images of this size.

    Raises:
        OvertoneError: it does not.
    """
    size = preprocess.size
    try:
        with torch.inference_mode():
            model(example_input("normalised", preprocess, 1))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise OvertoneError(
            f"{name} cannot take images of {size}x{size} pixels ({first_line(error)}); choose another --size"
        ) from error


def check_any_size(net: nn.Module, name: str, example: Tensor) -> None:
    """Make sure that a network in its fastest exact form takes images of another size than it was made for.

    Raises:
        OvertoneError: it does not.
    """
    try:
        with torch.inference_mode():
            net(example)
    except (RuntimeError, ValueError, AssertionError, OvertoneError) as error:
        raise OvertoneError(
            f"{name} takes images of one size once it is deployed ({first_line(error)}); export without --dynamic"
        ) from error
