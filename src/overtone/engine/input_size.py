"""The side of the input where a recipe leaves it to the images: `data.preprocess.size` auto."""

import dataclasses
import random
import statistics

from PIL import Image

from overtone.config import AUTO, Recipe
from overtone.data.decoding import BadImage, opened_header
from overtone.data.sources import Source
from overtone.engine.distributed import World
from overtone.errors import OvertoneError
from overtone.tasks import task_named

_TARGETS = ("label", "labels")  # of images that have labels as a whole
_SAMPLES, _SEED = 200, 0  # images whose headers are read: the same in every training on them, whatever its seed
_STEP = 8  # sides are multiples of it
_LEAST = 40  # networks reduce maps 32 times: to 2x2, where images of 32 pixels would leave a single position
_MOST = 128  # from random weights, larger inputs cost more than they bring in trainings of minutes or hours


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


def with_size(recipe: Recipe, source: Source, world: World | None = None) -> tuple[Recipe, list[str]]:
    """Choose the size where it is auto: the images' median shorter side, rounded to a multiple of 8, within 40..128.

    Args:
        recipe: what is trained.
        source: its training images.
        world: the processes that train together, which go by what the first one has read.

    Returns:
        The recipe with a number, and a line on how it came about where it was chosen here.

    Raises:
        OvertoneError: the task is none for it, or none of the images looked at can be read.
    """
    check_size(recipe)
    if recipe.data.preprocess.size != AUTO:
        return recipe, []
    positions = sorted(random.Random(_SEED).sample(range(len(source)), min(_SAMPLES, len(source))))
    sides = [side for position in positions if (side := _shorter_side(source, position))]
    sides = (world or World()).from_first(sides)
    if not sides:
        raise OvertoneError(
            f"data.preprocess.size is auto, and none of {len(positions)} training images can be read, such as "
            f"{source.name(positions[0])}; repair them, or give a number of pixels"
        )
    median = statistics.median(sides)
    preprocess = dataclasses.replace(recipe.data.preprocess, size=chosen_size(median))
    said = f"size auto: {preprocess.size} px; {median:g} px is the median shorter side of {len(sides)} training images"
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, preprocess=preprocess)), [said]


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
