"""What a run is, as data: a `Recipe` is everything that changes the numbers, a `Run` is what must not.

Frozen dataclasses of plain values, standard library only: the command line, the recipes and the checkpoints all read
these. The docstring under a field is its help text on the command line.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from overtone.errors import OvertoneError

T = TypeVar("T")
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


def _require(holds: bool, name: str, value: Any, rule: str) -> None:
    if not holds:
        raise OvertoneError(f"{name} is {value}; it must be {rule}")


@dataclass(frozen=True)
class Preprocess:
    """From a decoded image to the model's input: the one record used by training, evaluation, prediction and export."""

    size: int = 224
    """Side of the square input, pixels."""
    resize: Literal["shorter", "squash"] = "shorter"
    """`shorter`: shorter side to int(size / crop_fraction), then a centre crop; `squash`: all of it to the square."""
    crop_fraction: float = 0.875
    """Share of the resized shorter side that the centre crop keeps, in (0, 1]."""
    interpolation: Interpolation = "bilinear"
    """Filter of the resize (Pillow's, antialiased)."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Mean of each of R, G, B in 0..1, subtracted."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Standard deviation of each of R, G, B in 0..1, divided by."""
    exif: Literal["ignore", "apply"] = "ignore"
    """EXIF orientation: `ignore`, as the published loaders do, or `apply`: turn the picture upright first."""

    def __post_init__(self) -> None:
        """Refuse what no image could go through."""
        _require(self.size >= 1, "preprocess.size", self.size, "at least 1 pixel")
        _require(0 < self.crop_fraction <= 1, "preprocess.crop_fraction", self.crop_fraction, "in (0, 1]")
        _require(all(s > 0 for s in self.std), "preprocess.std", self.std, "above 0")


@dataclass(frozen=True)
class Model:
    """Which network, and where its weights start from."""

    name: str = "hbonet_x100"
    """Architecture: any of `overtone models`, or any timm model."""
    weights: str | None = None
    """Start from these weights: published ones such as hbonet_x100.dli14_in1k, a checkpoint file, a run folder, or
    hf-hub:owner/name; the head is made new when the classes differ."""
    drop_rate: float = 0.0
    """Dropout before the classifier."""
    drop_path_rate: float = 0.0
    """Stochastic depth: the highest rate of dropping a residual branch."""
    freeze: bool = False
    """Train only the classifier; the backbone keeps its weights and running statistics."""
    head: str | None = None
    """Dense head over the backbone, for tasks that need one."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the constructor, such as `levels` or `width_mult`."""


@dataclass(frozen=True)
class Data:
    """The images, how they are split, and how they reach the model."""

    root: Path | None = None
    """Folder with `train/` and `val/` (or `test/`) of class folders, or one folder of class folders."""
    preprocess: Preprocess = Preprocess()
    """From a decoded image to the model's input."""
    table: Path | None = None
    """CSV or Parquet file with a column of image paths, relative to it or to `root`, and columns of labels."""
    image_column: str | None = None
    """Column of the table with the image paths; default: image, path, file or filename."""
    label_column: str | None = None
    """Column of the table with the labels; default: label, or labels; or one column of 0 and 1 for each label."""
    split_column: str | None = None
    """Column of the table with train, val or test; default: split, if there is one."""
    val_fraction: float = 0.2
    """Share of each class held out for validation when the data has no `val/`; 0: none, nothing is evaluated then, and
    the last epoch counts as the best."""
    validate_on: Literal["held_out", "test"] = "held_out"
    """Where there is a `test/` but no `val/`: `held_out` validates on a part of `train/` and measures `test/` once at
    the end; `test` chooses the best epoch on the test images, which flatters its result."""
    split_seed: int = 0
    """Seed of that split."""
    max_bad_fraction: float = 0.001
    """Stop when more than this share of the training images cannot be read."""
    allow_empty_classes: bool = False
    """Keep class folders that hold no image as classes."""
    accept_changes: bool = False
    """Resume although training data was added, removed, renamed or relabelled since."""
    shuffle_shards: int = 16
    """Shards that training's order draws from at a time, where the images are in tar shards."""
    cache_gb: float = 20.0
    """Disk for shards fetched from remote stores, GB, in the cache folder; 0: nothing is kept, images are read by
    range."""
    scaled_decoding: bool = False
    """Decode JPEG files for training at 1/2, 1/4 or 1/8 of their size where the random crop is at least that much
    larger than the input: quicker for large photographs, and changes pixels; off, they are Pillow's."""


@dataclass(frozen=True)
class Augment:
    """Random changes of the training images; each choice is a function of (seed, epoch, sample)."""

    crop: Literal["random_resized", "pad", "none"] = "random_resized"
    """`random_resized`: a random part, resized; `pad`: resize, pad by size / 8, crop; `none`: as in evaluation."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Share of the area that `random_resized` takes."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Aspect ratio (width / height) that `random_resized` takes."""
    pad_mode: Literal["reflect", "constant"] = "reflect"
    """What `pad` fills the border with."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    vflip: float = 0.0
    """Probability of a vertical flip."""
    color_jitter: float = 0.0
    """Strength of random brightness, contrast and saturation."""
    rand_augment: str | None = None
    """timm's RandAugment policy, such as `rand-m9-mstd0.5-inc1`."""
    random_erasing: float = 0.0
    """Probability of erasing a random rectangle with noise."""
    mixup: float = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 is off."""
    mix_prob: float = 1.0
    """Probability that a batch is mixed at all."""
    mix_switch_prob: float = 0.5
    """Probability of cutmix rather than mixup when both are on."""
    mix_off_epochs: int = 0
    """Train the last so many epochs without mixup and cutmix."""


@dataclass(frozen=True)
class Optim:
    """The optimiser."""

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    """Optimiser; `muon` (Jordan 2024) orthogonalises the updates of matrices and filters, and is AdamW for the rest."""
    lr: float = 0.05
    """Highest learning rate, for the recipe's batch size."""
    weight_decay: float = 4e-5
    """Weight decay."""
    decay: Literal["all", "no_norm_bias"] = "all"
    """What decays: `all` parameters, or all but biases, 1-D parameters and what the model names."""
    momentum: float = 0.9
    """Momentum of SGD and Muon."""
    nesterov: bool = False
    """Nesterov momentum of SGD and Muon."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Betas of AdamW, also within Muon."""
    eps: float = 1e-8
    """Epsilon of AdamW."""
    layer_decay: float | None = None
    """Learning rate of a layer group = lr * layer_decay ** (groups above it)."""
    clip_grad: float | None = None
    """Largest norm of the gradient."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate over time, set before every step."""

    name: Literal["cosine", "linear", "step", "multistep", "constant"] = "cosine"
    """`cosine` and `linear` fall to min_lr at the end; `step` and `multistep` multiply by gamma at epochs."""
    min_lr: float = 0.0
    """Where `cosine` and `linear` end."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up, counted in `epochs`."""
    warmup_lr: float = 0.0
    """Where the warm-up starts."""
    step_epochs: int = 30
    """`step`: multiply every so many epochs."""
    milestones: tuple[int, ...] = ()
    """`multistep`: multiply at these epochs."""
    gamma: float = 0.1
    """Factor of `step` and `multistep`."""
    weight_decay_end: float | None = None
    """Weight decay at the end, reached along a cosine from optim.weight_decay; none: it stays."""


@dataclass(frozen=True)
class Train:
    """The loop."""

    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 256
    """Images per optimiser step, over all devices (the global batch)."""
    seed: int = 0
    """Seed of initial weights, order, augmentation, mixing and dropout."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: weight a class's loss by 1 / its number of training images, mean 1."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights; when set, the average is what is evaluated and kept as best."""
    patience: int | None = None
    """Stop early after so many epochs without a better validation top-1."""
    sizes: tuple[int, ...] = ()
    """Progressive resolution: sides of the training images, in turn, the epochs divided evenly among them; evaluation
    stays at data.preprocess.size."""
    sync_bn: bool = False
    """Batch norm over the images of all processes rather than of each alone."""
    processes: int = 1
    """Processes to start on this machine where no launcher (torchrun, Slurm) has: each takes an equal share of the
    batch, which is what batch norm sees without sync_bn. On a CPU they use its cores better than threads do, when
    pictures are small."""


@dataclass(frozen=True)
class Distill:
    """Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): a teacher's outputs as further targets."""

    teacher: str | None = None
    """A model that names the same classes: published weights, a checkpoint file or a run folder; none: off."""
    weight: float = 0.5
    """Share of the teacher in the loss: (1 - weight) * loss + weight * distillation."""
    temperature: float = 1.0
    """Both outputs are divided by it before the softmax; the distillation loss is multiplied by its square."""
    hard: bool = False
    """Learn the teacher's top-1 rather than its probabilities; the temperature then does not matter."""


@dataclass(frozen=True)
class TaskSettings:
    """Settings of one task alone; each task that has any derives its own (`tasks/<task>/settings.py`)."""


@dataclass(frozen=True)
class Recipe:
    """Everything that changes the numbers of a training."""

    task: str = "classification"
    """What is learned: classification, multilabel, segmentation or detection."""
    settings: TaskSettings = TaskSettings()
    """Settings of that task."""
    model: Model = Model()
    """The network."""
    data: Data = Data()
    """The images."""
    augment: Augment = Augment()
    """Random changes of the training images."""
    optim: Optim = Optim()
    """The optimiser."""
    schedule: Schedule = Schedule()
    """The learning rate over time."""
    train: Train = Train()
    """The loop."""
    distill: Distill = Distill()
    """A teacher."""

    def __post_init__(self) -> None:
        """Refuse values that no run could use, before anything is read."""
        for name, value in (
            ("train.epochs", self.train.epochs),
            ("train.batch_size", self.train.batch_size),
            ("train.processes", self.train.processes),
        ):
            _require(value >= 1, name, value, "at least 1")
        for name, value in (
            ("optim.lr", self.optim.lr),
            ("optim.weight_decay", self.optim.weight_decay),
            ("augment.mixup", self.augment.mixup),
            ("augment.cutmix", self.augment.cutmix),
        ):
            _require(value >= 0, name, value, "0 or more")
        for name, value in (
            ("model.drop_rate", self.model.drop_rate),
            ("model.drop_path_rate", self.model.drop_path_rate),
            ("train.label_smoothing", self.train.label_smoothing),
            ("data.val_fraction", self.data.val_fraction),
        ):
            _require(0 <= value < 1, name, value, "in [0, 1)")
        for name, value in (
            ("augment.hflip", self.augment.hflip),
            ("augment.vflip", self.augment.vflip),
            ("augment.random_erasing", self.augment.random_erasing),
            ("augment.mix_prob", self.augment.mix_prob),
            ("augment.mix_switch_prob", self.augment.mix_switch_prob),
        ):
            _require(0 <= value <= 1, name, value, "in [0, 1]")
        for name, value in (("augment.scale", self.augment.scale), ("augment.ratio", self.augment.ratio)):
            _require(0 < value[0] <= value[1], name, value, "two numbers above 0, the smaller one first")
        _require(self.augment.scale[1] <= 1, "augment.scale", self.augment.scale, "at most 1")
        _require(
            not self.data.scaled_decoding or self.augment.crop == "random_resized",
            "data.scaled_decoding",
            self.data.scaled_decoding,
            f"off where augment.crop is {self.augment.crop}: it is for random_resized",
        )
        _require(self.data.shuffle_shards >= 1, "data.shuffle_shards", self.data.shuffle_shards, "at least 1")
        _require(self.data.cache_gb >= 0, "data.cache_gb", self.data.cache_gb, "0 or more")
        _require(0 <= self.distill.weight <= 1, "distill.weight", self.distill.weight, "in [0, 1]")
        _require(self.distill.temperature > 0, "distill.temperature", self.distill.temperature, "above 0")
        _require(self.augment.mix_off_epochs >= 0, "augment.mix_off_epochs", self.augment.mix_off_epochs, "0 or more")
        sizes = self.train.sizes
        _require(all(size >= 1 for size in sizes), "train.sizes", sizes, "sides of at least 1 pixel")
        _require(len(sizes) <= self.train.epochs, "train.sizes", sizes, "no more sizes than train.epochs")
        ending = self.schedule.weight_decay_end
        _require(ending is None or ending >= 0, "schedule.weight_decay_end", ending, "0 or more, or none")
        _require(
            not ending or self.optim.weight_decay > 0,
            "schedule.weight_decay_end",
            ending,
            "none where optim.weight_decay is 0: nothing decays then",
        )
        decay = self.train.ema_decay
        _require(decay is None or 0 < decay < 1, "train.ema_decay", decay, "in (0, 1), or none")


@dataclass(frozen=True)
class Run:
    """Where and with what a run happens: nothing here may change what is learnt beyond rounding."""

    out: Path | None = None
    """Folder of the run; default: runs/<recipe>-<date>-<time>."""
    overwrite: bool = False
    """Replace what is in the run folder."""
    resume: bool = False
    """Go on from the last checkpoint in the run folder given by `out`, with the same recipe; the same command as
    before does so by itself, this one insists on it."""
    device: str = "auto"
    """`auto`: a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the forward pass; `auto`: bfloat16 on GPUs that have it, else float32."""
    channels_last: bool = True
    """Keep feature maps with channels innermost, which convolutions want."""
    compile: bool = False
    """Compile the model with torch.compile (slower start, faster steps)."""
    workers: int | None = None
    """Processes that read images; default: the number of usable cores, at most 8; 0 on the CPU up to 64 pixels."""
    cache_mb: int | None = None
    """Megabytes of memory that each process which reads images may fill with decoded ones, for the epochs to come;
    default: 512 where the training reads them itself (no `workers`), else none."""
    threads: int | None = None
    """Threads of arithmetic on the CPU; default: PyTorch's."""
    micro_batch: int | None = None
    """Images per forward pass; a smaller one saves memory: gradients are added up to the recipe's batch, only batch
    norm sees the smaller one."""
    save_minutes: float | None = 10.0
    """Minutes between checkpoints within an epoch (there is one after each epoch); none: only then."""
    save_steps: int | None = None
    """Optimiser steps between checkpoints within an epoch."""
    keep_last: int = 2
    """How many of the last checkpoints stay, to fall back to when the newest is damaged."""
    timeout: float = 600.0
    """Seconds after which a process that the others wait for is taken to hang."""
    tensorboard: bool = True
    """Write TensorBoard files."""
    wandb: bool = False
    """Log to Weights & Biases, which must be installed."""
    mlflow: bool = False
    """Log to MLflow, which must be installed."""
    plots: bool = True
    """Draw the curves and the confusion matrix."""
    max_steps: int | None = None
    """Stop after so many optimiser steps (to try things out)."""


def to_dict(record: Any) -> Any:
    """A dataclass as plain JSON values: dictionaries, lists, strings, numbers."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_dict(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(key): to_dict(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_dict(value) for value in record]
    return str(record) if isinstance(record, Path) else record


def from_dict(cls: type[T], values: Mapping[str, Any], **ready: Any) -> T:
    """The dataclass `cls` from what `to_dict` gave, with the fields in `ready` as they are.

    Raises:
        OvertoneError: a key that `cls` does not have, or a value of the wrong kind.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - hints.keys())
    if unknown:
        raise OvertoneError(
            f"{cls.__name__} has no field {', '.join(unknown)}; it was written by another version of overtone"
        )
    plain = {name: _from_plain(hints[name], value, f"{cls.__name__}.{name}") for name, value in values.items()}
    return cls(**plain | ready)


def _from_plain(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _from_plain(next(a for a in args if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    if origin is tuple:
        kinds = None if len(args) == 2 and args[1] is Ellipsis else args
        return tuple(
            _from_plain(kind, item, where)
            for kind, item in zip(args[:1] * len(value) if kinds is None else args, value, strict=True)
        )
    if origin is Literal:
        if value not in args:
            raise OvertoneError(f"{where} is {value!r}; it must be one of {', '.join(map(str, args))}")
        return value
    if hint is Path:
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise OvertoneError(f"{where} is {value!r}; it must be of type {hint.__name__}")
    return value
