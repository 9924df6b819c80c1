"""The size of an image file, from its header."""

from PIL import ExifTags

from overtone.data.decoding import BadImage, Encoded, Exif, opened_header

_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def image_size(path: Encoded, exif: Exif) -> tuple[int, int]:
    """Height and width of an image as it will be decoded; (0, 0) of a file that cannot be read, which decoding names.

    Args:
        path: the file, or its bytes.
        exif: whether it is turned as its EXIF orientation says.
    """
    try:
        with opened_header(path) as image:
            width, height = image.size
            is_turned = exif == "apply" and image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
    except BadImage:
        return 0, 0
    return (width, height) if is_turned else (height, width)
