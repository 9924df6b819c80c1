"""The teacher of a distillation: any model that the zoo loads and whose classes are those of the images."""

import warnings
from collections.abc import Sequence

from overtone import zoo
from overtone.config import Distill, Preprocess
from overtone.engine.placement import Placement
from overtone.errors import OvertoneError, some
from overtone.tasks.classification.distillation import Teacher
from overtone.zoo import classes_of, num_outputs

_MOST_NAMED = 3


def load_teacher(
    distill: Distill, classes: Sequence[str], preprocess: Preprocess, placement: Placement
) -> Teacher | None:
    """The teacher that a recipe names, or None where it names none.

    It sees the student's images: cut out, normalised and mixed for the student. A warning says where its own training
    had others.

    Args:
        distill: of the recipe.
        classes: names of the student's classes in the order of its outputs.
        preprocess: the student's.
        placement: where the student is.

    Raises:
        OvertoneError: no such model, no trained weights, or classes that are not the student's, in their order.
    """
    if distill.teacher is None:
        return None
    loaded = zoo.load_model(distill.teacher)
    if not loaded.trained:
        raise OvertoneError(
            f"distill.teacher {distill.teacher} is an architecture without weights; give published weights such as "
            "hbonet_x100.dli14_in1k, a checkpoint file or a run folder"
        )
    _check_classes(distill.teacher, num_outputs(loaded), classes_of(loaded), tuple(classes))
    differences = [
        f"{name.replace('_', ' ')} {theirs} instead of {ours}"
        for name in ("mean", "std", "size")
        if (theirs := getattr(loaded.preprocess, name)) != (ours := getattr(preprocess, name))
    ]
    if differences:
        warnings.warn(
            f"the teacher {distill.teacher} sees the student's images, but was trained with {', '.join(differences)}",
            stacklevel=2,
        )
    return Teacher(placement.model(loaded.model), placement.autocast)


def _check_classes(teacher: str, count: int, theirs: Sequence[str] | None, ours: tuple[str, ...]) -> None:
    """Stop where an output of the teacher is of another class than the student's."""
    where = f"distill.teacher {teacher}"
    if theirs is None and count == len(ours):
        raise OvertoneError(
            f"{where} has no names for its {count} classes, so it cannot be matched with the "
            "class folders; give a run folder or one of its checkpoints, which have"
        )
    if theirs is None:
        raise OvertoneError(f"{where} has {count} classes and the images have {len(ours)}; it must have the same ones")
    if tuple(theirs) == ours:
        return
    missing, others = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    if missing or others:
        sides = ((f"{where} lacks", missing), ("it has besides", others))
        difference = "; ".join(f"{what} {some(names, _MOST_NAMED)}" for what, names in sides if names)
        raise OvertoneError(f"{difference}; the teacher's classes must be the class folders")
    first = next(index for index, (own, their) in enumerate(zip(ours, theirs, strict=True)) if own != their)
    raise OvertoneError(
        f"{where} has the same classes in another order: output {first} is {theirs[first]} there and {ours[first]} "
        "here; train the teacher on folders of these names"
    )
