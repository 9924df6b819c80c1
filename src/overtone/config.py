"""Settings as data: a `Recipe` holds everything that changes the numbers, a `Run` what must not.

Frozen dataclasses of plain values, standard library only; the command line, the recipes and the checkpoints use them.
Every number has a range (`overtone.ranges`). The docstring under a field is its help text on the command line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from overtone.plain_values import from_dict as from_dict
from overtone.plain_values import to_dict as to_dict
from overtone.ranges import (
    AutoPixels,
    Checked,
    Count,
    Finite,
    Fraction,
    FractionBelowOne,
    InnerFraction,
    MaskIndex,
    Minutes,
    NonNegative,
    Pixels,
    Positive,
    PositiveFraction,
    PositiveInt,
    Range,
    Seconds,
    Seed,
    require,
)

AUTO: Any = "auto"
"""In a recipe: chosen when a training starts, and on record from then on."""
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class Preprocess(Checked, section="preprocess"):
    """From a decoded image to the model's input: shared by training, evaluation, prediction and export."""

    size: AutoPixels = 224
    """Side of the square input, pixels; in a training `auto`: by the training images' own sizes, recorded as a
    number."""
    resize: Literal["shorter", "squash"] = "shorter"
    """`shorter`: shorter side to int(size / crop_fraction), then a centre crop; `squash`: all of it to the square."""
    crop_fraction: Annotated[float, Range(at_least=0.1, at_most=1)] = 0.875
    """Share of the resized shorter side that the centre crop keeps, in (0, 1]."""
    interpolation: Interpolation = "bilinear"
    """Filter of the resize (Pillow's, antialiased)."""
    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)
    """Mean of each of R, G, B in 0..1, subtracted."""
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    """Standard deviation of each of R, G, B in 0..1, divided by."""
    exif: Literal["ignore", "apply"] = "ignore"
    """EXIF orientation: `ignore`, as the published loaders do, or `apply`: rotate the image upright first."""


@dataclass(frozen=True)
class Model(Checked, section="model"):
    """The network and its initial weights."""

    name: str = "hbonet_x100"
    """Architecture: any of `overtone models`, or any timm model."""
    weights: str | None = None
    """Start from these weights: published ones such as hbonet_x100.dli14_in1k, a checkpoint file, a run folder, or
    hf-hub:owner/name; the head is initialised anew when the classes differ."""
    drop_rate: FractionBelowOne = 0.0
    """Dropout before the classifier."""
    drop_path_rate: FractionBelowOne = 0.0
    """Stochastic depth: the highest rate of dropping a residual branch."""
    freeze: bool = False
    """Train only the classifier; the backbone keeps its weights and running statistics."""
    head: str | None = None
    """Dense head over the backbone, for tasks that need one."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the constructor, such as `levels` or `width_mult`."""


@dataclass(frozen=True)
class Data(Checked, section="data"):
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
    ignore_index: MaskIndex | None = None
    """Index in the masks of a segmentation, beside 255, of pixels without a class; classes named unlabelled or void are
    found by their names."""
    drop_empty: bool = False
    """Leave training images of a detection out that have no object, or a side below 32 pixels."""
    val_fraction: FractionBelowOne = 0.2
    """Share of each class held out for validation when the data has no `val/`; 0: none, nothing is evaluated then, and
    the last epoch counts as the best."""
    validate_on: Literal["held_out", "test"] = "held_out"
    """Where there is a `test/` but no `val/`: `held_out` validates on a part of `train/` and measures `test/` once at
    the end; `test` chooses the best epoch on the test images, which flatters its result."""
    split_seed: Seed = 0
    """Seed of that split."""
    max_bad_fraction: Fraction = 0.001
    """Stop when more than this share of the training images cannot be read."""
    allow_empty_classes: bool = False
    """Keep class folders that hold no image as classes."""
    accept_changes: bool = False
    """Resume although training data was added, removed, renamed or relabelled since."""
    sampling: Literal["all", "balanced"] = "all"
    """Training images of an epoch: `all`, each once; `balanced`, as many, and equally many of each class: those of a
    rare class several times, with other random changes each time, those of a frequent one in turn over the epochs."""
    shuffle_shards: PositiveInt = 16
    """Shards that training's order draws from at a time, where the images are in tar shards."""
    cache_gb: NonNegative = 20.0
    """Disk for shards fetched from remote stores, and as much for decoded images, GB, in the cache folder; 0: nothing
    is kept, images are read by range."""
    cache: Literal["none", "decoded"] = "none"
    """`decoded`: keep decoded images in memory-mapped files in the cache folder, up to `cache_gb`, for later epochs and
    runs on the same images; pixels stay the same."""
    cache_side: Pixels | None = None
    """With `cache` decoded: training images whose shorter side is longer are first resized to it (bicubic), and random
    crops are drawn from that; changes pixels."""
    decoder: Literal["cpu", "gpu", "dali"] = "cpu"
    """What decodes, crops and resizes training images: `cpu` gives Pillow's pixels; `gpu` (torchvision's nvJPEG) and
    `dali` (NVIDIA DALI) do it on the CUDA device with the same order, crops and flips, and other pixels."""
    scaled_decoding: bool = False
    """Decode JPEG files for training at 1/2, 1/4 or 1/8 of their size where the random crop is at least that much
    larger than the input: quicker for large photographs, and changes pixels; off, they are Pillow's."""


@dataclass(frozen=True)
class Augment(Checked, section="augment"):
    """Random changes of the training images; each choice is a function of (seed, epoch, sample)."""

    crop: Literal["random_resized", "pad", "none"] = "random_resized"
    """`random_resized`: a random part, resized; `pad`: resize, pad by size / 8, crop; `none`: as in evaluation."""
    scale: tuple[PositiveFraction, PositiveFraction] = (0.08, 1.0)
    """Share of the area that `random_resized` takes."""
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Aspect ratio (width / height) that `random_resized` takes."""
    pad_mode: Literal["reflect", "constant"] = "reflect"
    """How `pad` fills the border."""
    hflip: Fraction = 0.5
    """Probability of a horizontal flip."""
    vflip: Fraction = 0.0
    """Probability of a vertical flip."""
    color_jitter: NonNegative = 0.0
    """Strength of random brightness, contrast and saturation."""
    rand_augment: str | None = None
    """timm's RandAugment policy, such as `rand-m9-mstd0.5-inc1`."""
    random_erasing: Fraction = 0.0
    """Probability of erasing a random rectangle with noise."""
    mixup: NonNegative = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: NonNegative = 0.0
    """Alpha of cutmix; 0 is off."""
    mix_prob: Fraction = 1.0
    """Probability that a batch is mixed at all."""
    mix_switch_prob: Fraction = 0.5
    """Probability of cutmix rather than mixup when both are on."""
    mix_off_epochs: Count = 0
    """Number of epochs at the end without mixup and cutmix."""
    strength: Literal["given", "auto"] = "given"
    """`auto`: `scale`, `color_jitter`, `cutmix` and `mix_prob` by the number of epochs, recorded: the more often an
    image is seen, the stronger; `given`: as they are given."""

    def __post_init__(self) -> None:
        """Refuse intervals whose ends are exchanged."""
        super().__post_init__()
        for name, value in (("augment.scale", self.scale), ("augment.ratio", self.ratio)):
            require(value[0] <= value[1], name, value, "two numbers, the smaller one first")


@dataclass(frozen=True)
class Optim(Checked, section="optim"):
    """The optimiser."""

    name: Literal["sgd", "adamw", "muon"] = "sgd"
    """Optimiser; `muon` (Jordan 2024) orthogonalises the updates of matrices and filters, and is AdamW for the rest."""
    lr: NonNegative = 0.05
    """Highest learning rate, for the recipe's batch size."""
    weight_decay: NonNegative = 4e-5
    """Weight decay."""
    decay: Literal["all", "no_norm_bias"] = "all"
    """Parameters that decay: `all`, or all but biases, 1-D parameters and those that the model names."""
    momentum: FractionBelowOne = 0.9
    """Momentum of SGD and Muon."""
    nesterov: bool = False
    """Nesterov momentum of SGD and Muon."""
    betas: tuple[FractionBelowOne, FractionBelowOne] = (0.9, 0.999)
    """Betas of AdamW, also within Muon."""
    eps: Positive = 1e-8
    """Epsilon of AdamW."""
    layer_decay: PositiveFraction | None = None
    """Factor of layer-wise decay: the learning rate of a layer group is lr * layer_decay ** (groups above it)."""
    layer_groups: Literal["block", "stage"] = "block"
    """Groups of layer decay: as the model has them, or by the stages of a dense network's backbone, with its stem in
    group 0 and the head in group `layer_groups_depth` + 1."""
    layer_groups_depth: PositiveInt = 12
    """`stage`: groups between the stem and the head; larger than the number of stages, it slows all of them."""
    clip_grad: Positive | None = None
    """Norm at which the gradient is clipped."""

    def __post_init__(self) -> None:
        """Refuse Nesterov momentum without momentum."""
        super().__post_init__()
        require(not self.nesterov or self.momentum > 0, "optim.nesterov", self.nesterov, "off where momentum is 0")


@dataclass(frozen=True)
class Schedule(Checked, section="schedule"):
    """The learning rate schedule, applied before every step."""

    name: Literal["cosine", "linear", "poly", "step", "multistep", "constant"] = "cosine"
    """`cosine`, `linear` and `poly` fall to min_lr at the end; `step` and `multistep` multiply by gamma at epochs."""
    min_lr: NonNegative = 0.0
    """Final learning rate of `cosine`, `linear` and `poly`."""
    power: Positive = 1.0
    """`poly`: the share of the training that is left, warm-up included, to this power."""
    warmup_epochs: NonNegative = 0.0
    """Epochs of linear warm-up, counted in `epochs`."""
    warmup_steps: Count = 0
    """Optimiser steps of warm-up, in place of warmup_epochs."""
    warmup_lr: NonNegative = 0.0
    """Initial learning rate of the warm-up."""
    warmup_factor: Fraction | None = None
    """Multiply the schedule during the warm-up by a factor that grows from this one to 1, in place of a straight line
    from warmup_lr to optim.lr."""
    step_epochs: PositiveInt = 30
    """`step`: epochs between two multiplications by gamma."""
    milestones: tuple[PositiveInt, ...] = ()
    """`multistep`: multiply at these epochs."""
    gamma: Positive = 0.1
    """Factor of `step` and `multistep`."""
    weight_decay_end: NonNegative | None = None
    """Final weight decay, reached along a cosine from optim.weight_decay; none: constant."""


@dataclass(frozen=True)
class Train(Checked, section="train"):
    """The loop."""

    epochs: PositiveInt = 100
    """Passes over the training images."""
    minutes: Minutes | None = None
    """Minutes that the training may take: `epochs` becomes the number that fits, by the measured time of some trial
    steps and of the validation, and `steps` where the last epoch is cut short; recorded, so a resumed run keeps it."""
    steps: PositiveInt | None = None
    """Optimiser steps in all, in place of epochs; the last epoch is as short as it comes out."""
    eval_steps: PositiveInt | None = None
    """Optimiser steps between evaluations, each at the end of the epoch in which they are complete; none: after each
    epoch. The last epoch is evaluated in any case."""
    batch_size: PositiveInt = 256
    """Images per optimiser step, over all devices (the global batch)."""
    seed: Seed = 0
    """Seed of initial weights, order, augmentation, mixing and dropout."""
    label_smoothing: FractionBelowOne = 0.0
    """Share of the target spread over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: weight a class's loss by 1 / its number of training images, mean 1."""
    calibrate: bool = False
    """Keep with a classifier the temperature that its logits are divided by for the probabilities closest to the
    validation images' classes (Guo et al. 2017, arXiv:1706.04599)."""
    ema_decay: InnerFraction | None = None
    """Decay of the moving average of the weights; when set, the average is evaluated and kept as best."""
    ema_warmup: bool = False
    """Let the decay grow with the steps to `ema_decay`: in step t (from 0) it is t / (t + 10) at most."""
    ema_evaluate: Literal["average", "best"] = "average"
    """What is evaluated where there is a moving average: the average, or it and the weights themselves, of which the
    better (higher score, then lower loss) is kept; twice the time of the evaluation."""
    freeze_epochs: Count = 0
    """Epochs at the start that train only the classifier, as `model.freeze` does in all of them; then everything is
    trained, at the learning rate that the schedule has come to."""
    freeze_bn: Literal["off", "on", "auto"] = "off"
    """`on`: batch norm in training normalises by the running statistics of the weights that it starts from, which stay
    as they are; its scale and shift are trained. `auto`: on where there are weights and a forward pass has fewer than
    16 images."""
    patience: PositiveInt | None = None
    """Stop early after this number of epochs without a better validation score."""
    sizes: tuple[Pixels, ...] = ()
    """Progressive resolution: sides of the training images, in turn, the epochs divided evenly among them; evaluation
    stays at data.preprocess.size."""
    sync_bn: bool = False
    """Batch norm over the images of all processes rather than of each alone."""
    processes: PositiveInt = 1
    """Processes to start on this machine where no launcher (torchrun, Slurm) has: each takes an equal share of the
    batch, over which batch norm computes its statistics without sync_bn. On a CPU they use its cores better than
    threads when images are small."""

    def __post_init__(self) -> None:
        """Refuse settings of an average that is not there, and to wait for evaluations that most epochs do not have."""
        super().__post_init__()
        for name, value in (("ema_warmup", self.ema_warmup), ("ema_evaluate", self.ema_evaluate == "best")):
            is_clear = self.ema_decay is not None or not value
            require(is_clear, f"train.{name}", getattr(self, name), "left out where there is no train.ema_decay")
        is_clear = self.patience is None or self.eval_steps is None
        require(is_clear, "train.patience", self.patience, "none where train.eval_steps is set: it counts epochs")


@dataclass(frozen=True)
class Distill(Checked, section="distill"):
    """Knowledge distillation (Hinton et al. 2015, arXiv:1503.02531): a teacher's outputs as further targets."""

    teacher: str | None = None
    """A model with the same classes: published weights, a checkpoint file or a run folder; none: off."""
    weight: Fraction = 0.5
    """Share of the teacher in the loss: (1 - weight) * loss + weight * distillation."""
    temperature: Positive = 1.0
    """Both outputs are divided by it before the softmax; the distillation loss is multiplied by its square."""
    hard: bool = False
    """Learn the teacher's top-1 rather than its probabilities; the temperature then has no effect."""


@dataclass(frozen=True)
class TaskSettings(Checked, section="settings"):
    """Settings of a task; each task that has any derives its own class (`tasks/<task>/settings.py`)."""


@dataclass(frozen=True)
class Recipe(Checked):
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
    """The training loop."""
    distill: Distill = Distill()
    """Knowledge distillation from a teacher."""

    @property
    def starts_from_weights(self) -> bool:
        """Whether the network starts from trained weights: its own option, or a tag in the network's name."""
        return self.model.weights is not None or "." in self.model.name

    def __post_init__(self) -> None:
        """Refuse values that contradict each other, before anything is read."""
        super().__post_init__()
        is_clear, wanted = self.train.freeze_bn != "on" or self.starts_from_weights, "off or auto without model.weights"
        require(is_clear, "train.freeze_bn", "on", f"{wanted}: there are no statistics to keep")
        data, scaled, decodes = self.data, self.data.scaled_decoding, self.data.cache == "decoded"
        wanted = f"off where augment.crop is {self.augment.crop}: it is for random_resized"
        require(not scaled or self.augment.crop == "random_resized", "data.scaled_decoding", scaled, wanted)
        require(decodes or data.cache_side is None, "data.cache_side", data.cache_side, "none where data.cache is none")
        wanted = "above 0 where data.cache is decoded"
        require(not decodes or data.cache_gb > 0, "data.cache_gb", data.cache_gb, wanted)
        wanted = "off where data.cache is decoded; data.cache_side makes large images smaller"
        require(not (decodes and scaled), "data.scaled_decoding", True, wanted)
        wanted = "cpu where data.cache is decoded or data.scaled_decoding is on"
        require(data.decoder == "cpu" or not (decodes or scaled), "data.decoder", data.decoder, wanted)
        frozen = self.train.freeze_epochs
        require(not (frozen and self.model.freeze), "train.freeze_epochs", frozen, "0 where model.freeze is on")
        is_shorter = not frozen or frozen < self.train.epochs or self.train.steps is not None
        require(is_shorter, "train.freeze_epochs", frozen, "less than train.epochs; model.freeze is for all of them")
        weights, wanted = self.train.class_weights, "none where data.sampling is balanced: either is enough"
        require(data.sampling == "all" or weights == "none", "train.class_weights", weights, wanted)
        sizes = self.train.sizes
        require(len(sizes) <= self.train.epochs, "train.sizes", sizes, "no more sizes than train.epochs")
        ending, wanted = self.schedule.weight_decay_end, "none where optim.weight_decay is 0: nothing decays then"
        require(not ending or self.optim.weight_decay > 0, "schedule.weight_decay_end", ending, wanted)


@dataclass(frozen=True)
class Run(Checked, section="run"):
    """Where and with what a run happens: nothing here may change what is learned beyond rounding."""

    out: Path | None = None
    """Folder of the run; default: runs/<recipe>-<date>-<time>."""
    overwrite: bool = False
    """Replace what is in the run folder."""
    resume: bool = False
    """Resume from the last checkpoint in the run folder given by `out`, with the same recipe; the same command as
    before resumes without it, this option requires that there is one."""
    device: str = "auto"
    """`auto`: a GPU if there is one; or `cpu`, `cuda`, `cuda:1`, `mps`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the forward pass; `auto`: bfloat16 on GPUs that have it, and on CPUs that have it where a training
    is of two minutes or more and trial steps are at least a tenth faster; else float32."""
    channels_last: bool = True
    """Use the channels-last memory format, which is faster for convolutions."""
    compile: bool = False
    """Compile the model with torch.compile (slower start, faster steps)."""
    workers: Count | None = None
    """Processes that read images; default: the number of usable cores, at most 8; 0 on the CPU up to 64 pixels."""
    cache_mb: Count | None = None
    """Megabytes of decoded images that each reading process may cache for later epochs; default: 512 without `workers`,
    otherwise none."""
    threads: PositiveInt | None = None
    """CPU threads; default: PyTorch's."""
    micro_batch: PositiveInt | None = None
    """Images per forward pass; a smaller one saves memory: gradients are accumulated to the recipe's batch, and
    only batch norm sees the smaller one."""
    save_minutes: Minutes | None = 10.0
    """Minutes between checkpoints within an epoch (there is one after each epoch); none: only then."""
    save_steps: PositiveInt | None = None
    """Optimiser steps between checkpoints within an epoch."""
    keep_last: PositiveInt = 2
    """Number of recent checkpoints to keep, as a fallback when the newest is damaged."""
    timeout: Seconds = 600.0
    """Seconds after which a process that others wait for is considered hung."""
    tensorboard: bool = True
    """Write TensorBoard files."""
    wandb: bool = False
    """Log to Weights & Biases, which must be installed."""
    mlflow: bool = False
    """Log to MLflow, which must be installed."""
    plots: bool = True
    """Draw the curves and the confusion matrix."""
    max_steps: PositiveInt | None = None
    """Stop after this number of optimiser steps (for trials)."""
