"""The record of one published detection or segmentation network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

DETECTION_PROTOCOL = (
    "COCO val2017; one image at a time, its shorter side 800 and its longer at most 1333 pixels, padded to multiples "
    "of 32; COCO's average precision of 100 detections at IoU 0.50 to 0.95"
)
SEGMENTATION_PROTOCOL = (
    "ADE20K validation; resized into {longer}x{shorter} pixels with its ratio kept, windows of {crop} every {stride} "
    "pixels whose logits are averaged, evaluated at the image's own size over the 150 classes; several scales: 0.5, "
    "0.75, 1, 1.25, 1.5, 1.75, each also mirrored, probabilities averaged"
)


_NUM_CLASSES = {"coco2017": 80, "ade20k": 150}
_SHORTER_SIDE = 800  # pixels, of a detection


@dataclass(frozen=True)
class PublishedDense:
    """One published detection or segmentation checkpoint.

    Attributes:
        name: ours: method and backbone.
        tag: `name.tag` is the checkpoint.
        task: what it does.
        dataset: what it was trained and measured on.
        backbone: its architecture.
        filter_sizes: stored sizes of the global filters of stages 3 and 4; none without them.
        params_m: published parameters, millions; `params`: as computed.
        gflops: published multiply-adds, 1e9, at `flops_input` (channels, height, width); `flops`: as computed.
        schedule: as published.
        urls: where the file is; `earlier_urls`: where it was, `start_url`: where the starting weights are.
        start: file name of the starting weights.
        config: name of its configuration.
        drop_path, lr, layer_decay: of the training.
        box_ap, mask_ap: percent, of a detection.
        miou, miou_multi_scale: percent, of a segmentation.
        crop, stride: side of the crops and windows and their distance, pixels, of a segmentation.
        layer_groups_depth, clip_grad: of the training of a segmentation.
        doubts: what in the publication contradicts itself or could not be verified.
    """

    name: str
    tag: str
    task: Literal["detection", "segmentation"]
    dataset: str
    backbone: str
    params_m: float
    params: int
    gflops: float
    flops_input: tuple[int, int, int]
    schedule: str
    start: str
    config: str
    flops: int | None = None
    urls: tuple[str, ...] = ()
    earlier_urls: tuple[str, ...] = ()
    start_url: str | None = None
    drop_path: float | None = None
    lr: float | None = None
    layer_decay: float | None = None
    filter_sizes: tuple[tuple[int, int], ...] = ()
    box_ap: float | None = None
    mask_ap: float | None = None
    miou: float | None = None
    miou_multi_scale: float | None = None
    crop: int | None = None
    stride: int | None = None
    layer_groups_depth: int | None = None
    clip_grad: float | None = None
    doubts: tuple[str, ...] = ()

    license: ClassVar[str] = "MIT"
    # what rows of classifiers say of their files; nothing of it was published with these
    file: ClassVar[str | None] = None
    sha256: ClassVar[str | None] = None
    sha256_prefix: ClassVar[str | None] = None
    git_blob_sha1: ClassVar[str | None] = None
    size_bytes: ClassVar[int | None] = None
    layout: ClassVar[str | None] = None
    top1: ClassVar[float | None] = None
    top5: ClassVar[float | None] = None

    @property
    def full_name(self) -> str:
        """Name and tag."""
        return f"{self.name}.{self.tag}"

    @property
    def family(self) -> str:
        """The system that the backbone is of."""
        return self.backbone.partition("_")[0]

    @property
    def architecture(self) -> str:
        """The name, as in rows of classifiers."""
        return self.name

    @property
    def num_classes(self) -> int:
        """Classes of the data."""
        return _NUM_CLASSES[self.dataset]

    @property
    def resolution(self) -> int:
        """Shorter side of the images at evaluation, pixels."""
        return self.crop or _SHORTER_SIDE

    @property
    def macs_m(self) -> float:
        """Published multiply-adds, millions."""
        return 1000 * self.gflops

    @property
    def last_digits(self) -> Mapping[str, int]:
        """Worth of one unit of the last digit of `params_m` and `macs_m`."""
        if self.urls:
            return {"params_m": 10**6, "macs_m": 10**9}
        return {"params_m": 1, "macs_m": 10**8}

    @property
    def score(self) -> str | None:
        """The published figure in words."""
        if self.miou is not None:
            return f"{self.miou} mIoU"
        return None if self.box_ap is None else f"{self.box_ap} box AP"

    @property
    def protocol(self) -> str:
        """How its figures were measured."""
        if self.task == "detection":
            return DETECTION_PROTOCOL
        assert self.crop is not None
        return SEGMENTATION_PROTOCOL.format(longer=4 * self.crop, shorter=self.crop, crop=self.crop, stride=self.stride)
