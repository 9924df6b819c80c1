"""Predictions as JSON values, with masks in the form that was asked for."""

from typing import Any, Literal

MaskChoice = Literal["png", "rle", "none"]


def answer_of(prediction: Any, size: tuple[int, int], masks: MaskChoice) -> dict[str, Any]:
    """A task's prediction as JSON values.

    Args:
        prediction: see `tasks.task.Prediction`; one with masks has `masks_to_dict` too.
        size: width and height of the image as it is stored, pixels.
        masks: how masks are written.
    """
    values = {"width": size[0], "height": size[1], **prediction.to_dict()}
    details = getattr(prediction, "details", None)
    if details is not None:
        values |= details()
    add_masks = getattr(prediction, "masks_to_dict", None)
    return values if add_masks is None or masks == "none" else add_masks(values, masks)
