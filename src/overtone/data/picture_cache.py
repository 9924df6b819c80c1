"""Decoded pictures kept in memory: small ones take longer to decode than to be trained on."""

from PIL import Image


class PictureCache:
    """Keeps the pixels of pictures in RGB until `num_bytes` are used; what has found room stays.

    Args:
        num_bytes: of all pixels together; 0 keeps nothing.
    """

    def __init__(self, num_bytes: int) -> None:
        self.room = num_bytes
        self._kept: dict[int, tuple[tuple[int, int], bytes]] = {}

    def get(self, position: int) -> Image.Image | None:
        """The picture kept for a position of the image list: the same pixels, in memory of its own."""
        kept = self._kept.get(position)
        return None if kept is None else Image.frombytes("RGB", *kept)

    def keep(self, position: int, picture: Image.Image) -> None:
        """Keep a picture in RGB if there is room."""
        num_bytes = 3 * picture.width * picture.height
        if num_bytes <= self.room:
            self.room -= num_bytes
            self._kept[position] = picture.size, picture.tobytes()
