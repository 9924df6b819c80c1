"""Precision of a training on a CPU that leaves it open: bfloat16 where that is measured to be faster, else float32."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from overtone.config import AUTO, Recipe, Run
from overtone.engine.assembly import Parts
from overtone.engine.distributed import World
from overtone.engine.optim import total_steps
from overtone.engine.placement import Placement
from overtone.engine.step import NotFinite
from overtone.engine.trial import seconds_of_step

# Only where ten trial steps are 5 % of the training, or less; what has fewer pixels than this is not measured at all.
_LEAST_STEPS, _LEAST_PIXELS, _LEAST_SECONDS = 200, 1e8, 120.0
_LONGEST = 2.0  # seconds of timed steps in each precision
_FASTER = 0.9  # of the time in float32: what rounding must bring at least


def settled_precision(
    recipe: Recipe,
    run: Run,
    placement: Placement,
    world: World,
    num_images: int,
    recorded: Any,
    assembled: Callable[[Placement], Parts],
) -> tuple[Run, Placement, list[str]]:
    """Choose between float32 and bfloat16 where `run.precision` is auto, on CPUs that compute in bfloat16.

    A short training stays in float32 without a trial, and so does one that is compiled, which would be compiled twice.

    Args:
        recipe: what is trained.
        run: where and with what.
        placement: what `place` has made of it.
        world: the processes that train together, which must all have bfloat16.
        num_images: training images.
        recorded: precision that a run to be resumed has on record; None for a new one.
        assembled: gives parts to take trial steps with in a placement.

    Returns:
        The run with the precision, where it was measured; the placement with it; a line that says so with both times.
    """
    if run.precision != AUTO or placement.device.type != "cpu":
        return run, placement, []
    half = dataclasses.replace(placement, autocast_dtype=torch.bfloat16)
    if not all(world.gather(_has_bfloat16())):
        lost = "precision auto: float32, as this processor has no bfloat16, in which the run began"
        return run, placement, [lost] if recorded == "bfloat16" else []
    if recorded is not None:
        return run, half if recorded == "bfloat16" else placement, []
    steps = _steps(recipe, run, num_images)
    if run.compile or not _is_long(recipe, steps):
        return run, placement, []
    plain = _measured(recipe, assembled(placement))
    total = 60 * (recipe.train.minutes or 0) if steps is None else steps * plain
    if total < max(_LEAST_SECONDS, _LEAST_STEPS * plain):
        return run, placement, []
    try:
        rounded = _measured(recipe, assembled(half))
    except (RuntimeError, NotFinite) as error:  # an operation that has no bfloat16
        said = f"precision auto: float32, as bfloat16 failed ({' '.join(str(error).split()):.80})"
        return dataclasses.replace(run, precision="float32"), placement, [said]
    is_faster = rounded <= _FASTER * plain
    precision = "bfloat16" if is_faster else "float32"
    times = f"a step takes {1000 * plain:,.0f} ms in float32, {1000 * rounded:,.0f} ms in bfloat16"
    run = dataclasses.replace(run, precision=precision)
    return run, half if is_faster else placement, [f"precision auto: {precision}; {times}"]


def _steps(recipe: Recipe, run: Run, num_images: int) -> int | None:
    """Optimiser steps of the training; None where its minutes are given."""
    if recipe.train.minutes is not None and run.max_steps is None:
        return None
    steps = total_steps(recipe, -(-num_images // recipe.train.batch_size))
    return steps if run.max_steps is None else min(steps, run.max_steps)


def _is_long(recipe: Recipe, steps: int | None) -> bool:
    """Whether a training may take long enough for trial steps to pay."""
    if steps is None:
        return 60 * (recipe.train.minutes or 0) >= _LEAST_SECONDS
    pixels = steps * recipe.train.batch_size * recipe.data.preprocess.size**2
    return steps >= _LEAST_STEPS and pixels >= _LEAST_PIXELS


def _measured(recipe: Recipe, parts: Parts) -> float:
    """Seconds of a step, the same on all processes."""
    try:
        return parts.trainer.world.from_first(seconds_of_step(parts, recipe.train.epochs, _LONGEST))
    finally:
        parts.close()


def _has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16 (AVX512-BF16, AMX); others take longer with it than without."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
