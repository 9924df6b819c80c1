"""`overtone export`, `tune`, and `evaluate` and `predict` in a runtime."""

import errno
import json
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest

from overtone import options
from overtone.cli import main
from overtone.deployment.runtimes import RUNTIMES, openvino_runtime
from overtone.deployment.runtimes import runtime as runtimes
from overtone.deployment.tuning import Candidate
from overtone.verbs import tune as tune_verb

FEW = ("--run.workers", "0", "--run.threads", "1", "--run.device", "cpu")


def needs(runtime):
    reason = RUNTIMES[runtime].missing()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The trained run in OpenVINO, which takes the least time to write."""
    needs("openvino")
    out = tmp_path_factory.mktemp("exported") / "openvino"
    assert main(["export", str(trained / "run"), "--to", "openvino", "--dynamic-batch", "--out", str(out)]) == 0
    return out


def figures(outcome):
    assert outcome.code in (0, 1), outcome.err
    return {key: outcome.json[key] for key in ("top1", "top5", "num_used", "class_correct", "images")}


@pytest.mark.slow
def test_an_export_is_evaluated_like_the_network(overtone, trained, exported):
    data = ("--data.root", trained / "photos", "--json", *FEW)
    own, other = overtone("evaluate", trained / "run", *data), overtone("evaluate", exported, *data)
    assert figures(own) == figures(other)
    assert "held-out part of the seeded split" in other.json["images"]
    assert other.json["loss"] == pytest.approx(own.json["loss"], rel=1e-5)
    assert (own.json["runtime"], other.json["runtime"]) == ("torch", "OpenVINO, float32")


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_in_a_runtime(overtone, trained):
    needs("openvino")
    data = ("--data.root", trained / "photos", "--json", *FEW)
    own = overtone("evaluate", trained / "run", *data)
    other = overtone("evaluate", trained / "run", "--runtime", "openvino", "--run.batch-size", "5", *data)
    assert figures(own) == figures(other)
    assert other.json["loss"] == pytest.approx(own.json["loss"], rel=1e-5)
    assert other.json["runtime"] == "OpenVINO, float32"


@pytest.mark.slow
def test_predictions_are_the_same(overtone, trained, exported):
    path = trained / "photos" / "green" / "0.png"
    answers = [
        overtone("predict", model, path, "--json", *more, *FEW).json["images"][0]["predictions"]
        for model, more in ((trained / "run", ()), (exported, ()), (trained / "run", ("--runtime", "openvino")))
    ]
    for answer in answers[1:]:
        assert [one["class"] for one in answer] == [one["class"] for one in answers[0]]
        expected = [one["probability"] for one in answers[0]]
        assert [one["probability"] for one in answer] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_an_export_that_takes_images_is_evaluated_and_predicts(overtone, trained, tmp_path):
    needs("openvino")
    out = tmp_path / "images"
    words = ("export", trained / "run", "--to", "openvino", "--with-preprocessing", "--calibration", trained / "photos")
    outcome = overtone(*words, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["input"]["kind"] == "image" and outcome.json["parity"]["pictures"] == "given"
    assert outcome.json["proof"].startswith("sha256 ") and outcome.json["classes"] == ["blue", "green", "red"]
    data = ("--data.root", trained / "photos", "--data.split", "all", "--json", *FEW)
    own, other = overtone("evaluate", trained / "run", *data), overtone("evaluate", out, *data)
    assert other.json["top1"] == pytest.approx(own.json["top1"], abs=5)
    assert other.json["loss"] == pytest.approx(own.json["loss"], rel=1e-3)
    path = trained / "photos" / "red" / "0.png"
    assert overtone("predict", out, path, *FEW).code == 0


@pytest.mark.slow
def test_the_table_says_how_far_apart_they_are(overtone, trained, exported):
    again = overtone("export", trained / "run", "--to", "openvino", "--out", exported)
    assert "--overwrite" in again.error
    outcome = overtone(
        "export", trained / "run", "--to", "openvino", "--dynamic-batch", "--out", exported, "--overwrite"
    )
    assert outcome.code == 0, outcome.err
    assert str(exported) in outcome.out and "100.0 %" in outcome.out and "32 generated" in outcome.out
    assert {"model.json", "model.xml", "model.bin", "run.py", "golden.npz", "golden.png"} == {
        path.name for path in exported.iterdir()
    }


@pytest.mark.slow
def test_an_export_that_does_not_agree_exits_with_2_and_leaves_nothing(overtone, trained, tmp_path, monkeypatch):
    needs("openvino")
    run = openvino_runtime.OpenVinoPredictor.run
    monkeypatch.setattr(
        openvino_runtime.OpenVinoPredictor, "run", lambda self, images: (run(self, images)[0] + np.float32(1e-3),)
    )
    outcome = overtone("export", trained / "run", "--to", "openvino", "--out", tmp_path / "export")
    assert "does not agree with the network" in outcome.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_tune_writes_the_fastest_that_is_right_where_a_name_is_free(overtone, trained, tmp_path, monkeypatch):
    needs("openvino")
    monkeypatch.chdir(tmp_path)
    words = ("tune", trained / "run", "--runtimes", "openvino", "torch", "--precisions", "float32")
    settings = ("--data.root", trained / "photos", "--rounds", "2", "--threads", "1")
    outcome = overtone(*words, *settings, "--json")
    assert outcome.code == 0, outcome.err
    assert f"for the check: {trained / 'photos'}" in outcome.err
    tried = {candidate["runtime"]: candidate for candidate in outcome.json["candidates"]}
    out = tmp_path / "exports" / "hbonet_x010-auto"
    assert set(tried) == {"openvino", "torch"} and outcome.json["out"] == "exports/hbonet_x010-auto"
    assert all(c["milliseconds"] > 0 and c["reason"] is None and c["score"] is not None for c in tried.values())
    assert all(c["parity"]["pictures"] == "given" for c in tried.values())
    fastest = min(tried, key=lambda runtime: tried[runtime]["milliseconds"])
    assert json.loads((out / "model.json").read_text())["runtime"] == fastest
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    monkeypatch.setattr(tune_verb, "export_all", None)  # it is not begun
    assert "--overwrite" in overtone(*words, *settings).error


@pytest.mark.slow
def test_tune_writes_nothing_that_loses_too_much(overtone, trained, tmp_path, monkeypatch):
    def worse_exports(model, run, of):
        score = 50.0 if Path(model) == trained / "run" else 49.0
        return types.SimpleNamespace(score=score, score_name="top-1")

    needs("openvino")
    words = ("tune", trained / "run", "--runtimes", "openvino", "--precisions", "float32", "--out", tmp_path / "best")
    monkeypatch.setattr(tune_verb, "report_of", worse_exports)
    refused = overtone(*words, "--data.root", trained / "photos", "--rounds", "1", "--max-loss", "0")
    assert refused.code == 2 and "no runtime of this machine" in refused.err
    assert "left out: openvino float32: loses 1.00 percentage points" in refused.out
    assert list(tmp_path.iterdir()) == []


def test_without_labels_enough_images_must_keep_their_best_class():
    def tried(agreement):
        about = types.SimpleNamespace(parity={"agreement": agreement})
        return Candidate("onnx", "int8", about=about)  # type: ignore[arg-type]

    chosen = options.Tune("a", min_agreement=90)
    kept = tune_verb._agreeing(chosen, [tried(0.95), tried(0.85)])
    assert kept[0].reason is None and "85.0 %, below 90 %" in (kept[1].reason or "")
    labelled = options.Tune("a", data=options.EvaluationData(root=Path("photos")))
    assert tune_verb._agreeing(labelled, [tried(0.5)])[0].reason is None


@pytest.mark.slow
def test_few_images_for_int8_are_warned_of_and_counted(overtone, trained, tmp_path):
    needs("openvino")
    words = ("export", trained / "run", "--to", "openvino", "--precision", "int8", "--calibration", trained / "photos")
    outcome = overtone(*words, "--out", tmp_path / "small", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["calibrated"] == 45 - outcome.json["parity"]["images"] > 0
    assert f"warning: int8 took its ranges from {outcome.json['calibrated']} images" in outcome.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("export", "RUN", "--to", "onnx", "--precision", "bfloat16"), "ONNX Runtime has no bfloat16"),
        (("export", "RUN", "--to", "torch", "--threads", "0"), "threads is 0"),
        (("export", "RUN", "--to", "auto", "--dynamic-batch"), "--to auto measures single"),
        (("export", "RUN", "--to", "auto", "--precision", "int8"), "--to auto tries every precision"),
        (("export", "nothing_like_it", "--to", "torch"), "nothing_like_it"),
        (("export", "RUN", "--to", "torch", "--size", "0"), "size is 0"),
        (("export", "vit_tiny_patch16_224", "--to", "torch", "--size", "64"), "cannot take images of 64x64 pixels"),
        (("export", "RUN", "--to", "torch", "--calibration", "nowhere"), "nowhere is not a folder"),
        (("tune", "RUN", "--rounds", "0"), "rounds is 0"),
        (("tune", "RUN", "--min-agreement", "101"), "min_agreement is 101"),
        (("tune", "RUN", "--calibration", "nowhere"), "nowhere is not a folder"),
        (("predict", "RUN", "IMAGE", "--calibration", "photos"), "--calibration has an effect with int8"),
        (("predict", "RUN", "IMAGE", "--runtime", "aoti", "--run.device", "cuda"), "computes on the CPU"),
        (("predict", "RUN", "IMAGE", "--precision", "int8"), "--runtime torch has no int8"),
    ],
)
def test_what_cannot_be_is_one_clear_line(overtone, trained, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": trained / "run", "IMAGE": trained / "photos" / "red" / "0.png"}
    outcome = overtone(*(places.get(word, word) for word in words))
    assert outcome.code == 2 and message in outcome.err.splitlines()[-1]
    assert all(line.startswith("overtone: ") for line in outcome.err.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_one_clear_line(overtone, trained, monkeypatch):
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    path = trained / "photos" / "red" / "0.png"
    for words in (("export", trained / "run", "--to", "onnx"), ("predict", trained / "run", path, "--runtime", "onnx")):
        assert 'pip install "overtone[onnx]"' in overtone(*words).error


def test_trust_names_what_it_trusts_and_how_to_get_there(overtone, trained, tmp_path, monkeypatch):
    out, path = tmp_path / "received", trained / "photos" / "red" / "0.png"
    assert overtone("export", trained / "run", "--to", "torch", "--out", out).code == 0
    assert overtone("predict", out, path, *FEW).code == 0
    monkeypatch.setenv("OVERTONE_TRUST_DIR", str(tmp_path / "of another user"))
    assert f"overtone trust {out}" in overtone("predict", out, path, *FEW).error
    outcome = overtone("trust", out)
    assert outcome.code == 0 and "model.pt2" in outcome.out and "can run code" in outcome.err
    assert overtone("predict", out, path, *FEW).code == 0
    assert "is not an export" in overtone("trust", trained / "photos").error


def test_overwrite_keeps_a_users_file(overtone, trained, tmp_path):
    out = tmp_path / "export"
    words = ("export", trained / "run", "--to", "torch", "--out", out)
    assert overtone(*words).code == 0
    (out / "notes.txt").write_text("mine")
    assert "notes.txt" in overtone(*words, "--overwrite").error
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    assert overtone(*words, "--overwrite").code == 0


def test_a_full_folder_for_temporary_files_is_one_clear_line(overtone, trained, monkeypatch):
    needs("onnx")
    monkeypatch.setattr(tempfile, "mkdtemp", no_space)
    path = trained / "photos" / "red" / "0.png"
    assert "TMPDIR" in overtone("predict", trained / "run", path, "--runtime", "onnx", *FEW).error


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.slow
def test_an_export_keeps_its_own_runtime_and_size(overtone, trained, exported):
    path = trained / "photos" / "red" / "0.png"
    assert "is an export, which has a runtime" in overtone("predict", exported, path, "--runtime", "onnx").error
    assert "--size 64" in overtone("predict", exported, path, "--run.size", "64").error
    assert "is an export already" in overtone("export", exported, "--to", "torch").error
