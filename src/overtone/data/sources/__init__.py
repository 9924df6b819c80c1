"""Where samples come from: one class per kind of source, chosen by what `data` points to.

A source serves the tasks that read its kind of target. `open_splits` and `open_evaluation` ask each registered kind in
turn whether the data is of its form, so a new source is one class and one `register`.
"""

from overtone.config import Data
from overtone.data.decoding import BadImage
from overtone.data.sources import class_folders
from overtone.data.sources.box_rows import BoxTables
from overtone.data.sources.boxed import BoxedImages, Objects
from overtone.data.sources.boxes import BoxData
from overtone.data.sources.files import find_images
from overtone.data.sources.image_list import ImageList
from overtone.data.sources.image_tables import ImageTables
from overtone.data.sources.kinds import SourceKind, open_evaluation, open_splits, register, unregister
from overtone.data.sources.mask_coco import CocoMasks
from overtone.data.sources.mask_layouts import BENCHMARKS
from overtone.data.sources.masks import MaskedImages, MaskFolders
from overtone.data.sources.memory import ImageLike, MemoryImages
from overtone.data.sources.shards import ShardImages, Shards
from overtone.data.sources.source import Part, Record, Source, Splits, entries
from overtone.data.sources.table import ClassTable, TaggedImages, TagTable

__all__ = [
    "BadImage",
    "BoxedImages",
    "ImageLike",
    "ImageList",
    "MaskedImages",
    "MemoryImages",
    "Objects",
    "Part",
    "Record",
    "ShardImages",
    "Source",
    "SourceKind",
    "Splits",
    "TaggedImages",
    "entries",
    "find_images",
    "open_evaluation",
    "open_splits",
    "register",
    "unregister",
]


class ClassFolders:
    """One folder per class; see `data.sources.class_folders`."""

    target = "label"

    def matches(self, data: Data) -> bool:
        """Whether the data is a folder: without anything else to go by, of class folders."""
        return data.table is None

    def splits(self, data: Data) -> Splits:
        """The training and the validation images."""
        return class_folders.find_splits(data)

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The images to evaluate on."""
        allow = data.allow_empty_classes or (trained_on is not None and trained_on.allow_empty_classes)
        return class_folders.find_evaluation(data.root, part, trained_on, allow_empty_classes=allow)


for _kind in (
    ClassFolders(),
    ClassTable(),
    TagTable(),
    MaskFolders(),
    CocoMasks(),
    *BENCHMARKS,
    BoxData(),
    *map(ImageTables, ("label", "labels", "mask")),
    BoxTables(),
    *map(Shards, ("label", "labels", "mask", "boxes")),
):
    register(_kind)
