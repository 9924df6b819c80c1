"""Benchmarks of segmentation as they are unpacked: ADE20K, Pascal VOC, Cityscapes.

| layout | images | masks |
|---|---|---|
| ADE20K (ADEChallengeData2016) | `images/training`, `images/validation` | `annotations/…`: 0 none, k is class k - 1 |
| Pascal VOC (VOCdevkit/VOC2012) | `JPEGImages`, lists in `ImageSets/Segmentation` | `SegmentationClass`, 255 ignored |
| Cityscapes | `leftImg8bit/train/<city>/…_leftImg8bit.png` | `gtFine/…_gtFine_labelIds.png`, 19 of 34 ids |
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from overtone.config import Data
from overtone.data.folders import images_in
from overtone.data.masks import IGNORED, ClassList
from overtone.data.opening import read_file
from overtone.data.sources.masks import MaskedImages, listed_images, mask_evaluation, mask_splits
from overtone.data.sources.source import Part, Source, Splits
from overtone.errors import OvertoneError

Pairs = list[tuple[Path, Path]]

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
# id in the files: class, of the 19 that are evaluated (Cordts et al. 2016, arXiv:1604.01685)
CITYSCAPES_CLASSES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
_CITYSCAPES_IDS = 34


class Benchmark:
    """A benchmark with a layout of its own.

    Args:
        classes: of its masks.
        root_of: the folder that holds the benchmark, in or at a folder; None where it is not there.
        pairs_of: images and masks of each part that is there.
    """

    target = "mask"

    def __init__(
        self,
        classes: Callable[[], ClassList],
        root_of: Callable[[Path], Path | None],
        pairs_of: Callable[[Path], Mapping[str, Pairs]],
    ) -> None:
        self._classes, self._root_of, self._pairs_of = classes, root_of, pairs_of

    def matches(self, data: Data) -> bool:
        """Whether the folder holds the benchmark."""
        return data.table is None and data.root is not None and self._root_of(data.root) is not None

    def splits(self, data: Data) -> Splits:
        """The benchmark's own parts."""
        return mask_splits(self._read(data), data)

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The images of a part."""
        return mask_evaluation(self._read(data), data, part, trained_on)

    def _read(self, data: Data) -> dict[str, MaskedImages]:
        root = None if data.root is None else self._root_of(data.root)
        assert root is not None
        parts = {part: pairs for part, pairs in self._pairs_of(root).items() if pairs}
        if not parts:
            raise OvertoneError(f"{root} holds no images; unpack the benchmark's images and masks there")
        classes = self._classes()
        return {part: listed_images(pairs, classes, part, root) for part, pairs in parts.items()}


def ade20k_classes() -> ClassList:
    """The 150 classes of the scene parsing benchmark (Zhou et al. 2017): value k of a mask is class k - 1, 0 none."""
    names = resources.files("overtone.data").joinpath("ade20k_classes.txt").read_text(encoding="utf-8").splitlines()
    indices = {0: IGNORED, IGNORED: IGNORED} | {index + 1: index for index in range(len(names))}
    return ClassList(tuple(names), indices)


def voc_classes() -> ClassList:
    """The 20 classes of Pascal VOC and the background (Everingham et al. 2010)."""
    return ClassList(VOC_CLASSES, {IGNORED: IGNORED} | {i: i for i in range(len(VOC_CLASSES))})


def cityscapes_classes() -> ClassList:
    """The 19 classes of Cityscapes that are trained and evaluated; the other ids are ignored."""
    known = {identity: index for index, identity in enumerate(CITYSCAPES_CLASSES)}
    indices = {identity: known.get(identity, IGNORED) for identity in (*range(_CITYSCAPES_IDS), IGNORED)}
    return ClassList(tuple(CITYSCAPES_CLASSES.values()), indices)


def _ade20k_root(root: Path) -> Path | None:
    candidates = (root, root / "ADEChallengeData2016")
    needed = ("images/training", "annotations/training", "images/validation", "annotations/validation")
    return next((path for path in candidates if all((path / name).is_dir() for name in needed)), None)


def _ade20k_pairs(root: Path) -> dict[str, Pairs]:
    found: dict[str, Pairs] = {}
    for part, name in (("train", "training"), ("val", "validation")):
        images = [Path(image.path) for image in images_in({"": root / "images" / name})[""]]
        found[part] = [(image, root / "annotations" / name / f"{image.stem}.png") for image in images]
    return found


def _voc_root(root: Path) -> Path | None:
    candidates = (root, *(root / "VOCdevkit" / name for name in ("VOC2012", "VOC2007")), root / "VOC2012")
    needed = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
    return next((path for path in candidates if all((path / name).is_dir() for name in needed)), None)


def _voc_pairs(root: Path) -> dict[str, Pairs]:
    found: dict[str, Pairs] = {}
    for part in ("train", "val"):
        listed = root / "ImageSets" / "Segmentation" / f"{part}.txt"
        try:
            names: Sequence[str] = read_file(listed, 10_000_000).decode().split()
        except (OSError, ValueError) as error:
            raise OvertoneError(
                f"{listed} cannot be read: {error}; put the benchmark's list of images there"
            ) from error
        found[part] = [
            (root / "JPEGImages" / f"{name}.jpg", root / "SegmentationClass" / f"{name}.png") for name in names
        ]
    return found


def _cityscapes_root(root: Path) -> Path | None:
    return root if (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir() else None


def _cityscapes_pairs(root: Path) -> dict[str, Pairs]:
    found: dict[str, Pairs] = {}
    for part in ("train", "val"):  # the masks of the test images are not public
        folder = root / "leftImg8bit" / part
        images = images_in({"": folder})[""] if folder.is_dir() else []
        found[part] = [
            (Path(image.path), root / "gtFine" / part / image.name.replace("leftImg8bit", "gtFine_labelIds"))
            for image in images
            if "_leftImg8bit." in image.name
        ]
    return found


BENCHMARKS = (
    Benchmark(ade20k_classes, _ade20k_root, _ade20k_pairs),
    Benchmark(voc_classes, _voc_root, _voc_pairs),
    Benchmark(cityscapes_classes, _cityscapes_root, _cityscapes_pairs),
)
