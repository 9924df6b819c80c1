"""Which samples are held out for validation, as a function of their names and a seed alone."""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from overtone.config import Data


def held_out(names: Iterable[str], groups: Sequence[int] | np.ndarray, data: Data) -> np.ndarray:
    """Choose round(n * val_fraction) samples of each group, at least one of two or more: the first by their hashes.

    Which ones depends on `split_seed` and on each sample's group and name, not on other samples' order or the machine.

    Args:
        names: of the samples, relative to their folder.
        groups: class of each sample; 0 for all where there are no classes to keep in proportion.
        data: `split_seed` and `val_fraction`, in (0, 1).

    Returns:
        bool `(n,)`: whether each sample is held out.
    """
    ranked: dict[int, list[tuple[bytes, int]]] = {}
    for position, (name, group) in enumerate(zip(names, groups, strict=True)):
        # One spelling of accented letters: file systems differ in the one they keep.
        spelled = unicodedata.normalize("NFC", name.replace(os.sep, "/"))
        rank = hashlib.sha256(f"{data.split_seed}\n{spelled}".encode(errors="surrogateescape")).digest()
        ranked.setdefault(int(group), []).append((rank, position))
    chosen = np.zeros(sum(map(len, ranked.values())), dtype=bool)
    for samples in ranked.values():
        number = min(max(round(len(samples) * data.val_fraction), 1), len(samples) - 1)
        chosen[[position for _, position in sorted(samples)[:number]]] = True
    return chosen
