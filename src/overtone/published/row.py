"""The record of one published checkpoint, and what holds for all records of one system."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class TestTimePooling:
    """Figures on larger images, with the classifier at every position of a map average-pooled over 7x7."""

    __test__ = False  # the name begins with "Test": not for pytest

    resolution: int
    top1: float
    top5: float
    crop_fraction: float = 1.0


@dataclass(frozen=True)
class Published:
    r"""One published row.

    Attributes:
        family: name of the system.
        architecture: our name of the network; `build` holds the arguments that define it in the family's terms.
        tag: what follows the dot in `architecture.tag`; the resolution stands in it where it is not 224.
        resolution: pixels, the side of the square input at evaluation.
        num_classes: outputs of the classifier of the published file.
        urls: addresses of the file in the order to try; empty when no weights were published.
        git_blob_sha1: sha1 of `"blob <length>\0" + bytes`; what identifies the file, as do
        sha256 and sha256_prefix: of the bytes.
        recipe: name of the training settings.
        interpolation: filter of the resize at evaluation.
        resize: `shorter` side to the size (a centre crop follows), or `squash` the whole image to the square.
        correction: what is wrong with the published figure, in words, where something is.
    """

    family: str
    architecture: str
    tag: str
    build: Mapping[str, Any]
    resolution: int
    license: str
    layout: str | None = None
    name: str | None = None
    params_m: float | None = None
    macs_m: float | None = None
    top1: float | None = None
    top5: float | None = None
    num_classes: int = 1000
    pretraining: str | None = None
    test_time_pooling: TestTimePooling | None = None
    file: str | None = None
    urls: tuple[str, ...] = ()
    git_blob_sha1: str | None = None
    sha256_prefix: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    recipe: str | None = None
    note: str | None = None
    correction: str | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    resize: Literal["shorter", "squash"] = "shorter"

    def __post_init__(self) -> None:
        """Make `build` read-only: a row is a record."""
        object.__setattr__(self, "build", MappingProxyType(dict(self.build)))

    @property
    def full_name(self) -> str:
        """`architecture.tag`, the name that the resolver and timm know."""
        return f"{self.architecture}.{self.tag}"

    @property
    def score(self) -> str | None:
        """The published figure in words."""
        return None if self.top1 is None else f"{self.top1} top-1"

    @property
    def crop_fraction(self) -> float:
        """Share of the resized shorter side that the centre crop keeps."""
        return 1.0 if self.resize == "squash" else 0.875


@dataclass(frozen=True)
class Counting:
    """How the authors counted multiply-adds, where convolutions and linears alone do not give their figures.

    Attributes:
        rule: name of a function of `reproduction.counting`.
        what: what the rule adds, in words; `source`: the evidence for it.
    """

    rule: str
    what: str
    source: str


@dataclass(frozen=True)
class System:
    """What holds for all published rows of one system.

    Attributes:
        family: its name.
        last_digits: worth of one unit of the last digit in its tables, by `params_m` and `macs_m`: 300.79 M has
            10,000, 4.0 G has 100,000,000.
        counting: how its authors counted multiply-adds; None: convolutions and linears alone.
    """

    family: str
    last_digits: Mapping[str, int] = field(default_factory=dict)
    counting: Counting | None = None
