"""The opener of image files: regular files only, at once, within a bound; and what names and libraries may print."""

import contextlib
import os
import pickle
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from images_on_disk import noise
from PIL import Image

from overtone.data import opening
from overtone.data.decoding import BadImage, decode_image, decode_pixels, open_scaled
from overtone.data.opening import is_folder, read_file, resolved_once
from overtone.data.silent_codecs import silent_codecs
from overtone.data.sources import find_images
from overtone.errors import OvertoneError, printable


@pytest.fixture(autouse=True)
def _nothing_hangs() -> Iterator[None]:
    def hangs(*_: object) -> None:
        raise TimeoutError("the opener waits")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def odd_paths(folder: Path) -> dict[Path, str]:
    """Paths that are no image file, with the reason that is to be given."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "pipe link.jpg").symlink_to(folder / "pipe.jpg")
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    (folder / "there.jpg").symlink_to(folder / "back.jpg")
    (folder / "back.jpg").symlink_to(folder / "there.jpg")
    (folder / "broken.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "file").write_bytes(b"")
    return {
        folder / "pipe.jpg": "is a pipe, not a file",
        folder / "pipe link.jpg": "is a pipe, not a file",
        folder / "itself.jpg": "too many levels of symbolic links",
        folder / "there.jpg": "too many levels of symbolic links",
        folder / "broken.jpg": "no such file or directory",
        folder / "folder.jpg": "is a directory",
        folder / "file": "empty file",
        folder / "file" / "below.jpg": "not a directory",
        folder / ("a" * 5000): "file name too long",
        folder / "/".join("a" * 5000): "file name too long",
        folder / "nul\0.jpg": "embedded null byte",
        Path("/dev/zero"): "is a device, not a file",
        Path("/dev/tty"): "is a device, not a file",
    }


def test_each_odd_path_is_one_bad_image_with_its_reason(tmp_path: Path) -> None:
    for path, reason in odd_paths(tmp_path).items():
        for decode in (decode_image, decode_pixels, open_scaled):
            with pytest.raises(BadImage) as error:
                decode(path)
            assert reason in error.value.reason, path
            assert error.value.path == path


def test_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name has at most a hundred bytes
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
        with pytest.raises(BadImage, match="is a socket"):
            decode_image(Path("socket.jpg"))


def test_a_pipe_put_in_place_of_a_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"a")
    status = os.stat(tmp_path / "file")
    monkeypatch.setattr(opening.os, "stat", lambda _: status)
    with pytest.raises(OSError, match="is a pipe"):
        read_file(tmp_path / "pipe")


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    noise().save(tmp_path / "a.png")
    monkeypatch.setattr(opening.os, "open", denied)
    with pytest.raises(BadImage, match=r"a\.png: permission denied"):
        decode_image(tmp_path / "a.png")


def test_no_more_than_the_bound_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(OSError, match="is larger than"):
        read_file(path, 4)
    with path.open("wb") as file:
        file.truncate(opening.MAX_BYTES + 1)  # takes no room on the disk
    with pytest.raises(BadImage, match="is larger than 600,000,000 bytes"):
        decode_pixels(path)
    with pytest.raises(OSError, match="is larger than"):
        read_file(Path("/proc/self/status"), 10)  # its size is said to be 0


def test_bytes_are_decoded_as_a_file_is(tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        path = tmp_path / f"a.{suffix}"
        noise().save(path)
        content = path.read_bytes()
        np.testing.assert_array_equal(np.asarray(decode_image(content)), np.asarray(decode_image(path)))
        assert (decode_pixels(content) == decode_pixels(path)).all()
        open_scaled(content)
        with pytest.raises(BadImage) as error:
            decode_image(content[:200])
        assert error.value.path is None and str(error.value) == error.value.reason
        assert pickle.loads(pickle.dumps(error.value)).reason == error.value.reason
    with pytest.raises(BadImage, match="empty file"):
        decode_pixels(b"")


def test_images_are_found_beside_odd_paths(tmp_path: Path) -> None:
    noise().save(tmp_path / "good.png")
    odd = list(odd_paths(tmp_path))
    odd.remove(tmp_path / "folder.jpg")
    odd.remove(tmp_path / "pipe link.jpg")  # the same pipe
    assert find_images([*odd, tmp_path / "good.png", tmp_path / "good.png"]) == [*odd, tmp_path / "good.png"]
    assert find_images([tmp_path]) == [tmp_path / "good.png"]  # what lies in a folder and is no image is not one
    with pytest.raises(OvertoneError, match=r"folder\.jpg holds no images"):
        find_images([tmp_path / "folder.jpg"])


def test_the_same_file_has_one_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    assert resolved_once(tmp_path / "link") == resolved_once(tmp_path / "file")
    assert resolved_once(tmp_path / "x\0") == tmp_path / "x\0"
    assert is_folder(tmp_path) and not is_folder(tmp_path / "file") and not is_folder(tmp_path / "x\0")


# What reaches a terminal


def test_control_characters_are_escaped() -> None:
    assert printable("a\x1b[2Jb\nc\rd\x07\x9b\u202ee\u2028") == r"a\x1b[2Jb\nc\rd\x07\x9b\u202ee\u2028"
    assert printable("naïve 日本 \U0001f469\u200d\U0001f680 C:\\x") == "naïve 日本 \U0001f469\u200d\U0001f680 C:\\x"
    assert printable(os.fsdecode(b"a\xff.jpg")) == r"a\xff.jpg"
    assert printable("\ud800") == r"\ud800"
    assert printable("a\x1b\nb", lines=True) == "a\\x1b\nb"
    error = OvertoneError("a\x1b[31m.jpg\nis not an image")
    assert str(error) == r"a\x1b[31m.jpg\nis not an image"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def damaged_jpeg(path: Path) -> Path:
    noise(64, 64).save(path, "JPEG")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    return path


def damaged_tiff(path: Path) -> Path:
    noise(64, 64).save(path, "TIFF", compression="tiff_adobe_deflate")
    with Image.open(path) as image:
        start = image.tag_v2[273][0]
    content = bytearray(path.read_bytes())
    content[start + 50 : start + 60] = bytes(10)
    path.write_bytes(content)
    return path


def test_libraries_write_nothing_to_standard_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Image.open(damaged_tiff(tmp_path / "a.tif")) as image, pytest.raises(OSError):
        image.load()
    assert "Decode" in capfd.readouterr().err  # it would have
    for path in (damaged_jpeg(tmp_path / "a.jpg"), tmp_path / "a.tif"):
        for decode in (decode_image, decode_pixels):
            with contextlib.suppress(BadImage):
                decode(path)
    assert capfd.readouterr().err == ""


def test_what_others_write_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    inside, outside = threading.Event(), threading.Event()

    def decodes() -> None:
        with silent_codecs():
            inside.set()
            assert outside.wait(10)

    thread = threading.Thread(target=decodes)
    with silent_codecs():
        thread.start()
        assert inside.wait(10)
        os.write(2, b"LZWDecode: Not enough data at scanline 0\nmine\n")
    os.write(2, b"Corrupt JPEG data: bad Huffman code\nalso mine")
    outside.set()
    thread.join()
    os.write(2, b" after")
    assert capfd.readouterr().err == "mine\nalso mine after"


def test_a_process_forked_meanwhile_has_its_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with silent_codecs():
        child = os.fork()
        if not child:
            os.write(2, b"from the child\n")
            os._exit(0)
        os.waitpid(child, 0)
    assert capfd.readouterr().err == "from the child\n"
