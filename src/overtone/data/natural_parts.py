"""The parts that some data has by itself, before any seed holds part of it out."""

import dataclasses

from overtone.config import Data
from overtone.data.sources import Source, open_splits


def natural_parts(data: Data, target: str) -> dict[str, Source]:
    """The samples of `train`, `val` and `test` where the data says which is which; else all of them as `train`.

    Raises:
        OvertoneError: no source reads the data for this target, or it is not as its form has it.
    """
    splits = open_splits(dataclasses.replace(data, val_fraction=0.0), target)
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    return {part: source for part, source in parts.items() if source is not None and len(source)}
