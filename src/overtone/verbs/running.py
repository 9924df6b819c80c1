"""The options of `evaluate` and `predict` that choose a runtime, as `deployment.running` takes them."""

import dataclasses

from overtone import options
from overtone.deployment import running
from overtone.deployment.running import MANY_IMAGES, Computation, fastest_form
from overtone.engine.inference import Inference, ready
from overtone.verbs.loading import computing
from overtone.zoo import LoadedModel


def inference_in_runtime(
    loaded: LoadedModel, labels: tuple[str, ...], chosen: options.Evaluate | options.Predict, num_images: int
) -> Inference:
    """The network in the runtime that was asked for, which for PyTorch is its deployed form where the images repay it.

    Raises:
        OvertoneError: as `running.in_runtime` and `ready`.
    """
    found, left = running.in_runtime(loaded, _computation(chosen))
    precision = chosen.run.precision if left.precision is None else left.precision
    settings = dataclasses.replace(chosen.run, device=left.device, precision=precision)
    is_deployed = not chosen.no_deploy and chosen.runtime == "torch" and num_images >= MANY_IMAGES
    return ready(found, labels, computing(settings), chosen.settings.given(), fastest_form if is_deployed else None)


def runtime_of(loaded: LoadedModel, chosen: options.Evaluate | options.Predict) -> str:
    """What computes, for reports."""
    return running.name_of_runtime(loaded, _computation(chosen))


def _computation(chosen: options.Evaluate | options.Predict) -> Computation:
    precision = chosen.precision
    if precision is None and chosen.run.precision == "bfloat16" and chosen.runtime not in ("torch", "compile"):
        precision = "bfloat16"
    return Computation(
        runtime=chosen.runtime,
        precision=precision,
        calibration=chosen.calibration,
        size=chosen.run.size,
        threads=chosen.run.threads,
        device=chosen.run.device,
    )
