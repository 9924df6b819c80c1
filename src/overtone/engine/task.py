"""What the engine asks of a task: the only words the two share."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

from torch import Tensor

R_co = TypeVar("R_co", bound="Report", covariant=True)


class Report(Protocol):
    """What an evaluation found."""

    @property
    def score(self) -> float:
        """The figure that decides which epoch is best; higher is better."""
        ...

    def figures(self) -> Mapping[str, float]:
        """Named numbers for the log, in the order of its columns."""
        ...


class Tally(Protocol[R_co]):
    """What an evaluation counts, batch by batch."""

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch: outputs float32, on the device, as the targets."""
        ...

    def counted(self) -> Any:
        """What was counted, as something that can be sent to another process."""
        ...

    def joined(self, parts: Sequence[Any]) -> Self:
        """A tally of all that the parts have `counted`, in their order."""
        ...

    def report(self, bad: Sequence[str]) -> R_co:
        """The figures, given the images that could not be read."""
        ...


class Task(Protocol[R_co]):
    """The joint between a network, its loss and its figures."""

    def prepare(self, images: Tensor, targets: Tensor, seed: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What is done to a whole training batch before the network sees it, a function of `seed` = (seed, step)."""
        ...

    def loss(self, outputs: Tensor, targets: Tensor, images: Tensor) -> Tensor:
        """Loss summed over the images, which are those that the outputs are of."""
        ...

    def tally(self) -> Tally[R_co]:
        """A new count for an evaluation."""
        ...
