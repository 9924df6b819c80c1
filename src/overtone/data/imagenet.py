"""ImageNet-1K: its classes, the label files of its validation images, and the folders these come in.

A class is its WordNet id (`n01440764`), and output i of every published network is the i-th of the sorted ids. Label
files differ in how they spell that:

| file | one line | class |
|---|---|---|
| `LOC_val_solution.csv` and other tables | `ILSVRC2012_val_00000001,n01751748 111 …` | WordNet id after the name |
| `val.txt` of Caffe | `ILSVRC2012_val_00000001.JPEG 65` | WordNet id or position 0..999 after the name |
| `imagenet_2012_validation_synset_labels.txt` | `n01751748` | WordNet id, in the order of the images |
| `ILSVRC2012_validation_ground_truth.txt` (official) | `490` | ILSVRC2012_ID 1..1000, in the order of the images |
"""

import csv
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo

from overtone.data.folders import has_images, images_in, subfolders
from overtone.data.sources import ImageList
from overtone.errors import OvertoneError, some

NUM_CLASSES = 1000
NUM_VALIDATION = 50_000
NUM_TRAIN = 1_281_167

LABEL_FILES = (
    "LOC_val_solution.csv",
    "ILSVRC2012_validation_ground_truth.txt",
    "imagenet_2012_validation_synset_labels.txt",
    "val.txt",
)
"""Names under which a label file is looked for beside the images."""

SYNSET = re.compile(r"n\d{8}")
_NUMBERED = re.compile(r"_val_0*(\d+)$")


@functools.cache
def synsets() -> tuple[str, ...]:
    """Return the 1000 WordNet ids in the order of the outputs, which is sorted."""
    return tuple(ImageNetInfo("imagenet-1k").label_names())


@functools.cache
def ilsvrc_synsets() -> tuple[str, ...]:
    """Return the 1000 WordNet ids in the order of ILSVRC2012_ID; position 0 is ID 1."""
    text = resources.files("overtone.data").joinpath("ilsvrc2012_ids.txt").read_text(encoding="ascii")
    return tuple(word for line in text.splitlines() if not line.startswith("#") for word in line.split())


@functools.cache
def class_names() -> tuple[str, ...]:
    """Return the 1000 classes in words (`tench, Tinca tinca`), in the order of the outputs; words may occur twice."""
    info = ImageNetInfo("imagenet-1k")
    return tuple(info.index_to_description(index) for index in range(NUM_CLASSES))


def readable(name: str) -> str:
    """Return a class's name in words where it is a WordNet id of ImageNet-1K, any other name unchanged."""
    return _words().get(name, name)


@dataclass(frozen=True)
class Labels:
    """The content of a label file.

    Attributes:
        origin: the file, to be read.
        by_name: WordNet id by the image's name without suffix.
        in_order: WordNet ids by the number of the image, the first being number 1.
    """

    origin: str
    by_name: Mapping[str, str] = field(default_factory=dict)
    in_order: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of labelled images."""
        return len(self.by_name) or len(self.in_order)

    def of(self, names: Sequence[str]) -> list[str]:
        """Return the class of each image.

        Args:
            names: file names; where the file labels by number, the number is the one in the name
                (`ILSVRC2012_val_00000001.JPEG`), or the place among all images sorted by name.

        Raises:
            OvertoneError: an image without a label.
        """
        stems = [Path(name).stem for name in names]
        if self.by_name:
            missing = [name for name, stem in zip(names, stems, strict=True) if stem not in self.by_name]
            if missing:
                raise OvertoneError(f"{self.origin} has no label for {some(missing)}; give the labels of these images")
            return [self.by_name[stem] for stem in stems]
        numbers = [int(found[1]) if (found := _NUMBERED.search(stem)) else None for stem in stems]
        if all(number is not None and 1 <= number <= len(self.in_order) for number in numbers):
            return [self.in_order[number - 1] for number in numbers if number is not None]
        if len(names) != len(self.in_order):
            raise OvertoneError(
                f"{self.origin} labels {len(self.in_order)} images in order and there are {len(names)}, not all named "
                "like ILSVRC2012_val_00000001.JPEG; give the labels of these images, or a table with their names"
            )
        places = {stem: place for place, stem in enumerate(sorted(stems))}
        return [self.in_order[places[stem]] for stem in stems]


def read_labels(path: Path) -> Labels:
    """Read the labels of a file of one of the four kinds (see above).

    Raises:
        OvertoneError: no such file, or a line that is none of these.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise OvertoneError(f"{path} cannot be read: {reason}; give a label file of ImageNet") from error
    rows = [(number, _fields(line)) for number, line in enumerate(lines, 1) if line.strip()]
    if rows and len(rows[0][1]) > 1 and not SYNSET.fullmatch(rows[0][1][1]) and not rows[0][1][1].isdigit():
        rows = rows[1:]  # a heading
    if not rows:
        raise OvertoneError(f"{path} holds no labels; give a label file of ImageNet")
    if len(rows[0][1]) == 1:
        return Labels(str(path), in_order=tuple(_from_ilsvrc(path, number, row) for number, row in rows))
    by_name: dict[str, str] = {}
    for number, row in rows:
        stem, synset = Path(row[0]).stem, _from_position(path, number, row)
        if by_name.setdefault(stem, synset) != synset:
            raise OvertoneError(f"{path}, line {number}: a second label for {row[0]}; each image has one class")
    return Labels(str(path), by_name=by_name)


def find_labels(*folders: Path) -> Path | None:
    """Return the first label file of a known name in some folders."""
    return next((folder / name for folder in folders for name in LABEL_FILES if (folder / name).is_file()), None)


def find_validation(root: Path, labels: Path | None = None) -> ImageList:
    """Find ImageNet's validation images, or part of them, with the 1000 classes as targets.

    Args:
        root: class folders named by WordNet id, or all images in one folder; or a folder with `val/` of either kind.
        labels: label file of the images in one folder; default: one of a known name in the folder or the one above.

    Raises:
        OvertoneError: no images, no label file, folders that are not ImageNet-1K's classes, or an image without label.
    """
    if not root.is_dir():
        raise OvertoneError(f"data.root {root} is not a folder; give ImageNet's validation images")
    below = subfolders(root)
    if "val" in below and not has_images(root):
        return find_validation(below["val"], labels or find_labels(root))
    if has_images(root):
        return _flat(root, labels)
    others = sorted(set(below) - set(synsets()))
    if not below or others:
        held = f"folders that are no WordNet ids of ImageNet-1K ({some(others)})" if others else "no images"
        raise OvertoneError(
            f"{root} has {held}; give the validation images in one folder with a label file, or in class folders such "
            "as n01440764/ (overtone data prepare-imagenet makes them)"
        )
    found = images_in(below, root)
    position = {synset: index for index, synset in enumerate(synsets())}
    pairs = [(Path(image.path), position[name]) for name in sorted(found) for image in found[name]]
    if not pairs:
        raise OvertoneError(f"{root} has class folders but no image in them; give ImageNet's validation images")
    return _image_list(pairs, f"class folders of {root}")


def _flat(root: Path, labels: Path | None) -> ImageList:
    labels = labels or find_labels(root, root.parent)
    if labels is None:
        raise OvertoneError(
            f"{root} has images in one folder, and no label file beside them; give one with --data.labels "
            f"({', '.join(LABEL_FILES[:2])}, …)"
        )
    found = images_in({"": root}, root)[""]
    position = {synset: index for index, synset in enumerate(synsets())}
    classes = read_labels(labels).of([image.name for image in found])
    pairs = [(Path(image.path), position[synset]) for image, synset in zip(found, classes, strict=True)]
    return _image_list(pairs, f"{root} with the labels of {labels}")


def _image_list(pairs: list[tuple[Path, int]], origin: str) -> ImageList:
    return ImageList(synsets(), tuple(path for path, _ in pairs), tuple(target for _, target in pairs), origin)


def _fields(line: str) -> list[str]:
    """Split a line into words; of a table's second column the first word, where Kaggle's boxes follow the class."""
    if "," not in line:
        return line.split()
    cells = next(csv.reader([line]))
    return [cells[0].strip(), (cells[1].split() or [""])[0]]


def _from_ilsvrc(path: Path, number: int, row: list[str]) -> str:
    """Read the class in a line that has nothing else: a WordNet id or an ILSVRC2012_ID."""
    word = row[0]
    if word in _words():
        return word
    if len(row) == 1 and word.isdigit() and 1 <= int(word) <= NUM_CLASSES:
        return ilsvrc_synsets()[int(word) - 1]
    hint = "; positions from 0 need the image's name before them" if word == "0" else ""
    raise OvertoneError(
        f"{path}, line {number}: {' '.join(row)!r} is neither a WordNet id of ImageNet-1K nor an ILSVRC2012_ID "
        f"from 1 to 1000{hint}; give another label file"
    )


def _from_position(path: Path, number: int, row: list[str]) -> str:
    """Read the class in a line that begins with the image's name: a WordNet id or a position among the sorted ones."""
    word = row[1] if len(row) > 1 else ""
    if word in _words():
        return word
    if word.isdigit() and int(word) < NUM_CLASSES:
        return synsets()[int(word)]
    raise OvertoneError(
        f"{path}, line {number}: {word!r} is neither a WordNet id of ImageNet-1K nor a position from 0 to 999; "
        "give another label file"
    )


@functools.cache
def _words() -> dict[str, str]:
    return dict(zip(synsets(), class_names(), strict=True))
