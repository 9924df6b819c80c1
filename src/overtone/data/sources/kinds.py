"""The kinds of sources, and which of them some data is of."""

from typing import Protocol

from overtone.config import Data
from overtone.data.sources.source import Part, Source, Splits
from overtone.errors import OvertoneError


class SourceKind(Protocol):
    """A form that labelled data comes in.

    Attributes:
        target: the key of a record that holds what is to be learned, such as `label`.
    """

    target: str

    def matches(self, data: Data) -> bool:
        """Whether the data is of this form, by what is quickly seen."""
        ...

    def splits(self, data: Data) -> Splits:
        """The samples to train on and to validate on.

        Raises:
            OvertoneError: there is nothing to train on, or it is not as the form has it.
        """
        ...

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The samples to evaluate on.

        Args:
            data: where they are.
            part: which part of them.
            trained_on: the data that the network's training held part of out by a seed; None: it did not.
        """
        ...


_KINDS: list[SourceKind] = []


def register(kind: SourceKind) -> None:
    """Make a kind of source known; the newest is asked first."""
    _KINDS.insert(0, kind)


def unregister(kind: SourceKind) -> None:
    """Forget a kind of source."""
    _KINDS.remove(kind)


def open_splits(data: Data, target: str) -> Splits:
    """The training and validation samples of some data for tasks that learn `target`.

    Raises:
        OvertoneError: no kind of source reads it so, or it is not as its form has it.
    """
    return _kind_of(data, target).splits(data)


def open_evaluation(data: Data, target: str, part: Part = "auto", trained_on: Data | None = None) -> Source:
    """The samples of some data to evaluate on; see `SourceKind.evaluation`.

    Raises:
        OvertoneError: as `open_splits`.
    """
    return _kind_of(data, target).evaluation(data, part, trained_on)


def _kind_of(data: Data, target: str) -> SourceKind:
    kind = next((kind for kind in _KINDS if kind.target == target and kind.matches(data)), None)
    if kind is None:
        known = ", ".join(sorted({kind.target for kind in _KINDS}))
        raise OvertoneError(
            f"data.root {data.root} is of no form that gives a {target} for each image (sources give: {known}); "
            "see docs/data.md for the forms that each task reads"
        )
    return kind
