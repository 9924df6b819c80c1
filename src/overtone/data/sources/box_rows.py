"""Parquet or Arrow files with images and their objects in them, as the Hub's detection datasets are kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from overtone.config import Data
from overtone.data.decoding import BadImage
from overtone.data.sources.arrow_columns import names_of
from overtone.data.sources.box_cells import BOXES, CLASSES, OBJECTS, cells_of, noted
from overtone.data.sources.boxed import BoxedImages, Faults, Marked
from overtone.data.sources.boxes import within
from overtone.data.sources.image_size import image_size
from overtone.data.sources.image_tables import ImageTable, ImageTables, positions_by_part, read_rows
from overtone.data.sources.parts import evaluation_of, splits_of
from overtone.data.sources.source import Part, Record, Source, Splits
from overtone.errors import OvertoneError, some


class BoxedRows:
    """Images in rows with objects: a source of records with `image` (bytes), `name` and `boxes` (`Objects`).

    Args:
        rows: the images.
        boxes: the objects of the same images.
        origin: where they come from, one phrase for messages.
    """

    def __init__(self, rows: ImageTable, boxes: BoxedImages, origin: str) -> None:
        self.rows, self.boxes, self.origin = rows, boxes, origin
        self.labels, self.window, self.groups = boxes.labels, rows.window, rows.groups
        self.counts, self.is_wide, self.usable = boxes.counts, boxes.is_wide, boxes.usable
        self.has_outlines, self.name = False, rows.name

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    def read(self, position: int) -> Record:
        """The bytes of the image and its objects.

        Raises:
            BadImage: there are none, or the file can no longer be read.
        """
        record = self.rows.read(position)
        return {"image": record.get("image", b""), "name": self.name(position), "boxes": self.boxes.objects(position)}

    def entry(self, position: int) -> tuple[str, str, int]:
        """File name and row, and a digest of the objects."""
        return self.rows.entry(position)[0], self.boxes.entry(position)[1], 0

    def part(self, positions: Any, origin: str) -> "BoxedRows":
        """The images at some positions."""
        return BoxedRows(self.rows.part(positions, origin), self.boxes.part(positions, origin), origin)

    def relabelled(self, labels: Sequence[str]) -> "BoxedRows":
        """The same images by other labels, which hold all of theirs."""
        return BoxedRows(self.rows, self.boxes.relabelled(labels), self.origin)


class BoxTables:
    """Parquet files with images and objects in them, or a folder of `datasets`' `save_to_disk`."""

    target = "boxes"

    def matches(self, data: Data) -> bool:
        """Whether these are such files, by their columns."""
        return ImageTables("").matches(data)

    def splits(self, data: Data) -> Splits:
        """By the names of files or folders; where none says val, a part is held out."""
        everything = read_boxed_rows(data)
        parts = _parts(everything, data)
        if data.drop_empty and "train" in parts:
            parts["train"] = parts["train"].part(parts["train"].usable(), parts["train"].origin)
        return splits_of(parts, data, everything.origin)

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The images of a part, chosen as of folders."""
        everything = read_boxed_rows(data)
        return evaluation_of(_parts(everything, data), data, part, trained_on, lambda: everything)


def _parts(everything: BoxedRows, data: Data) -> dict[str, BoxedRows]:
    parts = positions_by_part(everything.rows, data)
    return {part: everything.part(at, f"{part} {everything.origin}") for part, at in parts.items()}


def read_boxed_rows(data: Data) -> BoxedRows:
    """All images of such files with their objects.

    Raises:
        OvertoneError: there are none, no columns of boxes, or an object that is none.
    """
    images = read_rows(data, "")
    place, schema = str(data.table or data.root), images.schema
    columns = _columns(schema, data, place)
    cells, key = cells_of({name: images.values(name) for name in columns}, place)
    sizes = _sizes(images, data)
    names = names_of(schema, columns[-1])
    objects, form = noted(cells, key, sizes, names, place)
    faults, marked = Faults(), []
    for at, (size, found) in enumerate(zip(sizes, objects, strict=True)):
        image = Marked(images.name(at), Path(images.name(at)), size)
        image.objects = [kept for one in found if (kept := within(one, image, faults)) is not None]
        marked.append(image)
    labels = sorted({*names, *(one.label for image in marked for one in image.objects)})
    if not labels:
        raise OvertoneError(f"{place} has no object in any image; see docs/data.md for the columns")
    origin = f"rows of {place} with boxes {form}" + (f"; left out: {faults}" if faults else "")
    return BoxedRows(images, BoxedImages(labels, marked, origin, faults=faults), origin)


def _columns(schema: Any, data: Data, place: str) -> list[str]:
    """The column of objects, or those of boxes and of classes."""
    chosen = data.label_column
    objects = chosen if chosen in schema.names else next((name for name in OBJECTS if name in schema.names), None)
    if objects is not None and "struct" in str(schema.field(objects).type):
        return [objects]
    pair = [next((name for name in names if name in schema.names), None) for names in (BOXES, CLASSES)]
    if objects is not None and chosen == objects:
        pair[1] = objects
    if None in pair:
        raise OvertoneError(
            f"{place} has no column of objects (objects), nor of boxes (bbox) and classes (category); it has "
            f"{some(schema.names)}: name the one of objects with --data.label-column"
        )
    return [str(name) for name in pair]


def _sizes(images: ImageTable, data: Data) -> list[tuple[int, int]]:
    """Height and width of each image: of columns of these names, else of the images' headers."""
    if data.preprocess.exif == "ignore" and {"width", "height"} <= set(images.schema.names):
        sizes = zip(images.values("height"), images.values("width"), strict=True)
        return [(int(height or 0), int(width or 0)) for height, width in sizes]
    return [_size(images, at, data) for at in range(len(images))]


def _size(images: ImageTable, at: int, data: Data) -> tuple[int, int]:
    try:
        content: Any = images.read(at).get("image")
    except BadImage:
        return 0, 0
    return image_size(content, data.preprocess.exif)
