"""A segmentation network: backbone, decode head and, for training, an auxiliary head."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from overtone.errors import OvertoneError


class TrainingLogits(NamedTuple):
    """What a `Segmenter` gives in training mode.

    Attributes:
        logits: Of the decode head, (B, num_classes, h, w).
        auxiliary: Of the auxiliary head, (B, num_classes, h', w'); None without one.
    """

    logits: Tensor
    auxiliary: Tensor | None


class Segmenter(nn.Module):
    """Images to logits of every pixel, at the stride of the head; its state dict has the published prefixes.

    Args:
        backbone: Images (B, in_chans, H, W) to a list of maps (B, C_i, H_i, W_i), from fine to coarse.
        decode_head: That list to logits.
        auxiliary_head: One of the maps to logits; used in training mode only.
        auxiliary_map: Which map: its index in the list.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decode_head: nn.Module,
        auxiliary_head: nn.Module | None = None,
        auxiliary_map: int = -2,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head
        self.auxiliary_head = auxiliary_head
        self.auxiliary_map = auxiliary_map

    def plain(self) -> "Segmenter":
        """The same without the auxiliary head, which only training needs; see `deployment.rewrites.deploy`."""
        return Segmenter(self.backbone, self.decode_head, None, self.auxiliary_map).train(self.training)

    def get_classifier(self) -> nn.Module:
        """The heads: all but the backbone."""
        heads = [head for head in (self.decode_head, self.auxiliary_head) if head is not None]
        return nn.ModuleList(heads)

    def stage_of(self, name: str) -> int | None:
        """The stage of the backbone that a parameter is of, 0 for its stem; None for all else.

        Raises:
            OvertoneError: the backbone has no known stages.
        """
        if not name.startswith("backbone."):
            return None
        stage_of: Any = getattr(self.backbone, "stage_of", None)
        if stage_of is None:
            raise OvertoneError(
                f"{type(self.backbone).__name__} has no stages to group parameters by; use optim.layer_groups block"
            )
        return stage_of(name.removeprefix("backbone."))

    def features(self, images: Tensor) -> Sequence[Tensor]:
        """The maps of the backbone, from fine to coarse, of images (B, in_chans, H, W)."""
        return self.backbone(images)

    def auxiliary_logits(self, maps: Sequence[Tensor]) -> Tensor | None:
        """The auxiliary head's logits of the backbone's maps; None without such a head."""
        return None if self.auxiliary_head is None else self.auxiliary_head(maps[self.auxiliary_map])

    def forward(self, images: Tensor) -> Tensor | TrainingLogits:
        """Logits (B, num_classes, h, w) of images (B, in_chans, H, W); in training mode `TrainingLogits`.

        They are not resized to the images: see `overtone.heads.segmentation_inference` and the losses.
        """
        maps = self.features(images)
        logits = self.decode_head(maps)
        return TrainingLogits(logits, self.auxiliary_logits(maps)) if self.training else logits
