"""How files become images (reliability rows 1 to 4)."""

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from images_on_disk import noise
from PIL import Image

from overtone.data import decoding
from overtone.data.decoding import BadImage, decode_image


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tiff"])
def test_formats_equal_pillow(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"image.{suffix}", noise())
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(pixels(decode_image(path)), expected)


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "image.png", noise()).rename(tmp_path / "image.jpg")
    np.testing.assert_array_equal(pixels(decode_image(path)), np.asarray(noise()))


# Row 3


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("LA", "png"), ("RGBA", "png"), ("1", "png"), ("CMYK", "jpg")]
)
def test_modes_equal_pillows_conversion(tmp_path: Path, mode: str, suffix: str) -> None:
    image = noise().convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(noise(seed=1).convert("L"))
    path = saved(tmp_path / f"image.{suffix}", image)
    with Image.open(path) as stored:
        assert stored.mode == mode
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(pixels(decode_image(path)), expected)


def test_transparency_is_dropped_not_blended(tmp_path: Path) -> None:
    path = saved(tmp_path / "image.png", Image.new("RGBA", (2, 2), (200, 100, 50, 0)))
    assert decode_image(path).getpixel((0, 0)) == (200, 100, 50)


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])])
def test_palette_with_transparency(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    path = saved(tmp_path / "image.png", image, transparency=transparency)
    assert pixels(decode_image(path)).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    path = saved(tmp_path / f"image.{suffix}", Image.fromarray(values))
    assert pixels(decode_image(path))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]
    assert (np.ptp(pixels(decode_image(path)), axis=2) == 0).all()


def test_big_endian_16_bit(tmp_path: Path) -> None:
    tiff = io.BytesIO()
    Image.frombytes("I;16B", (2, 1), (257).to_bytes(2, "big") + (65535).to_bytes(2, "big")).save(tiff, "TIFF")
    path = tmp_path / "image.tif"
    path.write_bytes(tiff.getvalue())
    assert pixels(decode_image(path))[0, :, 0].tolist() == [1, 255]


def test_integers_and_floats(tmp_path: Path) -> None:
    path = saved(tmp_path / "i.tiff", Image.fromarray(np.array([[0, 65535]], dtype=np.int32)))
    assert pixels(decode_image(path))[0, :, 0].tolist() == [0, 255]
    path = saved(tmp_path / "f.tiff", Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)))
    assert pixels(decode_image(path))[0, :, 0].tolist() == [0, 128, 255]
    for values in (
        np.array([[70000]], dtype=np.int32),
        np.array([[1.5]], np.float32),
        np.array([[np.nan]], np.float32),
    ):
        with pytest.raises(BadImage, match="are not all in 0"):
            decode_image(saved(tmp_path / "beyond.tiff", Image.fromarray(values)))


def test_first_frame_of_a_gif(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    path = saved(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    assert decode_image(path).getpixel((0, 0)) == (255, 0, 0)


# Row 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation_by_policy(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    path = saved(tmp_path / f"turned.{suffix}", noise(24, 18), exif=exif)
    stored = pixels(decode_image(path, "ignore"))
    assert stored.shape == (18, 24, 3)
    np.testing.assert_array_equal(pixels(decode_image(path)), stored)
    np.testing.assert_array_equal(pixels(decode_image(path, "apply")), np.rot90(stored, -1))


@pytest.mark.parametrize("block", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"])
def test_damaged_exif_says_nothing(tmp_path: Path, block: bytes) -> None:
    path = saved(tmp_path / "odd.jpg", noise(), exif=block)
    np.testing.assert_array_equal(pixels(decode_image(path, "apply")), pixels(decode_image(path, "ignore")))


# Rows 1 and 2


def reason(path: Path) -> str:
    with pytest.raises(BadImage) as first:
        decode_image(path)
    with pytest.raises(BadImage) as second:
        decode_image(path)
    assert first.value.path == path and str(path) in str(first.value)
    assert first.value.reason == second.value.reason and str(path.parent) not in first.value.reason
    assert "\n" not in first.value.reason
    return first.value.reason


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tiff"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_cut_files_are_bad(tmp_path: Path, suffix: str, share: float) -> None:
    path = saved(tmp_path / f"cut.{suffix}", noise(64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert reason(path)


def test_reasons(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"")
    assert reason(path) == "empty file"
    path.write_text("<html>not found</html>")
    assert reason(path) == "not an image of a known format"
    assert reason(tmp_path / "gone.jpg") == "no such file or directory"
    assert reason(tmp_path) == "is a directory"
    content = io.BytesIO()
    noise(64, 64).save(content, "JPEG")
    path.write_bytes(content.getvalue()[:-500])
    assert "truncated" in reason(path)


def test_other_formats_are_not_opened(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    assert reason(tmp_path / "a.jpg") == "not an image of a known format"


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "bomb.png", Image.new("1", (20_000, 10_000)))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the pixels must not be read"))
    assert reason(path) == f"more than {decoding.MAX_PIXELS} pixels"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # another library switched Pillow's guard off
    assert reason(path) == f"more than {decoding.MAX_PIXELS} pixels"


def test_large_images_below_the_limit_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # Pillow warns between this and its double
    assert decode_image(saved(tmp_path / "large.png", noise(24, 18))).size == (24, 18)


def test_bad_image_crosses_processes(tmp_path: Path) -> None:
    error = pickle.loads(pickle.dumps(BadImage(tmp_path, "empty file")))
    assert (error.path, error.reason) == (tmp_path, "empty file")
