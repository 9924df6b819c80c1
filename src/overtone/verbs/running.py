"""The options of `evaluate` and `predict` that choose a runtime, as `deployment.running` takes them."""

import dataclasses

from overtone import options
from overtone.deployment import running
from overtone.deployment.running import Computation
from overtone.zoo import LoadedModel


def in_runtime(loaded: LoadedModel, chosen: options.Evaluate | options.Predict) -> tuple[LoadedModel, options.Device]:
    """The network in the runtime that was asked for, and the settings that are left to PyTorch.

    Raises:
        OvertoneError: as `running.in_runtime`.
    """
    found, left = running.in_runtime(loaded, _computation(chosen))
    precision = chosen.run.precision if left.precision is None else left.precision
    return found, dataclasses.replace(chosen.run, device=left.device, precision=precision)


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
