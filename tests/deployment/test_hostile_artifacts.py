"""Exports that someone else has prepared: nothing in them runs, and no file but their own is opened."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_nets import needs, origin, plain_net
from torch import nn

from overtone.deployment.artifact import read_about, trust
from overtone.deployment.export import Request, export, open_export
from overtone.deployment.running import loaded_export
from overtone.deployment.runtimes.onnx_file import external_files
from overtone.deployment.runtimes.pt2_archive import load_program, save_program
from overtone.deployment.trust import TRUST_VARIABLE
from overtone.errors import OvertoneError


class Evil:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An export for PyTorch."""
    folder = tmp_path_factory.mktemp("made") / "export"
    export(plain_net(), origin(), Request("torch", checked=2), folder)
    return folder


@pytest.fixture
def copied(made, tmp_path):
    """A copy of it to be altered."""
    return shutil.copytree(made, tmp_path / "export")


def mend(folder: Path, name: str) -> None:
    """Make `model.json` name the hash that the altered file has."""
    said = json.loads((folder / "model.json").read_text())
    said["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(said))


def altered(archive: bytes, change) -> bytes:
    """An archive with records replaced, added or (None) removed by name without the archive's own."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(out, "w") as target:
        records = {name.partition("/")[2]: source.read(name) for name in source.namelist()}
        for name, content in (records | change(records)).items():
            if content is not None:
                target.writestr(f"archive/{name}", content)
    return out.getvalue()


def saved_pickle(value) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def pickled_weight(evil):
    def change(records):
        config = json.loads(records["data/weights/model_weights_config.json"])
        entry = next(iter(config["config"].values()))
        entry["use_pickle"] = True
        return {
            "data/weights/model_weights_config.json": json.dumps(config).encode(),
            f"data/weights/{entry['path_name']}": saved_pickle(evil),
        }

    return change


def pickled_constant(evil):
    config = {
        "config": {"x": {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    }
    return lambda records: {
        "data/constants/model_constants_config.json": json.dumps(config).encode(),
        "data/constants/custom_obj_0": pickle.dumps(evil),
    }


ATTACKS = {
    "sample inputs": lambda evil: lambda records: {"data/sample_inputs/model.pt": saved_pickle(evil)},
    "a bare pickle as sample inputs": lambda evil: lambda records: {"data/sample_inputs/model.pt": pickle.dumps(evil)},
    "a pickled weight": pickled_weight,
    "a pickled constant": pickled_constant,
    "the older format": lambda evil: (
        lambda records: (
            dict.fromkeys(records)
            | {
                "version": b"8.8",
                "serialized_state_dict.pt": saved_pickle(evil),
                "serialized_constants.pt": saved_pickle(evil),
                "serialized_exported_program.json": b"{}",
                "serialized_example_inputs.pt": saved_pickle(evil),
            }
        )
    ),
    "a shared library": lambda evil: lambda records: {"data/aotinductor/model/model.so": b"\x7fELF"},
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_pickle_of_a_pt2_is_loaded_even_if_it_is_trusted(copied, tmp_path, attack):
    mark = tmp_path / "mark"
    path = copied / "model.pt2"
    path.write_bytes(altered(path.read_bytes(), ATTACKS[attack](Evil(mark))))
    mend(copied, "model.pt2")
    with pytest.raises(OvertoneError, match="overtone trust"):
        open_export(copied)
    trust(copied)
    with pytest.raises(OvertoneError, match=r"model\.pt2 is refused"):
        open_export(copied)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), pickle.dumps([1]), b"\x00" * 200])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(OvertoneError, match="not an archive"):
        load_program(tmp_path / "model.pt2")


def test_our_own_archives_hold_no_pickle(made):
    with zipfile.ZipFile(made / "model.pt2") as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not content.startswith((b"PK", b"\x80")) or "weight_" in name, name
    assert load_program(made / "model.pt2").module() is not None


def test_a_graph_that_calls_what_it_likes_needs_trust(copied, tmp_path, monkeypatch):
    """Even without a pickle a graph may name any function that PyTorch's modules lead to."""
    path = copied / "model.pt2"
    path.write_bytes(altered(path.read_bytes(), lambda records: {"archive_version": records["archive_version"] + b" "}))
    mend(copied, "model.pt2")
    with pytest.raises(OvertoneError, match=r"model\.pt2 is not trusted .* overtone trust"):
        open_export(copied)


def test_an_export_is_trusted_where_it_was_written_and_after_trust_alone(made, copied, tmp_path, monkeypatch):
    assert open_export(made)[1] == open_export(copied)[1]  # the same bytes
    monkeypatch.setenv(TRUST_VARIABLE, str(tmp_path / "another machine"))
    with pytest.raises(OvertoneError, match="can run code"):
        open_export(copied)
    trust(copied)
    predictor, _ = open_export(copied)
    assert predictor.predict(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 7)


def test_a_record_of_trust_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(TRUST_VARIABLE, str(tmp_path / "file" / "trusted"))
    with pytest.raises(OvertoneError, match=f"trusted.*{TRUST_VARIABLE}"):
        export(plain_net(), origin(), Request("torch", checked=2), tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"files": {}}, "files"),
        ({"files": []}, "files"),
        ({"files": None}, "files"),
        ({"files": {"model.pt2": 5}}, "files"),
        ({"files": {"../model.pt2": "0" * 64}}, "files"),
        ({"data": 5}, "data"),
        ({"data": {"root": "/etc"}}, "data"),
        ({"data": {"split_seed": "x"}}, "split_seed"),
        ({"labels": ["a", "b"]}, "labels"),
        ({"classes": "abc"}, "classes"),
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": True}, "num_classes"),
        ({"input": {"kind": "normalised", "shape": [], "dtype": "float32"}}, "shape"),
        ({"input": {"kind": "normalised", "shape": [1, 3, 9, 9], "dtype": "float32"}}, "shape"),
        ({"input": {"kind": "normalised", "shape": [-1, 3, 32, 32], "dtype": "float32"}}, "shape"),
        ({"input": {"kind": "normalised", "shape": [1, 3, 32, 32], "dtype": "object"}}, "input"),
        ({"input": 5}, "damaged"),
        ({"runtime": "os"}, "runtime"),
        ({"precision": "float1"}, "precision"),
        ({"preprocess": {"size": 10**9}}, "preprocess"),
        ({"preprocess": {"size": 32, "mean": [float("nan")] * 3}}, "preprocess"),
        ({"model_args": {"checkpoint_path": "evil.pth"}}, "model_args"),
        ({"parity": 3}, "parity"),
        ({"format": "x"}, "damaged"),
    ],
    ids=str,
)
def test_a_description_that_no_export_has_is_refused(copied, change, named):
    said = json.loads((copied / "model.json").read_text())
    (copied / "model.json").write_text(json.dumps(said | change))
    with pytest.raises(OvertoneError, match=named) as caught:
        open_export(copied)
    assert "\n" not in str(caught.value) and "model.json" in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "5", "null", '"x"', "{}", "\x00"])
def test_json_that_is_none_of_ours_is_refused(copied, text):
    (copied / "model.json").write_text(text)
    with pytest.raises(OvertoneError, match=r"model\.json is damaged"):
        read_about(copied)


def test_a_file_that_is_not_listed_or_lies_elsewhere_is_not_opened(copied, tmp_path):
    moved = tmp_path / "model.pt2"
    os.replace(copied / "model.pt2", moved)
    (copied / "model.pt2").symlink_to(moved)
    with pytest.raises(OvertoneError, match="link"):
        open_export(copied)
    (copied / "model.pt2").unlink()
    os.mkfifo(copied / "model.pt2")
    with pytest.raises(OvertoneError, match="not a file"):
        open_export(copied)


# --- ONNX and OpenVINO ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_for_onnx(tmp_path_factory):
    needs("onnx")
    folder = tmp_path_factory.mktemp("onnx") / "export"
    export(plain_net(), origin(), Request("onnx", checked=2), folder)
    return folder


@pytest.fixture
def in_onnx(made_for_onnx, tmp_path):
    return shutil.copytree(made_for_onnx, tmp_path / "onnx")


@pytest.mark.parametrize("where", ["/etc/passwd", "../secret", "secret", "./model.onnx.data/../../secret", ""])
@pytest.mark.parametrize("place", ["initializer", "attribute of a branch", "sparse"])
def test_onnx_tensors_in_other_files_are_refused(in_onnx, where, place):
    onnx = pytest.importorskip("onnx")
    (in_onnx.parent / "secret").write_bytes(bytes(4096))
    (in_onnx / "secret").write_bytes(bytes(4096))
    model = onnx.load(in_onnx / "model.onnx")
    tensor = onnx.TensorProto(name="stolen", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=where)
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    else:
        branch = onnx.GraphProto(name="branch")
        branch.node.add(op_type="Constant").attribute.add(name="value", type=4).t.CopyFrom(tensor)
        model.graph.node.add(op_type="If").attribute.add(name="then_branch", type=5).g.CopyFrom(branch)
    onnx.save(model, in_onnx / "model.onnx")
    mend(in_onnx, "model.onnx")
    assert external_files(in_onnx / "model.onnx") == {where}
    with pytest.raises(OvertoneError, match="is refused: it would open"):
        open_export(in_onnx)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_onnx_file_is_refused(in_onnx, keep):
    content = (in_onnx / "model.onnx").read_bytes()
    (in_onnx / "model.onnx").write_bytes(content[: int(keep * len(content))])
    mend(in_onnx, "model.onnx")
    with pytest.raises(OvertoneError, match="ONNX"):
        open_export(in_onnx)


def test_labels_for_another_number_of_outputs_are_refused(in_onnx):
    said = json.loads((in_onnx / "model.json").read_text())
    changed = {"num_classes": 3, "labels": list("abc"), "classes": list("abc")}
    (in_onnx / "model.json").write_text(json.dumps(said | changed))
    loaded = loaded_export(in_onnx)
    with pytest.raises(OvertoneError, match=r"shape .*3 classes"):
        loaded.model(torch.zeros(1, 3, 32, 32))


def test_only_openvinos_own_format_is_given_to_openvino(in_onnx, tmp_path):
    """It reads ONNX, which may name other files, under the name model.xml too."""
    needs("openvino")
    out = tmp_path / "openvino"
    export(plain_net(), origin(), Request("openvino", checked=2), out)
    open_export(out)
    (out / "model.xml").write_bytes((in_onnx / "model.onnx").read_bytes())
    mend(out, "model.xml")
    with pytest.raises(OvertoneError, match=r"model\.xml is refused"):
        open_export(out)


# --- run.py -----------------------------------------------------------------------------------------------------------


def test_the_script_of_an_export_says_in_a_line_what_it_cannot_read(made, tmp_path):
    bad = tmp_path / "bad\x1b[31m\n.jpg"
    bad.write_bytes(b"no image")
    for words in ([str(bad)], [str(tmp_path / "absent.jpg")], []):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(made / "run.py"), *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.count("\n") == 1 and "\x1b" not in done.stderr and "Traceback" not in done.stderr


def test_labels_reach_the_terminal_without_control_characters(made, copied):
    said = json.loads((copied / "model.json").read_text())
    said["labels"] = [f"\x1b[31mred\n{index}" for index in range(7)]
    (copied / "model.json").write_text(json.dumps(said))
    words = [sys.executable, "-W", "ignore", str(copied / "run.py"), str(copied / "golden.png")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "\x1b" not in done.stdout and done.stdout.count("\n") == 5


def test_save_program_keeps_what_the_network_computes(tmp_path):
    net = nn.Linear(4, 3).eval()
    program = torch.export.export(net, (torch.zeros(1, 4),))
    (tmp_path / "x.pt2").write_bytes(save_program(program))
    x = torch.randn(1, 4)
    torch.testing.assert_close(load_program(tmp_path / "x.pt2").module()(x), net(x), rtol=0, atol=0)
