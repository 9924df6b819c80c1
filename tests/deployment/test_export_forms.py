"""Precisions, preprocessing in the graph, and exports that must not be."""

import errno
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_nets import (
    CLASSES,
    FAMILIES,
    PREPROCESS,
    SIZE,
    images_in,
    inputs,
    logits_of,
    needs,
    net_of,
    origin,
    plain_net,
    tiny_net,
)
from PIL import Image
from test_export import check_script

from overtone.config import Preprocess
from overtone.deployment import export as export_module
from overtone.deployment.artifact import read_about
from overtone.deployment.export import Request, check_request, export, open_export
from overtone.deployment.images import generated_images
from overtone.deployment.inputs import as_batch, input_transform
from overtone.deployment.runtimes import RUNTIMES, onnx_runtime, torch_runtime
from overtone.deployment.runtimes import runtime as runtimes
from overtone.deployment.runtimes.runtime import RuntimeModule
from overtone.deployment.tuning import candidates, export_all, measure_all
from overtone.errors import OvertoneError


@pytest.fixture(scope="module")
def net():
    return tiny_net()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return images_in(tmp_path_factory.mktemp("images") / "some", 40)


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [
        ("openvino", "bfloat16"),
        ("torch", "bfloat16"),
        ("onnx", "int8"),
        ("openvino", "int8"),
        ("openvino", "int8+bfloat16"),
    ],
)
@pytest.mark.slow
def test_smaller_numbers_agree_within_their_bound(net, images, tmp_path, runtime, precision):
    needs(runtime, precision)
    about = export(net, origin(), Request(runtime, precision, image_folder=images, checked=16), tmp_path / "export")
    bound = about.parity["bound"]
    assert bound["largest"] is None and about.parity["rms"] <= bound["rms"] <= 0.3
    assert about.parity["agreement"] >= bound["agreement"] >= 0.85
    assert about.parity["pictures"] == "given" and about.parity["images"] == 16
    assert about.parity["largest"] > 1e-6, "nothing was made smaller"
    whole = sum(p.numel() * 4 for p in net.parameters())
    if precision.startswith("int8"):
        assert about.bytes < 1.1 * whole  # a net this small is mostly graph
    predictor, _ = open_export(tmp_path / "export")
    expected = logits_of(net, 3)
    got = predictor.predict(inputs(3))
    assert np.abs(got - expected).max() < 0.3 * np.abs(expected).max()


@pytest.mark.parametrize("precision", ["int8", "int8+bfloat16"])
@pytest.mark.slow
def test_global_filters_stay_out_of_int8(images, tmp_path, precision):
    """OpenVINO quantises the rest, and compiles it on every processor."""
    needs("openvino", precision)
    net = net_of(FAMILIES["hornet"])
    about = export(net, origin(), Request("openvino", precision, image_folder=images, checked=16), tmp_path / "export")
    assert about.parity["rms"] <= 0.3 and about.parity["agreement"] >= 0.85
    graph = RUNTIMES["openvino"].import_library().Core().read_model(tmp_path / "export" / "model.xml")
    before = {"MatMul": set(), "Convolution": set()}
    for node in graph.get_ops():
        if "aten.bmm" in node.get_friendly_name() or node.get_type_name() == "Convolution":
            sources = (value.get_source_output().get_node().get_type_name() for value in node.inputs())
            before.setdefault(node.get_type_name(), set()).update(sources)
    assert before["MatMul"] and "FakeQuantize" not in before["MatMul"]
    assert "FakeQuantize" in before["Convolution"]


def some(number: int) -> list[Image.Image]:
    return generated_images(number, SIZE, seed=7)


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "torch"])
@pytest.mark.slow
def test_preprocessing_in_the_graph_takes_images_of_any_size(net, tmp_path, runtime):
    needs(runtime)
    about = export(net, origin(), Request(runtime, with_preprocessing=True, checked=4), tmp_path / "export")
    assert about.input.kind == "image" and about.input.dtype == "uint8"
    assert about.input.shape == (1, None, None, 3)
    written = tmp_path / "export" / "model.json"
    written.write_text(written.read_text().replace('"kind": "image"', '"kind": "picture"'))  # as earlier versions did
    predictor, read = open_export(tmp_path / "export")
    assert '"picture"' in written.read_text() and read.input == about.input
    for size in ((40, 40), (100, 33), (31, 57)):
        image = some(1)[0].resize(size)
        with torch.inference_mode():
            expected = net(as_batch(input_transform("normalised", PREPROCESS), image)).numpy()
        logits = predictor.predict(np.asarray(image)[None])
        assert np.abs(logits - expected).max() < 2e-3 * np.abs(expected).max()
    check_script(tmp_path / "export")


@pytest.mark.slow
def test_where_the_resize_cannot_be_in_the_graph_the_normalisation_is(net, tmp_path):
    needs("openvino")
    squashed = Preprocess(size=SIZE, resize="squash", crop_fraction=1.0, interpolation="bicubic", exif="apply")
    request = Request("openvino", with_preprocessing=True, checked=4, dynamic_batch=True)
    about = export(net, origin(preprocess=squashed), request, tmp_path / "export")
    assert about.input.kind == "pixels" and about.input.shape == (None, SIZE, SIZE, 3)
    check_script(tmp_path / "export")


@pytest.mark.slow
def test_a_compiled_export_needs_no_compiler_to_run(tmp_path, monkeypatch):
    try:
        check_request(Request("aoti"))
    except OvertoneError as error:
        pytest.skip(str(error))
    net = plain_net()
    export(net, origin(), Request("aoti", checked=2), tmp_path / "export")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "")
    with pytest.raises(OvertoneError, match="C\\+\\+ compiler"):
        check_request(Request("aoti"))
    predictor, _ = open_export(tmp_path / "export")
    expected = logits_of(net, 2)
    got = predictor.predict(inputs(2))
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def altered_after(write, change):
    def wrapped(self, job, folder):
        write(self, job, folder)
        change(folder)

    return wrapped


def another_weight(folder: Path) -> None:
    """One weight of the last layer is another one, as after a mistake in a conversion."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(folder / "model.onnx")
    weight = next(tensor for tensor in reversed(model.graph.initializer) if len(tensor.dims) == 2)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0] += 0.01 * np.abs(values).max()
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, folder / "model.onnx")


def test_an_export_that_does_not_agree_is_not_written(net, tmp_path, monkeypatch):
    """Row 27: one weight off by a hundredth is found, and nothing is left behind."""
    needs("onnx")
    monkeypatch.setattr(
        onnx_runtime.OnnxRuntime, "write", altered_after(onnx_runtime.OnnxRuntime.write, another_weight)
    )
    with pytest.raises(OvertoneError, match="does not agree with the network on 4 generated images: the largest"):
        export(net, origin(), Request("onnx", checked=4), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_a_converter_cannot_take_is_one_line(net, tmp_path, monkeypatch):
    def write(self, job, folder):
        (folder / "half").write_bytes(b"half")
        raise RuntimeError("\nno such operator: fft\nand many lines more")

    monkeypatch.setattr(torch_runtime.TorchExported, "write", write)
    with pytest.raises(OvertoneError, match=r"PyTorch cannot take .* \(RuntimeError: no such operator: fft\); try"):
        export(net, origin(), Request("torch"), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["load", "run"])
def test_a_network_that_a_runtime_cannot_run_here_is_one_line(net, tmp_path, monkeypatch, where):
    """A processor on which its compiler has no kernels: of its message, the line that says something is reported."""

    def fail(self, *args):
        raise RuntimeError("Exception from core.cpp:132:\nCheck '!empty()' failed at factory.hpp:117:\nNo kernels.\n")

    changed = torch_runtime.TorchExported if where == "load" else torch_runtime.TorchPredictor
    monkeypatch.setattr(changed, where, fail)
    message = r"PyTorch cannot run .* in float32 on this machine \(RuntimeError: No kernels\); try another"
    with pytest.raises(OvertoneError, match=message):
        export(net, origin(), Request("torch"), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("iostream error")])
def test_a_full_disk_is_one_line_and_leaves_nothing(net, tmp_path, monkeypatch, error):
    """Whether the converter says so, or fails in words of its own while the disk has no room for the weights."""

    def write(self, job, folder):
        (folder / "half").write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch_runtime.TorchExported, "write", write)
    if isinstance(error, RuntimeError):
        monkeypatch.setattr(export_module.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(OvertoneError, match=r"could not be written: No space left on device; choose another --out"):
        export(net, origin(), Request("torch"), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_pytorchs_own_writer_which_dies_on_a_full_disk_never_sees_it(net, tmp_path, monkeypatch):
    def write_bytes(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OvertoneError, match="No space left on device"):
        export(net, origin(), Request("torch"), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_earlier_one(net, tmp_path, monkeypatch):
    needs("torch")
    out = tmp_path / "export"
    export(net, origin(), Request("torch", checked=2), out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(OvertoneError, match="--overwrite"):
        export(net, origin(), Request("torch", checked=2), out)
    # another network is written than the one that it is checked against
    monkeypatch.setattr(torch_runtime, "_in_precision", lambda job: job.net.eval() and tripled(job.net))
    with pytest.raises(OvertoneError, match="does not agree"):
        export(net, origin(), Request("torch", checked=2), out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def tripled(net: torch.nn.Module) -> torch.nn.Module:
    class Tripled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 3 * self.net(images)

    return Tripled()


def test_a_damaged_export_is_refused(net, tmp_path):
    needs("torch")
    out = tmp_path / "export"
    export(net, origin(), Request("torch", checked=2), out)
    content = bytearray((out / "model.pt2").read_bytes())
    content[len(content) // 2] ^= 1
    (out / "model.pt2").write_bytes(content)
    with pytest.raises(OvertoneError, match="is damaged: it does not have the SHA-256"):
        open_export(out)
    (out / "model.pt2").unlink()
    with pytest.raises(OvertoneError, match="is missing"):
        open_export(out)
    said = json.loads((out / "model.json").read_text())
    (out / "model.json").write_text(json.dumps(said | {"format": 99}))
    with pytest.raises(OvertoneError, match="newer overtone"):
        read_about(out)
    (out / "model.json").write_text("{")
    with pytest.raises(OvertoneError, match="is damaged"):
        read_about(out)
    with pytest.raises(OvertoneError, match="is not an export"):
        read_about(tmp_path)


def test_what_is_in_the_way_stays(net, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OvertoneError, match=r"mine\.txt"):
        export(net, origin(), Request("torch"), tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("onnx", "bfloat16"), "ONNX Runtime has no bfloat16 here"),
        (Request("torch", "int8"), "PyTorch has no int8 here"),
        (Request("openvino", "int8"), "--calibration"),
        (Request("executorch", dynamic_batch=True), "fixed number of images"),
        (Request("tensorrt"), "there is no runtime 'tensorrt'"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(request_, message):
    if request_.runtime in ("openvino", "executorch"):
        needs(request_.runtime)
    with pytest.raises(OvertoneError, match=message):
        check_request(request_)


@pytest.mark.parametrize(
    ("runtime", "module"), [("onnx", "onnxscript"), ("openvino", "openvino"), ("executorch", "executorch")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch, runtime, module):
    real = runtimes.importlib.util.find_spec
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None if name == module else real(name))
    with pytest.raises(OvertoneError, match=rf'{module}\): pip install "overtone\[{runtime}\]"$'):
        check_request(Request(runtime))


def test_a_processor_without_bfloat16_says_so(monkeypatch):
    monkeypatch.setattr(runtimes, "computes_bfloat16", lambda: False)
    with pytest.raises(OvertoneError, match="no bfloat16"):
        check_request(Request("torch", "bfloat16"))


@pytest.mark.slow
def test_the_candidates_of_a_machine(net, tmp_path, monkeypatch):
    """Each that agrees has a latency; one that does not, or is not there, has a reason instead."""
    needs("openvino")
    tried = candidates(("openvino", "torch"), ("float32", "int8"), None)
    assert [(c.runtime, c.precision, c.reason is None) for c in tried] == [
        ("openvino", "float32", True),
        ("openvino", "int8", False),
        ("torch", "float32", True),
        ("torch", "int8", False),
    ]
    monkeypatch.setattr(torch_runtime, "_in_precision", lambda job: tripled(job.net))
    said = []
    made = measure_all(export_all(net, origin(), None, tried, None, tmp_path, said.append), rounds=2)
    assert said == ["openvino, float32", "torch, float32"]
    assert made[0].milliseconds is not None and made[0].milliseconds > 0
    assert "does not agree" in (made[2].reason or "") and made[2].milliseconds is None
    assert made[1].milliseconds is None and made[3].milliseconds is None


@pytest.mark.slow
def test_the_openvino_package_does_not_report_to_its_makers():
    needs("openvino")
    RUNTIMES["openvino"].import_library()
    assert sys.modules["openvino_telemetry"] is None


def test_a_runtime_looks_like_a_network():
    class Doubled(runtimes.Predictor):
        def run(self, images):
            assert len(images) == 2
            return (images.reshape(len(images), -1)[:, :7] * 2,)

    module = RuntimeModule(Doubled(batch=2), num_classes=7)
    images = torch.arange(5 * 3 * 2 * 2, dtype=torch.float32).view(5, 3, 2, 2)
    torch.testing.assert_close(module(images), images.flatten(1)[:, :7] * 2)
    assert CLASSES and module.num_classes == 7
