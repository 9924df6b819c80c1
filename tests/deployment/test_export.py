"""A network of each family written for each runtime: the folder, its proof, and that its own script classifies."""

import json
import subprocess
import sys

import numpy as np
import pytest
from exported_nets import CLASSES, FAMILIES, PREPROCESS, SIZE, inputs, logits_of, needs, net_of, origin

from overtone.config import to_dict
from overtone.deployment.artifact import read_about, sha256
from overtone.deployment.export import Request, export, open_export

# Every kind of network in ONNX Runtime: test_export_rows; one of each family in ExecuTorch: test_export_executorch.
EACH_RUNTIME = [("harmonic", runtime) for runtime in ("onnx", "openvino", "torch")]
EACH_FAMILY = [(family, "openvino") for family in FAMILIES if family != "harmonic"]


@pytest.fixture(scope="module", params=EACH_RUNTIME + EACH_FAMILY, ids=str)
def exported(request, tmp_path_factory):
    family, runtime = request.param
    needs(runtime)
    net = net_of(FAMILIES[family])
    folder = tmp_path_factory.mktemp(f"{family}-{runtime}") / "export"
    wanted = Request(runtime, dynamic_batch=True, checked=4)
    return net, folder, runtime, export(net, origin(FAMILIES[family]), wanted, folder)


@pytest.mark.slow
def test_it_says_what_the_network_says(exported):
    net, folder, _, about = exported
    assert about.parity["largest"] <= 1e-4
    assert about.parity["same_decisions"] == about.parity["agreement"] == 1
    assert (about.parity["images"], about.parity["pictures"]) == (4, "generated")
    predictor, _ = open_export(folder)
    expected = logits_of(net, 5)
    for logits in (predictor.predict(inputs(5)), np.concatenate([predictor.predict(i[None]) for i in inputs(5)])):
        assert logits.shape == (5, 7) and logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_model_json_says_what_it_is(exported):
    _, folder, runtime, about = exported
    said = json.loads((folder / "model.json").read_text())
    assert said["runtime"] == runtime and said["precision"] == "float32"
    assert said["classes"] == list(CLASSES) and said["num_classes"] == 7
    assert said["preprocess"] == to_dict(PREPROCESS)
    assert said["input"] == {
        "kind": "normalised",
        "shape": [None, 3, SIZE, SIZE],
        "dtype": "float32",
        "name": "images",
    }
    assert said["output"] == "logits" and said["source"] == "a test"
    assert {"overtone", "torch", "python"} <= set(said["versions"])
    assert said["files"] == {name: sha256(folder / name) for name in said["files"]}
    assert said["bytes"] == sum((folder / name).stat().st_size for name in said["files"]) > 10_000
    assert read_about(folder) == about


@pytest.mark.slow
def test_golden_outputs_come_again(exported):
    _, folder, _, _ = exported
    predictor, _ = open_export(folder)
    with np.load(folder / "golden.npz") as golden:
        np.testing.assert_allclose(predictor.predict(golden["inputs"]), golden["outputs"], rtol=1e-4, atol=1e-5)
        scale = np.abs(golden["reference"]).max()
        np.testing.assert_allclose(golden["outputs"], golden["reference"], atol=1e-4 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("exported", EACH_RUNTIME, indirect=True, ids=str)
def test_its_script_classifies_without_overtone(exported):
    _, folder, _, _ = exported
    check_script(folder)


def check_script(folder):
    """`run.py` in a process where overtone cannot be imported names the class of the golden image."""
    script = (
        "import runpy, sys, warnings; sys.modules['overtone'] = None; warnings.simplefilter('ignore');"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = [sys.executable, "-c", script, str(folder / "run.py"), str(folder / "golden.png")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "golden.npz") as golden:
        logits = golden["outputs"][0].astype(float)
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    lines = [line.rsplit(" %", 1) for line in done.stdout.splitlines()]
    assert len(lines) == 5
    best = int(shares.argmax())
    assert lines[0][1].strip() == CLASSES[best].upper()
    assert float(lines[0][0]) == pytest.approx(100 * shares[best], abs=0.06)
