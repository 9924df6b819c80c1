"""Decoded pictures kept in memory: small ones take longer to decode than to be trained on."""

from PIL import Image
from torch import Tensor


class PictureCache:
    """Keeps the pixels of pictures in RGB until `num_bytes` are used; what has found room stays.

    Args:
        num_bytes: of all pixels together; 0 keeps nothing.
    """

    def __init__(self, num_bytes: int) -> None:
        self.room = num_bytes
        self._kept: dict[int, Tensor | tuple[tuple[int, int], bytes]] = {}

    def get(self, position: int) -> Image.Image | Tensor | None:
        """The picture kept for a position of the image list.

        A picture comes in memory of its own; pixels are those that are kept, which nobody must change.
        """
        kept = self._kept.get(position)
        return kept if kept is None or isinstance(kept, Tensor) else Image.frombytes("RGB", *kept)

    def keep(self, position: int, picture: Image.Image | Tensor) -> None:
        """Keep a picture in RGB, or its pixels, uint8 `(H, W, 3)`, if there is room."""
        is_pixels = isinstance(picture, Tensor)
        num_bytes = picture.numel() if is_pixels else 3 * picture.width * picture.height
        if num_bytes <= self.room:
            self.room -= num_bytes
            self._kept[position] = picture if is_pixels else (picture.size, picture.tobytes())
