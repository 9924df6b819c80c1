"""The fixed filters of harmonic networks: a two-dimensional DCT-II bank with unit L1 norms (arXiv:2001.06570)."""

import functools

import numpy as np
import torch
from torch import Tensor


@functools.lru_cache(maxsize=64)
def _bank_values(kernel_size: int, level: int | None) -> np.ndarray:
    line = np.cos(np.pi * (np.arange(kernel_size) + 0.5) * np.arange(kernel_size)[:, None] / kernel_size)
    filters = [
        np.outer(line[i], line[j])
        for i in range(kernel_size)
        for j in range(kernel_size)
        if level is None or i + j < level
    ]
    return np.stack([f / np.abs(f).sum() for f in filters])


def dct_bank(
    kernel_size: int,
    level: int | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The DCT-II filter bank of arXiv:2001.06570, section 3.

    Filter (i, j) is cos(pi (x + 1/2) i / k) cos(pi (y + 1/2) j / k) divided by its L1 norm, x the row and y the
    column; i is the outer and j the inner index. The values are computed in float64 and rounded once to `dtype`.

    Args:
        kernel_size: k, at least 1.
        level: keep only the filters with i + j < level; None keeps all k * k.
        device: where the bank is put.
        dtype: its type.

    Returns:
        The filters, (F, k, k).

    Raises:
        ValueError: `kernel_size` or `level` is below 1.
    """
    if kernel_size < 1 or (level is not None and level < 1):
        raise ValueError(f"a DCT bank needs kernel_size >= 1 and level >= 1 or None, got {kernel_size} and {level}")
    return torch.tensor(_bank_values(kernel_size, level), device=device, dtype=dtype)
