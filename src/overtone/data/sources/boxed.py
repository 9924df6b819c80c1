"""Image files with any number of objects each: boxes, labels and outlines, packed into arrays."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from overtone.data.sources.image_list import ImageList, Paths
from overtone.data.sources.source import Record
from overtone.errors import OvertoneError, some

_LEAST_SIDE = 32


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image.

    Attributes:
        boxes: float32 `(N, 4)`: left, top, right, bottom, pixels from the corner of the image.
        labels: int64 `(N,)`, positions in the source's labels.
        crowd: bool `(N,)`: an area with many objects, which is neither learned nor missed.
        difficult: bool `(N,)`: marked as such by VOC.
        areas: float64 `(N,)`: pixels, of the outline where COCO gives it, else of the box.
        outlines: packed by `data.segments`, empty bytes for none; None where no object of the source has one.
        size: height and width of the image that was marked.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    areas: np.ndarray
    outlines: tuple[bytes, ...] | None
    size: tuple[int, int]

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.boxes)

    def __eq__(self, other: object) -> bool:
        """Whether all of it is the same, bit for bit."""
        if not isinstance(other, Objects):
            return NotImplemented
        arrays = ("boxes", "labels", "crowd", "difficult", "areas")
        same = all(getattr(self, name).tobytes() == getattr(other, name).tobytes() for name in arrays)
        return same and (self.outlines, self.size) == (other.outlines, other.size)

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Marked:
    """An image while its annotations are read.

    Attributes:
        name: below the folder of images, with `/`.
        path: the file.
        size: height and width; None until they are known.
        objects: label, box (left, top, right, bottom), and what else is known of each object.
    """

    name: str
    path: Path
    size: tuple[int, int] | None = None
    objects: list["Noted"] = field(default_factory=list)


@dataclass(frozen=True)
class Noted:
    """One annotated object as it is read.

    Attributes:
        label: name of its class.
        box: left, top, right, bottom, pixels.
        crowd: see `Objects`.
        difficult: see `Objects`.
        area: of the outline; None: that of the box.
        outline: packed by `data.segments`.
    """

    label: str
    box: tuple[float, float, float, float]
    crowd: bool = False
    difficult: bool = False
    area: float | None = None
    outline: bytes = b""


@dataclass
class Faults:
    """What is wrong with annotations: kinds of faults with the names of what has them."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, name: str) -> None:
        """Note that something has a fault of a kind."""
        self.found.setdefault(kind, []).append(name)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.found)

    def __str__(self) -> str:
        """Each kind with its number and the first names."""
        return "; ".join(f"{len(names)} {kind} ({some(set(names), 3)})" for kind, names in sorted(self.found.items()))


class BoxedImages:
    """Image files with objects: a source of records with `image` and `boxes` (`Objects`).

    Args:
        labels: names of the classes.
        images: the images with their objects, whose labels are among the names, and whose sizes are known.
        origin: where they come from, one phrase for messages.
        root: folder that the names of `entry` are relative to.
        faults: what was left out, for messages.
    """

    def __init__(
        self,
        labels: Sequence[str],
        images: Sequence[Marked],
        origin: str,
        root: Path | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.labels, self.origin, self.root, self.faults = tuple(labels), origin, root, faults or Faults()
        position = {name: at for at, name in enumerate(self.labels)}
        objects = [noted for image in images for noted in image.objects]
        self.paths, self.names = Paths(image.path for image in images), Paths(image.name for image in images)
        self._ends = np.cumsum([len(image.objects) for image in images], dtype=np.int64)
        self._sizes = np.array([image.size for image in images], dtype=np.int64).reshape(-1, 2)
        boxes = np.array([noted.box for noted in objects], dtype=np.float64).reshape(-1, 4)
        self._boxes = boxes.astype(np.float32)
        self._labels = np.array([position[noted.label] for noted in objects], dtype=np.int64)
        self._crowd = np.array([noted.crowd for noted in objects], dtype=bool)
        self._difficult = np.array([noted.difficult for noted in objects], dtype=bool)
        own = (boxes[:, 2:] - boxes[:, :2]).prod(1).tolist()
        areas = (box if noted.area is None else noted.area for noted, box in zip(objects, own, strict=True))
        self._areas = np.fromiter(areas, dtype=np.float64, count=len(objects))
        self._outlines = b"".join(noted.outline for noted in objects)
        self._outline_ends = np.cumsum([len(noted.outline) for noted in objects], dtype=np.int64)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    @property
    def has_outlines(self) -> bool:
        """Whether any object has an outline."""
        return bool(self._outlines)

    def name(self, position: int) -> str:
        """The file."""
        return str(self.paths[position])

    def read(self, position: int) -> Record:
        """The file and its objects; the file is not opened."""
        return {"image": self.paths[position], "boxes": self.objects(position)}

    def objects(self, position: int) -> Objects:
        """The objects of an image."""
        first = int(self._ends[position - 1]) if position else 0
        rows = slice(first, int(self._ends[position]))
        outlines = tuple(self._outline(at) for at in range(rows.start, rows.stop)) if self.has_outlines else None
        height, width = self._sizes[position].tolist()
        parts = (self._boxes, self._labels, self._crowd, self._difficult, self._areas)
        return Objects(*(part[rows] for part in parts), outlines=outlines, size=(height, width))

    def _outline(self, at: int) -> bytes:
        start = int(self._outline_ends[at - 1]) if at else 0
        return self._outlines[start : int(self._outline_ends[at])]

    def entry(self, position: int) -> tuple[str, str, int]:
        """Name below `root`, a digest of the objects, and size in bytes (-1 where the file is gone)."""
        name, _, size = ImageList(("",), [self.paths[position]], [0], root=self.root).entry(0)
        objects = self.objects(position)
        digest = hashlib.sha256("\n".join(self.labels[label] for label in objects.labels).encode())
        for part in (objects.boxes, objects.crowd, objects.difficult, objects.areas):
            digest.update(part.tobytes())
        digest.update(b"\0".join(objects.outlines or ()))
        return name, f"{len(objects)} objects {digest.hexdigest()[:16]}", size

    def counts(self) -> tuple[int, ...]:
        """Number of objects of each class."""
        return tuple(np.bincount(self._labels, minlength=len(self.labels)).tolist())

    def is_wide(self) -> np.ndarray:
        """Whether each image is wider than high, bool `(N,)`."""
        return self._sizes[:, 1] > self._sizes[:, 0]

    def usable(self) -> list[int]:
        """Positions of the images with an object that is no crowd, and sides of at least 32 pixels."""
        learned = np.concatenate(([0], np.cumsum(~self._crowd)))
        numbers = np.diff(learned[self._ends], prepend=0)
        return np.flatnonzero((numbers > 0) & (self._sizes.min(1, initial=1 << 30) >= _LEAST_SIDE)).tolist()

    def part(self, positions: Iterable[int], origin: str) -> "BoxedImages":
        """The images at some positions."""
        return BoxedImages(self.labels, [self.marked(int(at)) for at in positions], origin, self.root, self.faults)

    def relabelled(self, labels: Sequence[str]) -> "BoxedImages":
        """The same images by other labels, which hold all of theirs.

        Raises:
            OvertoneError: one of theirs is not among them.
        """
        unknown = set(self.labels) - set(labels)
        if unknown:
            raise OvertoneError(f"{self.origin} has classes that are not asked for: {some(unknown)}")
        images = [self.marked(at) for at in range(len(self))]
        return BoxedImages(labels, images, self.origin, self.root, self.faults)

    def marked(self, position: int) -> Marked:
        """An image as it was when its annotations were read."""
        first = int(self._ends[position - 1]) if position else 0
        noted = [
            Noted(
                self.labels[self._labels[at]],
                tuple(map(float, self._boxes[at])),  # type: ignore[arg-type]
                bool(self._crowd[at]),
                bool(self._difficult[at]),
                float(self._areas[at]),
                self._outline(at),
            )
            for at in range(first, int(self._ends[position]))
        ]
        height, width = self._sizes[position].tolist()
        return Marked(str(self.names[position]), self.paths[position], (height, width), noted)
