"""Randomness as a function of numbers, such as (seed, epoch, sample): nothing else may decide what is drawn.

The libraries that augment and mix images draw from the global generators of `random`, NumPy and PyTorch's CPU. These
are set here from a hash of the numbers before anything is drawn, and put back afterwards, so that neither the number
of workers nor the order of the samples changes a tensor, and dropout's own randomness is left alone.
"""

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def digest(*numbers: int) -> bytes:
    """16 bytes that look random, the same on every machine, from integers of 64 bits (BLAKE2b)."""
    return hashlib.blake2b(struct.pack(f"<{len(numbers)}q", *numbers), digest_size=16).digest()


def derived_seed(*numbers: int) -> int:
    """A seed in 0..2**63 - 1 from integers: another one for every other list of numbers."""
    return int.from_bytes(digest(*numbers)[:8], "little") >> 1


def reseed(*numbers: int) -> None:
    """Set the global generators of `random`, NumPy and PyTorch's CPU from integers (about 15 µs)."""
    value = digest(*numbers)
    seed = int.from_bytes(value[:8], "little")
    random.seed(seed)
    np.random.seed(int.from_bytes(value[8:12], "little"))
    # Not torch.manual_seed: it also walks through the accelerators, which takes 20 times as long.
    torch.default_generator.manual_seed(seed >> 1)


@contextmanager
def preserved() -> Iterator[None]:
    """Put the global generators of `random`, NumPy and PyTorch's CPU back as they were, after the block."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Inside the block, what the global generators draw is a function of `numbers`; afterwards they are as before."""
    with preserved():
        reseed(*numbers)
        yield
