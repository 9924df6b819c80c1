"""Valid images of absurd shape or with much beside their pixels: bounded memory, and the others are read (row 29)."""

import io
import os
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from images_on_disk import noise
from PIL import Image, PngImagePlugin
from torchvision import transforms as tv

from overtone.config import Augment, Preprocess
from overtone.data import bounded_resize, decoding
from overtone.data.bounded_resize import ResizeAndCrop, Squash
from overtone.data.cropping import resized
from overtone.data.decoding import BadImage, decode_image, decode_pixels
from overtone.data.loader import Loader
from overtone.data.pipeline import ImagePipeline, class_of
from overtone.data.sources import ImageList
from overtone.data.transforms import evaluation_transform, training_transform

FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")


def edges(width: int, height: int) -> Image.Image:
    """Noise with hard edges, where the rounding of weights shows first."""
    values = np.asarray(noise(width, height)).copy()
    values[np.random.default_rng(width).random((height, width)) < 0.5] = 255
    return Image.fromarray(values)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("shorter", "size"), [(37, 32), (32, 32), (256, 224), (29, 8), (23, 24)])
def test_a_part_of_the_resize_is_the_whole_resize_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch, interpolation: str, shorter: int, size: int
) -> None:
    ours = ResizeAndCrop(shorter, size, interpolation)  # type: ignore[arg-type]
    whole = tv.Compose([tv.Resize(shorter, tv.InterpolationMode(interpolation)), tv.CenterCrop(size)])
    monkeypatch.setattr(bounded_resize, "MAX_RESIZED", 0)
    for sides in [(1, 1), (1, 2), (3, 1), (1, 301), (301, 2), (5, 77), (78, 5), (7, 8), (9, 7), (13, 1000), (19, 20)]:
        image = edges(*sides)
        np.testing.assert_array_equal(np.asarray(ours(image)), np.asarray(whole(image)), err_msg=str(sides))


@pytest.mark.parametrize("sides", [(1, 40_000), (40_000, 1), (3, 90_001), (90_001, 3)])
@pytest.mark.parametrize("interpolation", FILTERS[1:])
def test_it_is_for_long_images_too(monkeypatch: pytest.MonkeyPatch, sides: tuple[int, int], interpolation: str) -> None:
    ours = ResizeAndCrop(37, 32, interpolation)  # type: ignore[arg-type]
    image = edges(*sides)
    expected = np.asarray(ours(image))
    monkeypatch.setattr(bounded_resize, "MAX_RESIZED", 1 << 16)
    monkeypatch.setattr(ours, "resize", lambda _: pytest.fail("the whole image must not be resized"))
    np.testing.assert_array_equal(np.asarray(ours(image)), expected)


def test_a_square_of_a_long_image_is_refused_before_it_is_computed() -> None:
    for sides in ((1, 700_000), (700_000, 1), (200, 700_000)):
        with pytest.raises(BadImage, match=f"{sides[0]} x {sides[1]} pixels are too long and narrow"):
            Squash(224, "bicubic")(Image.new("RGB", sides))
        with pytest.raises(BadImage, match="too long and narrow"):
            resized(torch.zeros(sides[1], sides[0], 3, dtype=torch.uint8), 224, "bilinear")
    assert Squash(224, "bicubic")(Image.new("RGB", (1, 100_000))).size == (224, 224)


def test_memory_that_runs_out_is_one_bad_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise MemoryError

    preprocess = Preprocess(size=8)
    noise(20, 20).save(tmp_path / "a.png")
    for transform in (evaluation_transform(preprocess), training_transform(preprocess, Augment())):
        with monkeypatch.context() as patch:
            patch.setattr(tv.functional, "resize", none_left)
            patch.setattr("overtone.data.cropping.resized", none_left)
            with pytest.raises(BadImage, match="not enough memory"):
                transform(noise(20, 20))
    monkeypatch.setattr(Image.Image, "convert", none_left)
    monkeypatch.setattr(decoding, "as_pixels", none_left)
    monkeypatch.setattr(decoding, "_to_rgb", none_left)
    for decode in (decode_image, decode_pixels):
        with pytest.raises(BadImage, match=r"a\.png: not enough memory"):
            decode(tmp_path / "a.png")


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A grey PNG file of zeros, made without its pixels in memory, with chunks before them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row, press = bytes(width + 1), zlib.compressobj(1)
    rows = b"".join(press.compress(row) for _ in range(height)) + press.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    middle = b"".join(chunk(*given) for given in chunks)
    return PngImagePlugin._MAGIC + chunk(b"IHDR", header) + middle + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


_MEASURE = """
    import resource, sys
    import torch
    from pathlib import Path
    from overtone.config import Augment, Preprocess
    from overtone.data.loader import Loader
    from overtone.data.pipeline import ImagePipeline, class_of
    from overtone.data.sources import ImageList
    from overtone.data.transforms import evaluation_transform, training_transform

    paths = tuple(sorted(Path(sys.argv[1]).iterdir()))
    images = ImageList(("a",), paths, (0,) * len(paths))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for transform in (evaluation_transform(Preprocess()), training_transform(Preprocess(), Augment())):
        good = []
        pipeline = ImagePipeline(transform, class_of, torch.empty(0, dtype=torch.int64))
        for batch in Loader(images, pipeline, batch_size=2):
            good += [paths[position].name for position in batch.ids.tolist()]
            for position, reason in batch.bad:
                print("bad", paths[position].name, reason)
        print("good", *good)
    print("grown", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_stays_bounded_and_the_others_go_on(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(300_000_000), 9)
    (tmp_path / "a.png").write_bytes(png(1, 1_000_000))
    (tmp_path / "b.png").write_bytes(png(20_000_000, 1))
    (tmp_path / "c.png").write_bytes(png(5, 5, (b"zTXt", b"a\0\0" + bomb)))
    (tmp_path / "d.png").write_bytes(png(5, 5, (b"iCCP", b"a\0\0" + bomb)))
    (tmp_path / "e.png").write_bytes(png(5, 5, (b"tEXt", b"a\0" + bytes(40_000_000))))
    frames = [Image.new("L", (64, 64), value % 256) for value in range(2000)]
    frames[0].save(tmp_path / "f.gif", save_all=True, append_images=frames[1:])
    noise(60, 50).save(tmp_path / "z.png")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_MEASURE), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line in (line for line in lines if line.startswith("good")):
        assert {"a.png", "b.png", "f.gif", "z.png"} <= set(line.split())
    bad = {line.split()[1] for line in lines if line.startswith("bad")}
    assert bad <= {"c.png", "d.png", "e.png"}
    # 20 million pixels take 80 MB in Pillow, and a copy of 60 MB as a tensor
    assert int(lines[-1].split()[1]) < 500, done.stdout


def test_the_loader_goes_on_after_a_shape_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "long.png").write_bytes(png(700_000, 1))
    noise(60, 50).save(tmp_path / "good.png")
    images = ImageList(("a",), (tmp_path / "long.png", tmp_path / "good.png"), (0, 0))
    transform = evaluation_transform(Preprocess(resize="squash"))
    (batch,) = Loader(images, ImagePipeline(transform, class_of, torch.empty(0, dtype=torch.int64)), batch_size=2)
    assert batch.ids.tolist() == [1]
    assert [position for position, _ in batch.bad] == [0] and "too long and narrow" in batch.bad[0][1]


def test_deep_images_are_scaled_in_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_BAND", 100)
    values = np.random.default_rng(0).integers(0, 65536, (37, 41), dtype=np.uint16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    (tmp_path / "deep.png").write_bytes(file.getvalue())
    found = np.asarray(decode_image(tmp_path / "deep.png"))[..., 0]
    np.testing.assert_array_equal(found, np.rint(values / 257).astype(np.uint8))
