"""What a recipe leaves open (`auto`) until its training starts: size, augmentation, whether batch norm is frozen.

It is settled before anything is built, and on record from then on: see `resuming.as_begun`.
"""

import dataclasses
import random
import statistics
from typing import Any

from PIL import Image

from overtone.config import AUTO, Augment, Recipe, Run
from overtone.data.decoding import BadImage, opened_header
from overtone.data.sources import Source
from overtone.engine.distributed import World
from overtone.errors import OvertoneError
from overtone.tasks import task_named

_TARGETS = ("label", "labels")  # of images that have labels as a whole
_SAMPLES, _SEED = 200, 0  # images whose headers are read: the same in every training on them, whatever its seed
_STEP = 8  # sides are multiples of it
_LEAST = 40  # networks reduce maps 32 times: to 2x2, where images of 32 pixels would leave a single position
_FEW = 16  # images, too few for statistics as good as those of the weights (Wu & He 2018, arXiv:1803.08494, figure 1)
_MOST = 128  # from random weights, larger inputs cost more than they bring in trainings of minutes or hours

_STRENGTHS: tuple[tuple[int, dict[str, Any]], ...] = (
    (16, {"scale": (0.6, 1.0), "color_jitter": 0.0, "cutmix": 0.0, "mix_prob": 1.0}),
    (25, {"scale": (0.35, 1.0), "color_jitter": 0.2, "cutmix": 0.0, "mix_prob": 1.0}),
    (10**9, {"scale": (0.35, 1.0), "color_jitter": 0.2, "cutmix": 1.0, "mix_prob": 0.5}),
)
"""Below so many epochs: measured, see docs/recipes.md."""


def strengthened(recipe: Recipe) -> Recipe:
    """The recipe with the augmentation for its number of epochs, where `augment.strength` is auto.

    Raises:
        OvertoneError: one of what is chosen here has been given as well.
    """
    augment = recipe.augment
    if augment.strength != AUTO:
        return recipe
    chosen = next(values for epochs, values in _STRENGTHS if recipe.train.epochs < epochs)
    for name, value in chosen.items():
        if getattr(augment, name) not in (getattr(Augment, name), value):
            raise OvertoneError(
                f"augment.{name} is given, and augment.strength auto chooses it by the number of epochs; "
                "add --augment.strength given"
            )
    return dataclasses.replace(recipe, augment=dataclasses.replace(augment, **chosen))


def check_size(recipe: Recipe) -> None:
    """Refuse to choose a size for a task whose crops are not of whole images.

    Raises:
        OvertoneError: it is such a task.
    """
    if recipe.data.preprocess.size == AUTO and task_named(recipe.task).target not in _TARGETS:
        raise OvertoneError(
            f"data.preprocess.size is auto, which is for images with labels, and the task is {recipe.task}; "
            "give a number of pixels"
        )


def settled(recipe: Recipe, run: Run, source: Source, world: World) -> tuple[Recipe, list[str]]:
    """Settle what the recipe leaves open.

    Args:
        recipe: what is trained.
        run: gives the images of a forward pass.
        source: the training images.
        world: the processes that train together; all of them go by what the first one has read.

    Returns:
        The recipe with nothing left open, and a line on how it came about for each choice made here.

    Raises:
        OvertoneError: none of the images looked at can be read.
    """
    said = []
    if recipe.data.preprocess.size == AUTO:
        size, line = _size(source, world)
        preprocess = dataclasses.replace(recipe.data.preprocess, size=size)
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, preprocess=preprocess))
        said.append(line)
    if recipe.train.freeze_bn == AUTO:
        images = _images_of_a_pass(recipe, run, world)
        is_frozen = images < _FEW and recipe.starts_from_weights
        recipe = dataclasses.replace(
            recipe, train=dataclasses.replace(recipe.train, freeze_bn="on" if is_frozen else "off")
        )
        if is_frozen:
            said.append(f"freeze_bn auto: on, as a forward pass has {images} images, fewer than {_FEW}")
    return recipe if recipe.train.minutes else strengthened(recipe), said  # otherwise when the epochs are known


def _images_of_a_pass(recipe: Recipe, run: Run, world: World) -> int:
    """Images that batch norm sees at once: of a process, or of all where it is synchronised."""
    share = recipe.train.batch_size // world.size
    if run.micro_batch is not None:
        share = -(-share // -(-share // run.micro_batch))
    return share * world.size if recipe.train.sync_bn else share


def _size(source: Source, world: World) -> tuple[int, str]:
    """The median shorter side of some training images, rounded to a multiple of 8 within 40..128."""
    positions = sorted(random.Random(_SEED).sample(range(len(source)), min(_SAMPLES, len(source))))
    sides = [side for position in positions if (side := _shorter_side(source, position))]
    sides = world.from_first(sides)
    if not sides:
        raise OvertoneError(
            f"data.preprocess.size is auto, and none of {len(positions)} training images can be read, such as "
            f"{source.name(positions[0])}; repair them, or give a number of pixels"
        )
    median = statistics.median(sides)
    size = chosen_size(median)
    return size, f"size auto: {size} px; {median:g} px is the median shorter side of {len(sides)} training images"


def chosen_size(shorter: float) -> int:
    """The side of the input for images of this median shorter side, pixels."""
    return min(max(_STEP * round(shorter / _STEP), _LEAST), _MOST)


def _shorter_side(source: Source, position: int) -> int:
    """By the image's header; 0 where it cannot be read, which the training reports."""
    try:
        image = source.read(position).get("image", b"")
        if isinstance(image, Image.Image):
            return min(image.size)
        with opened_header(image) as opened:
            return min(opened.size)
    except BadImage:
        return 0
