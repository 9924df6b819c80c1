"""Knowledge distillation: a trained network's outputs as further targets."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overtone.config import Distill


class Teacher:
    """A trained network that gives its outputs on the student's images and never learns.

    Args:
        model: the network, where the images are; it is put into eval mode and takes no gradient.
        autocast: gives the context of its forward pass, the same as the student's.
    """

    def __init__(self, model: nn.Module, autocast: Callable[[], AbstractContextManager[object]]) -> None:
        self.model, self.autocast = model.eval().requires_grad_(False), autocast

    def __call__(self, images: Tensor) -> Tensor:
        """Logits float32 (B, K) of images (B, 3, H, W)."""
        with torch.no_grad(), self.autocast():
            outputs = self.model(images)
        return outputs.float()


def distillation_loss(outputs: Tensor, taught: Tensor, distill: Distill) -> Tensor:
    """What the teacher adds to the loss, summed over the images.

    Soft: T^2 * KL(softmax(taught / T) || softmax(outputs / T)), T the temperature (Hinton et al. 2015,
    arXiv:1503.02531, section 2); 0 where both say the same. Hard: cross entropy with the teacher's top-1 as the class
    (Touvron et al. 2021, arXiv:2012.12877, equation 3); the temperature does not matter then.

    Args:
        outputs: the student's logits, float32 (B, K).
        taught: the teacher's, without gradient.
        distill: temperature, and whether hard.
    """
    if distill.hard:
        return F.cross_entropy(outputs, taught.argmax(1), reduction="sum")
    temperature = distill.temperature
    student, teacher = (F.log_softmax(logits / temperature, dim=1) for logits in (outputs, taught))
    return F.kl_div(student, teacher, reduction="sum", log_target=True) * temperature**2
