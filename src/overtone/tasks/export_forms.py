"""How networks are exported that do not take a classifier's square crops; see `tasks.task.Task.export_form`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from torch import Tensor, nn

from overtone.config import Preprocess


@dataclass(frozen=True)
class ExportForm:
    """The form of a network that is exported unchanged, as a map from normalised images to its outputs.

    Attributes:
        size: pixels, side of the square that an export of one size takes.
        inputs: from Pillow's image in RGB to float32 (3, H, W): what an export is verified with.
        settings: those of the recipe's task as plain values, as evaluation and prediction with the export need them.
    """

    size: int
    inputs: Callable[[Any], Tensor]
    settings: Mapping[str, Any]


class GraphForm(Protocol):
    """The form of a network of which another graph is exported, whose outputs are only a part of the answer.

    Attributes:
        outputs: names of what the graph returns, whose first dimension is the image.
        preprocess: of an export; its size is the longer side of the input.
        size: height and width of the input, pixels.
        num_classes: that the outputs are about.
        settings: JSON values that an export keeps as `settings.form`, for `read_form`.
    """

    outputs: tuple[str, ...]
    preprocess: Preprocess
    size: tuple[int, int]
    num_classes: int

    @property
    def settings(self) -> Mapping[str, Any]: ...  # noqa: D102

    def for_outputs(self, *, dynamic: bool) -> Self:
        """The form for a runtime that has, or has not, outputs whose shapes depend on the image."""
        ...

    def for_images(self, sizes: Sequence[tuple[int, int]]) -> Self:
        """The form for images of about these heights and widths, where nobody has chosen the size of the input."""
        ...

    def graph(self, network: nn.Module) -> nn.Module:
        """What is exported of a network: from one image (1, 3, height, width) to the outputs."""
        ...

    def inputs(self, image: Any) -> Tensor:
        """Pillow's image in RGB as the graph takes it, float32 (3, height, width), without the batch dimension."""
        ...

    def view(self, image: Any) -> Any:
        """In evaluation, an image as `Task.pipeline` takes it from `transform`."""
        ...

    def answer(self, call: Callable[[np.ndarray], Sequence[np.ndarray]], *inputs: Any) -> Any:
        """What the network itself returns for inputs, by calls of the graph in a runtime."""
        ...

    def compare(
        self, references: Sequence[Any], found: Sequence[Any], precision: str
    ) -> tuple[dict[str, Any], list[str]]:
        """Of answers of the network and of an export: what `model.json` keeps, and which bounds do not hold.

        The first has `largest`, `rms`, `same_decisions` and `agreement`, as `deployment.parity.Parity`.
        """
        ...


@runtime_checkable
class ReadsForm(Protocol):
    """A task whose `export_form` is a `GraphForm`."""

    @staticmethod
    def read_form(values: Any, preprocess: Preprocess) -> GraphForm:
        """The form whose `settings` an export kept; raises `OvertoneError` for values that none has."""
        ...
