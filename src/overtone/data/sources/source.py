"""What a source of samples is: labels, a length, names for messages, and records of raw bytes and targets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, runtime_checkable

from PIL import Image

Part = Literal["auto", "train", "val", "test", "all"]


class Record(TypedDict, total=False):
    """One undecoded sample: the image and what is known about it.

    A source fills in what its kind of targets needs; `target` of a task names the key that it reads.
    """

    image: Path | bytes | Image.Image
    """The image: a file, the bytes of one, or Pillow's."""
    name: str
    """Display name of an image that is no file, where a report shows it."""
    label: int
    """Position of the image's one label in the source's `labels`."""
    labels: Sequence[int]
    """Positions of all of the image's labels."""
    mask: Any
    """The class of every pixel, not decoded: a `data.masks.Mask`."""
    boxes: Any
    """The objects of a detection: `data.sources.boxed.Objects`."""


@runtime_checkable
class Source(Protocol):
    """Samples by position; it is sent to the processes that read, so it must be picklable and small.

    One with a class for each sample may have `targets`, int64 `(N,)`, which balanced sampling goes by.

    Attributes:
        labels: class names, in the order of a network's outputs.
        origin: where the samples come from, one phrase for messages.
    """

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names."""
        ...

    @property
    def origin(self) -> str:
        """Where the samples come from."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def name(self, position: int) -> str:
        """Display name of a sample: a path, or shard#key."""
        ...

    def read(self, position: int) -> Record:
        """The record of a sample.

        Raises:
            BadImage: it cannot be read.
        """
        ...


def entries(source: Source) -> Iterator[tuple[str, str, int]]:
    """Name, target and size of every sample: what `train` compares when a run is resumed.

    A source may give them by a method `entry(position)`; of any other the names are compared.
    """
    entry = getattr(source, "entry", None)
    for position in range(len(source)):
        yield (source.name(position), "", 0) if entry is None else entry(position)


@dataclass(frozen=True)
class Splits:
    """What is trained on, what is held out for validation, and what is measured once at the end.

    Attributes:
        train: training samples.
        val: validation samples, with the same labels in the same order; may be empty.
        origin: how the two were chosen, one phrase for messages.
        seeded: whether `val` was chosen by a seed rather than by the data's own folders or column.
        test: samples that no choice depends on, measured after the training; None where there are none.
    """

    train: Source
    val: Source
    origin: str
    seeded: bool = False
    test: Source | None = None
