"""Files of weights read safely (row 13 of the reliability table): nothing runs, no memory is taken on a claim."""

import argparse
import io
import os
import pickle
import re
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import overtone
from overtone import zoo
from overtone.errors import OvertoneError
from overtone.zoo.reading import FileContents, inspect_file, read_values

STATE = {"a.weight": torch.arange(12.0).reshape(3, 4).t(), "b": torch.tensor(7), "c": torch.ones(2, dtype=torch.half)}


def save(path: Path, values: Any, legacy: bool = False) -> Path:
    torch.save(values, path, _use_new_zipfile_serialization=not legacy)
    return path


def assert_same(read: Any, written: Any) -> None:
    assert list(read) == list(written)
    for key, value in written.items():
        assert torch.equal(read[key], value) and read[key].dtype == value.dtype, key


both_formats = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


@both_formats
def test_both_formats_of_pytorch(tmp_path: Path, legacy: bool) -> None:
    path = save(
        tmp_path / "net.pth", {"model": STATE, "epoch": 3, "name": "x" * 300, "best": [1.5, (None, True)]}, legacy
    )
    contents = inspect_file(path)
    assert contents.format == ("torch legacy" if legacy else "torch zip")
    assert {key: (info.shape, info.dtype) for key, info in contents.values["model"].items()} == {
        key: (tuple(value.shape), value.dtype) for key, value in STATE.items()
    }
    assert contents.values["best"] == [1.5, (None, True)]
    assert_same(read_values(path)["model"], STATE)


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file({key: value.contiguous() for key, value in STATE.items()}, path, metadata={"format": "pt"})
    contents = inspect_file(path)
    assert contents.format == "safetensors" and contents.metadata == {"format": "pt"}
    assert contents.values["a.weight"].shape == (4, 3)
    assert_same(dict(sorted(read_values(path).items())), STATE)
    save_file({"a": torch.ones(2, dtype=torch.complex64)}, path)
    with pytest.raises(OvertoneError, match="type C64"):
        inspect_file(path)


def test_what_is_read_does_not_hang_on_the_file(tmp_path: Path) -> None:
    path = save(tmp_path / "net.pth", STATE)
    state = zoo.read_state_dict(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert_same(state, STATE)


@both_formats
def test_harmless_objects_of_training_scripts_are_read(tmp_path: Path, legacy: bool) -> None:
    args = argparse.Namespace(lr=4e-3, model="hornet_tiny_7x7", betas=[0.9, 0.999], dist=None)
    values = {"model": STATE, "args": args, "best": np.float64(82.5), "n": np.int64(3), "ok": np.bool_(True)}
    path = save(tmp_path / "net.pth", values, legacy)
    inspect_file(path)
    state = zoo.read_state(path)
    assert_same(state.entries, STATE)
    assert state.extra == {"best": 82.5, "n": 3, "ok": True}


class Payload:
    """On unpickling, calls whatever it is made with."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.args


NESTINGS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda payload: payload,
    "as a weight": lambda payload: STATE | {"d.weight": payload},
    "beside the weights": lambda payload: {"model": STATE, "args": payload},
    "deep inside": lambda payload: {"state_dict": STATE, "optimizer": {"state": [{"step": (1, payload)}]}},
    "in a namespace": lambda payload: {"model": STATE, "args": argparse.Namespace(extra=payload)},
    "in a set": lambda payload: {"model": STATE, "seen": {1, payload}},
}


@both_formats
@pytest.mark.parametrize("nesting", NESTINGS)
@pytest.mark.parametrize("call", ["os.system", "eval", "open"])
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path: Path, call: str, nesting: str, legacy: bool) -> None:
    marker = tmp_path / "it ran"
    payload = {
        "os.system": Payload(os.system, f"touch '{marker}'"),
        "eval": Payload(eval, f"open({str(marker)!r}, 'w')"),
        "open": Payload(open, str(marker), "w"),
    }[call]
    path = save(tmp_path / "net.pth", NESTINGS[nesting](payload), legacy)
    attempts: list[Callable[[], Any]] = [
        lambda: inspect_file(path),
        lambda: zoo.describe(path),
        lambda: zoo.read_state_dict(path),
        lambda: zoo.load_model(str(path)),
        lambda: zoo.load_weights(nn.Linear(2, 2), str(path)),
        # the second guard, if the first one were not there
        lambda: read_values(path, FileContents("torch legacy" if legacy else "torch zip", {}, 0)),
    ]
    for attempt in attempts:
        with pytest.raises(OvertoneError, match="is refused") as caught:
            attempt()
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not marker.exists()


def test_the_payload_would_run_if_it_could(tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    pickle.loads(pickle.dumps(Payload(os.system, f"touch '{marker}'")))
    assert marker.exists()


@both_formats
def test_a_whole_network_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = save(tmp_path / "net.pth", nn.Linear(2, 2), legacy)
    with pytest.raises(OvertoneError, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
        inspect_file(path)


def legacy_pickle(body: bytes) -> bytes:
    """A file of the old format whose main pickle is `body`."""
    head = b"".join(
        pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    return head + body + pickle.dumps([], protocol=2)


@pytest.mark.parametrize(
    "body",
    [
        b"\x80\x02(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x02(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x0c__defaults__K\x01sb.",  # BUILD on a stand-in
        b"\x80\x02cargparse\nNamespace\n}U\x08__call__K\x01sb.",  # BUILD on a class
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ of another class
        b"\x80\x02cbuiltins\ngetattr\n.",
        b"\x80\x02ctorch.storage\n_load_from_bytes\n.",
        b"\x80\x02ctorch\nload\n.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n.",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.",
    ],
)
def test_every_other_way_to_make_an_object_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(legacy_pickle(body))
    with pytest.raises(OvertoneError, match="is refused"):
        inspect_file(path)


@pytest.mark.parametrize(
    "body",
    [
        b"\x80\x02X\xff\xff\xff\x7fabc.",  # a text of 2 GiB
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0fabc.",  # of an exbibyte
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00abc.",  # a bytearray of a tebibyte
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of 2 G entries
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x0f}.",  # a frame
    ],
)
def test_a_claim_of_length_takes_no_memory(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(legacy_pickle(body))
    tracemalloc.start()
    with pytest.raises(OvertoneError):
        zoo.read_state_dict(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def altered_size(path: Path, old: int, new: int) -> None:
    """Every integer of four bytes that is `old` becomes `new`, in an uncompressed file whose checksums are then off."""
    before, after = (b"J" + struct.pack("<i", value) for value in (old, new))
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after))


def rewritten(path: Path, change: Callable[[bytes], bytes], **how: Any) -> None:
    """A zip file again with another data.pkl, its checksums right."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **how) as archive:
        for name, content in entries.items():
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


@both_formats
def test_a_storage_that_claims_more_than_the_file_holds(tmp_path: Path, legacy: bool) -> None:
    path = save(tmp_path / "net.pth", {"weight": torch.zeros(100_000)}, legacy)
    if legacy:
        altered_size(path, 100_000, 2_000_000_000)
    else:
        pack = lambda n: b"J" + struct.pack("<i", n)  # noqa: E731
        rewritten(path, lambda data: data.replace(pack(100_000), pack(2_000_000_000)))
    with pytest.raises(OvertoneError, match="claim") as caught:
        zoo.read_state_dict(path)
    assert "\n" not in str(caught.value)


@both_formats
def test_a_tensor_larger_than_its_storage(tmp_path: Path, legacy: bool) -> None:
    path = save(tmp_path / "net.pth", {"weight": torch.zeros(1).expand(1 << 20)}, legacy)
    with pytest.raises(OvertoneError, match="in a storage of 1 numbers"):
        zoo.read_state_dict(path)


def test_many_tensors_of_one_storage(tmp_path: Path) -> None:
    whole = torch.zeros(100_000)
    path = save(tmp_path / "net.pth", {str(i): whole for i in range(50)})
    with pytest.raises(OvertoneError, match="its tensors claim"):
        zoo.read_state_dict(path)
    assert len(zoo.read_state_dict(save(tmp_path / "tied.pth", {"a": whole, "b": whole}))) == 2


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "net.pth", {"weight": torch.zeros(1_000_000)})
    rewritten(path, lambda data: data, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    with pytest.raises(OvertoneError, match="compressed entries"):
        inspect_file(path)


def test_not_a_zip_of_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(OvertoneError, match=r"not one of torch\.save"):
        inspect_file(path)


@both_formats
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_cut_files(tmp_path: Path, legacy: bool, share: float) -> None:
    path = save(tmp_path / "net.pth", {"model": {str(i): torch.rand(50, 40) for i in range(20)}}, legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(OvertoneError, match=r"net\.pth (cannot be read|is refused)"):
        zoo.read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"hello " * 100, "neither safetensors nor of torch.save"),
        (b"x" * 257 + b"ustar\x0000" + b"x" * 300, "tar archive"),
        (pickle.dumps({"weight": 1}), "refused|cannot be read"),
        (struct.pack("<Q", 1 << 60) + b'{"a":1}', "cannot be read"),
    ],
)
def test_what_is_no_file_of_weights_is_called_what_it_is(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(OvertoneError, match=what) as caught:
        zoo.load_model(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_noise_never_escapes_as_another_error(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"model": STATE, "epoch": 1}, buffer, _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    path = tmp_path / "net.pth"
    refused = 0
    for position in range(0, len(content), 3):
        noisy = bytearray(content)
        noisy[position] ^= 0x55
        path.write_bytes(noisy)
        try:
            zoo.read_state(path)
        except OvertoneError:
            refused += 1
    assert refused > 50


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(OvertoneError, match="is not there"):
        inspect_file(tmp_path / "none.pth")


def test_no_reading_of_pickles_but_with_weights_only() -> None:
    """Nowhere in the package is `weights_only` false, and no other reader of pickles is used on a file."""
    source = Path(overtone.__file__).parent
    calls = 0
    for path in source.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"weights_only\s*=\s*False", text), path
        assert not re.search(r"pickle\.loads?\(|torch\.hub\.load|torch\.jit\.load|allow_pickle\s*=\s*True", text), path
        for call in re.finditer(r"torch\.load\(([^\n]*)\n", text):
            assert "weights_only=True" in call[1], path
            calls += 1
    assert calls >= 1


def test_a_safetensors_header_that_begins_like_a_pickle(tmp_path: Path) -> None:
    """The first byte is the low one of the header's length, which may be 0x80."""
    path = tmp_path / "net.safetensors"
    for padding in range(0, 512, 8):
        save_file({"weight": torch.ones(2)}, path, metadata={"a": "x" * padding})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert inspect_file(path).format == "safetensors" and list(zoo.read_state_dict(path)) == ["weight"]
