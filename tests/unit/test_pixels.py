"""Decoding, cropping and resizing on the pixels themselves give what Pillow gives."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from images_on_disk import classes_of, noise
from PIL import Image, ImageFilter
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision import transforms as tv

from overtone.config import Augment, Preprocess
from overtone.data import jpeg
from overtone.data.cropping import resized
from overtone.data.decoded_cache import DecodedCache, Memory
from overtone.data.decoding import BadImage, as_pixels, decode_image, decode_pixels
from overtone.data.loader import Loader
from overtone.data.seeding import seeded
from overtone.data.sources import ImageList
from overtone.data.transforms import training_transform

FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3, "lanczos": 1}  # Pillow's numbers


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image with soft and sharp parts, as photographs have."""
    return noise(width, height, seed).filter(ImageFilter.GaussianBlur(3))


def stored(path: Path, image: Image.Image, kind: str = "JPEG", **options: object) -> Path:
    image.save(path, kind, **options)
    return path


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# Decoding

FILES: dict[str, tuple[str, str, dict[str, object]]] = {  # mode, format, options
    "4:4:4": ("RGB", "JPEG", {"subsampling": 0}),
    "4:2:2": ("RGB", "JPEG", {"subsampling": 1}),
    "4:2:0": ("RGB", "JPEG", {"subsampling": 2, "quality": 95}),
    "progressive": ("RGB", "JPEG", {"progressive": True}),
    "restarts": ("RGB", "JPEG", {"restart_marker_rows": 1}),
    "stored as RGB": ("RGB", "JPEG", {"keep_rgb": True}),
    "two images": ("RGB", "MPO", {"save_all": True, "append_images": [noise(20, 20)]}),
    "grey": ("L", "JPEG", {}),
    "CMYK": ("CMYK", "JPEG", {}),
    "palette": ("P", "PNG", {}),
    "palette, transparent": ("P", "PNG", {"transparency": 3}),
    "RGBA": ("RGBA", "PNG", {}),
    "grey and alpha": ("LA", "PNG", {}),
    "16 bits": ("I;16", "PNG", {}),
    "one bit": ("1", "PNG", {}),
    "WebP": ("RGB", "WEBP", {}),
    "TIFF": ("RGB", "TIFF", {}),
    "GIF": ("P", "GIF", {}),
    "BMP": ("RGB", "BMP", {}),
}


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 251)
    return image.convert(mode)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (17, 33), (100, 75)])
def test_pixels_are_those_of_the_image(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    mode, kind, options = FILES[name]
    path = stored(tmp_path / "file", in_mode(noise(*size), mode), kind, **options)
    pixels = decode_pixels(path)
    assert pixels.dtype == torch.uint8 and pixels.shape == (size[1], size[0], 3)
    np.testing.assert_array_equal(pixels.numpy(), np.asarray(decode_image(path)))
    with Image.open(path) as image:  # and those are Pillow's
        expected = image.convert("RGB") if mode != "I;16" else noise(*size).convert("L").convert("RGB")
    if mode == "I;16":
        expected = expected.point(lambda value: round(value * 251 / 257))
    np.testing.assert_array_equal(pixels.numpy(), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("exif", ["ignore", "apply"])
def test_exif_policy(tmp_path: Path, orientation: int, exif: str) -> None:
    path = stored(tmp_path / "file.jpg", photo(30, 20), exif=turned(orientation))
    pixels = decode_pixels(path, exif)  # type: ignore[arg-type]
    np.testing.assert_array_equal(pixels.numpy(), np.asarray(decode_image(path, exif)))  # type: ignore[arg-type]
    assert pixels.shape == ((30, 20, 3) if exif == "apply" and orientation in range(5, 9) else (20, 30, 3))


def test_a_damaged_exif_block_says_nothing(tmp_path: Path) -> None:
    path = stored(tmp_path / "odd.jpg", noise(), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert torch.equal(decode_pixels(path, "apply"), decode_pixels(path, "ignore"))


def reason(decode: object, path: Path) -> str:
    with pytest.raises(BadImage) as error:
        decode(path)  # type: ignore[operator]
    assert error.value.path == path
    return error.value.reason


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_bad_jpeg_files_have_the_same_reason(tmp_path: Path, options: dict[str, object]) -> None:
    path = stored(tmp_path / "file.jpg", photo(80, 60), quality=95, **options)
    content = path.read_bytes()
    seen = set()
    # empty, no header, half a header, cut off in the pixels, without the end marker, not an image
    for cut in (b"", content[:2], content[:100], content[: len(content) // 2], content[:-2], b"no image"):
        path.write_bytes(cut)
        assert reason(decode_pixels, path) == reason(decode_image, path)
        seen.add(reason(decode_pixels, path).partition("(")[0])
    assert {"empty file", "image file is truncated ", "not an image of a known format"} <= seen
    path.write_bytes(content + b"and more")
    np.testing.assert_array_equal(decode_pixels(path).numpy(), np.asarray(decode_image(path)))


def test_missing_files_have_the_same_reason(tmp_path: Path) -> None:
    assert reason(decode_pixels, tmp_path / "gone.jpg") == "no such file or directory"
    assert reason(decode_pixels, tmp_path) == reason(decode_image, tmp_path) == "is a directory"


def test_large_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path / "file.jpg", noise(40, 30))
    monkeypatch.setattr("overtone.data.decoding.MAX_PIXELS", 1199)
    assert reason(decode_pixels, path) == "more than 1199 pixels"


@pytest.fixture
def other_decoder(monkeypatch: pytest.MonkeyPatch):
    """Put another function in the place of torchvision's decoder."""

    def put(decoder: object) -> None:
        monkeypatch.setattr(jpeg, "_decode_jpeg", decoder)
        monkeypatch.setattr(jpeg, "_by_simplejpeg", lambda content, size: None)
        jpeg._decoders.cache_clear()

    yield put
    jpeg._decoders.cache_clear()


def test_without_torchvisions_decoder_pillow_decodes(tmp_path: Path, other_decoder) -> None:
    path = stored(tmp_path / "file.jpg", photo(80, 60))
    expected = np.asarray(decode_image(path))
    other_decoder(None)
    np.testing.assert_array_equal(decode_pixels(path).numpy(), expected)


def test_a_decoder_with_other_pixels_is_not_used(tmp_path: Path, other_decoder) -> None:
    path = stored(tmp_path / "file.jpg", photo(80, 60))
    expected = np.asarray(decode_image(path))

    def another(content: Tensor) -> Tensor:
        return torch.from_numpy(np.array(Image.open(io.BytesIO(content.numpy().tobytes())))).permute(2, 0, 1) ^ 1

    other_decoder(another)
    np.testing.assert_array_equal(decode_pixels(path).numpy(), expected)


def test_a_decoder_with_pillows_pixels_is_used(tmp_path: Path, other_decoder) -> None:
    path = stored(tmp_path / "file.jpg", photo(80, 60))
    sizes = []

    def as_pillow(content: Tensor) -> Tensor:
        image = Image.open(io.BytesIO(content.numpy().tobytes()))
        sizes.append(image.size)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    other_decoder(as_pillow)
    np.testing.assert_array_equal(decode_pixels(path).numpy(), np.asarray(decode_image(path)))
    assert sizes[-1] == (80, 60)


def test_pixels_that_are_looked_at_stay(tmp_path: Path) -> None:
    paths = [stored(tmp_path / f"{seed}.jpg", noise(80, 60, seed)) for seed in range(3)]
    expected = [np.asarray(decode_image(path)) for path in paths]
    whole = decode_pixels(paths[0])
    part = decode_pixels(paths[1])[10:20]
    for _ in range(2):  # whose memory the next one may have
        np.testing.assert_array_equal(decode_pixels(paths[2]).numpy(), expected[2])
    np.testing.assert_array_equal(whole.numpy(), expected[0])
    np.testing.assert_array_equal(part.numpy(), expected[1][10:20])


# Resizing


def by_pillow(image: Image.Image, size: int, interpolation: str) -> np.ndarray:
    """Pillow's resize; bilinear and bicubic across and then down, as all its versions before 13 compute it."""
    if interpolation in ("nearest", "lanczos"):
        return np.asarray(image.resize((size, size), FILTERS[interpolation])).astype(int)
    across = image.resize((size, image.height), FILTERS[interpolation])
    return np.asarray(across.resize((size, size), FILTERS[interpolation])).astype(int)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("make", [noise, photo])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (31, 17), (64, 64), (65, 64), (90, 143), (500, 375)])
def test_resize_is_pillows_to_one_grey_level(interpolation: str, make, size: tuple[int, int]) -> None:
    image = make(*size)
    pixels = resized(as_pixels(image), 64, interpolation)  # type: ignore[arg-type]
    assert pixels.shape == (64, 64, 3) and pixels.dtype == torch.uint8
    difference = np.abs(pixels.numpy().astype(int) - by_pillow(image, 64, interpolation))
    if interpolation in ("nearest", "lanczos"):
        assert difference.max() == 0
    else:
        assert difference.max() <= (2 if interpolation == "bicubic" else 1)
        assert (difference > 0).mean() < 0.06 and (difference > 1).mean() < 1e-3


# The whole of training's transform

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def grey_levels(image: Tensor) -> np.ndarray:
    return (image * 255).round().int().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(100, 75), (33, 90), (200, 20), (5, 7)])
def test_training_is_the_published_pipeline_to_one_grey_level(interpolation: str, size: tuple[int, int]) -> None:
    preprocess = Preprocess(size=32, interpolation=interpolation, **PLAIN)  # type: ignore[arg-type]
    ours = training_transform(preprocess, Augment(vflip=0.3))
    flips = [tv.RandomHorizontalFlip(0.5), tv.RandomVerticalFlip(0.3)]
    image = photo(*size)
    outcomes = set()
    for number in range(20):
        with seeded(number):
            found = grey_levels(ours(image))
        with seeded(number):
            top, left, height, width = RandomResizedCropAndInterpolation.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
            crop = image.crop((left, top, left + width, top + height))
            expected = tv.Compose(flips)(Image.fromarray(by_pillow(crop, 32, interpolation).astype(np.uint8)))
        assert np.abs(found - np.asarray(expected).astype(int)).max() <= 1
        outcomes.add(found.tobytes())
    assert len(outcomes) > 3


@pytest.mark.parametrize("corner", ["top left", "bottom right"])
def test_crops_reach_the_edges(corner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo(61, 47)
    width, height = 24, 18
    left, top = (0, 0) if corner == "top left" else (61 - width, 47 - height)
    monkeypatch.setattr(
        RandomResizedCropAndInterpolation, "get_params", staticmethod(lambda *_: (top, left, height, width))
    )
    found = grey_levels(training_transform(Preprocess(size=32, **PLAIN), Augment(hflip=0.0))(image))  # type: ignore[arg-type]
    expected = by_pillow(image.crop((left, top, left + width, top + height)), 32, "bilinear")
    assert np.abs(found - expected).max() <= 1


AUGMENTS = {
    "crop": Augment(),
    "everything": Augment(vflip=0.5, rand_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5),
    "jitter": Augment(color_jitter=0.4),
    "pad": Augment(crop="pad", random_erasing=1.0),
    "none": Augment(crop="none"),
}


@pytest.fixture
def jpegs(tmp_path: Path) -> ImageList:
    sizes = [(60, 45), (45, 60), (33, 90), (64, 64), (51, 37), (80, 20), (24, 18)]
    paths = [stored(tmp_path / f"{n}.jpg", photo(*size, seed=n), quality=90) for n, size in enumerate(sizes)]
    return ImageList(("a",), tuple(paths), (0,) * len(paths))


@pytest.mark.parametrize("kind", AUGMENTS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_batch_is_the_transform_of_each_image(jpegs: ImageList, kind: str, channels_last: bool) -> None:
    transform = training_transform(Preprocess(size=32), AUGMENTS[kind])
    loader = Loader(jpegs, classes_of(transform, channels_last=channels_last), batch_size=4, shuffle=True, seed=5)
    loader.set_epoch(2)
    seen = []
    for batch in loader:
        assert batch.inputs.is_contiguous(
            memory_format=torch.channels_last if channels_last else torch.contiguous_format
        )
        for position, image in zip(batch.ids.tolist(), batch.inputs, strict=True):
            with seeded(5, 2, position):
                assert torch.equal(image, transform(decode_image(jpegs.paths[position])))
            seen.append(position)
    assert sorted(seen) == list(range(7))


@pytest.mark.parametrize("channels_last", [False, True])
def test_workers_keep_the_layout_and_bad_files_leave_no_hole(jpegs: ImageList, channels_last: bool) -> None:
    transform = training_transform(Preprocess(size=32), AUGMENTS["everything"])
    for position in (0, 4):
        jpegs.paths[position].write_bytes(jpegs.paths[position].read_bytes()[:-200])
    found = []
    for workers in (0, 1):
        loader = Loader(jpegs, classes_of(transform, channels_last=channels_last), batch_size=4, workers=workers)
        found.append(list(loader))
        loader.close()
    assert [batch.ids.tolist() for batch in found[0]] == [[1, 2, 3], [5, 6]]
    assert [position for batch in found[0] for position, _ in batch.bad] == [0, 4]
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for here, there in zip(*found, strict=True):
        assert torch.equal(here.inputs, there.inputs) and here.bad == there.bad
        assert len(here.inputs) == len(here.ids) and torch.isfinite(here.inputs).all()
        assert there.inputs.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("kind", ["crop", "none"])
def test_cached_images_give_the_same_batches(jpegs: ImageList, kind: str) -> None:
    transform = training_transform(Preprocess(size=32), AUGMENTS[kind])
    fresh, cached = (
        Loader(jpegs, classes_of(transform), batch_size=7, shuffle=True, cache=DecodedCache(Memory(num_bytes)))
        for num_bytes in (0, 1 << 20)
    )
    epochs = []
    for epoch in range(3):
        fresh.set_epoch(epoch)
        epochs.append(next(iter(fresh)).inputs)
    for epoch in range(3):
        cached.set_epoch(epoch)
        assert torch.equal(next(iter(cached)).inputs, epochs[epoch])
        for path in jpegs.paths:
            path.unlink(missing_ok=True)  # from now on there is nothing but the cache


# of two opposite corners, by the version before pixels took the place of Pillow's images
RECORDED = [[147, 8, 45, 92], [185, 144, 31, 8], [15, 16, 175, 142], [87, 119, 183, 13]]


def test_what_is_drawn_is_what_it_was() -> None:
    """A training resumed by a newer version has the same crops and flips."""
    ramp = np.zeros((75, 100, 3), dtype=np.uint8)
    ramp[..., 0], ramp[..., 1] = 2 * np.arange(100)[None, :], 2 * np.arange(75)[:, None]
    transform = training_transform(Preprocess(size=16, **PLAIN), Augment(vflip=0.5))  # type: ignore[arg-type]
    corners = []
    for number in range(4):
        with seeded(0, number):
            found = grey_levels(transform(Image.fromarray(ramp)))
        corners.append([found[0, 0, 0], found[0, 0, 1], found[-1, -1, 0], found[-1, -1, 1]])
    np.testing.assert_allclose(corners, RECORDED, atol=1)


# The header of a plain file is read without Pillow


@pytest.mark.parametrize("name", FILES)
def test_plain_files_are_known_by_their_header(tmp_path: Path, name: str) -> None:
    mode, kind, options = FILES[name]
    path = stored(tmp_path / "file", in_mode(noise(70, 41), mode), kind, **options)
    plain = mode == "RGB" and kind in ("JPEG", "MPO")
    assert jpeg.frame_size(path.read_bytes()) == ((70, 41) if plain else None)


def test_headers_with_everything_before_the_frame(tmp_path: Path) -> None:
    options = {"exif": turned(6), "comment": b"\xff\xc0 no frame", "icc_profile": b"\xff\xc0" * 50_000, "dpi": (72, 72)}
    content = stored(tmp_path / "file.jpg", noise(70, 41), **options).read_bytes()
    assert jpeg.frame_size(content) == (70, 41)
    for length in range(0, len(content), 97):  # cut anywhere, it is not known or known rightly
        assert jpeg.frame_size(content[:length]) in (None, (70, 41))


def test_odd_headers_are_left_to_pillow(tmp_path: Path) -> None:
    content = stored(tmp_path / "file.jpg", noise(70, 41)).read_bytes()
    frame = content.index(b"\xff\xc0")
    for position, value in ((frame + 4, 12), (frame + 9, 4), (frame + 1, 0xC9), (frame, 0x00), (2, 0x00), (3, 0xD9)):
        changed = bytearray(content)
        changed[position] = value
        assert jpeg.frame_size(bytes(changed)) is None
