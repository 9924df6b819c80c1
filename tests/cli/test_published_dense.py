"""The published detectors and segmenters as rows: figures as counted there, weights by name, one file for another."""

import pytest
import torch

from overtone import zoo
from overtone.config import Preprocess
from overtone.errors import OvertoneError
from overtone.published import DENSE, find, select
from overtone.reproduction import dense_figures
from overtone.reproduction.dense_accuracy import DenseMeasurement
from overtone.reproduction.figures import compare
from overtone.zoo import resolver

COUNTED = (
    "cascade_mask_rcnn_hornet_tiny_7x7.rao_coco",
    "mask_rcnn_horfpn_gf_hornet_small_7x7.rao_coco",
    "upernet_hornet_tiny_gf.rao_ade20k",
    "upernet_gn7x7_hornet_small_7x7.rao_ade20k",
)


@pytest.mark.parametrize("name", COUNTED)
def test_multiply_adds_are_those_of_the_original_classes(name):
    row = find(name)
    comparison = compare(row)
    assert [verdict.kind for verdict in comparison.verdicts] == ["agrees", "agrees"]
    assert dense_figures.parameters(row) == row.params
    assert row.flops is None or comparison.multiply_adds.ours == row.flops


def test_a_wrong_count_differs(monkeypatch):
    monkeypatch.setattr(dense_figures, "multiply_adds", lambda row: row.flops + 1)
    verdict = compare(find(COUNTED[0])).multiply_adds
    assert verdict.kind == "differs" and "729,935,230,900" in verdict.why


def test_rows_are_found_by_name_and_pattern(overtone):
    assert len(DENSE) == 21 and sum(bool(row.urls) for row in DENSE) == 16
    assert {row.task for row in select("upernet*")} == {"segmentation"}
    listed = overtone("weights", "list", "*ade20k", "--json").json
    assert {"name": "upernet_hornet_tiny_7x7.rao_ade20k", "published": "48.1 mIoU"}.items() <= listed[0].items()
    assert "rao_ade20k" in overtone("evaluate", "upernet_hornet_tiny_7x7.other", "nowhere").error
    assert "without weights" in overtone("weights", "fetch", "upernet_gngf_hornet_small_7x7.rao_ade20k").error


def test_both_tasks_are_not_measured_on_one_folder(overtone, tmp_path):
    error = overtone("reproduce", "--only", "*rao_*", "--data.root", tmp_path / "images").error
    assert "ImageNet" in error or "images" in error
    error = overtone("reproduce", "--only", "*hornet_tiny_7x7.rao_[ac]*", "--data.root", tmp_path).error
    assert "COCO" in error and "ADE20K" in error


def test_weights_by_name(overtone, tmp_path, monkeypatch):
    """A small network stands for the published one: its file is loaded under the row's name, another is refused."""
    name = "upernet_hornet_tiny_7x7.rao_ade20k"
    monkeypatch.setenv("OVERTONE_CACHE", str(tmp_path / "cache"))
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / f"{name}.pth")
    with pytest.warns(zoo.UnverifiedWarning), pytest.raises(OvertoneError, match="holds no upernet"):
        zoo.load_model(name, weights_dir=tmp_path)
    fields = {"model": torch.nn.Identity(), "architecture": "upernet_hornet_tiny_7x7", "labels": ("a",) * 150}
    fields |= {"preprocess": Preprocess(), "source": "file", "task": "segmentation"}
    monkeypatch.setattr(resolver.dense, "from_published_layout", lambda path, state: dict(fields))
    loaded = zoo.load_model(name, weights_dir=tmp_path)
    assert loaded.published is find(name) and loaded.tag == "rao_ade20k" and loaded.notes == find(name).doubts
    fields["architecture"] = "upernet_hornet_small_7x7"
    with pytest.raises(OvertoneError, match="hornet_small"):
        zoo.load_model(name, weights_dir=tmp_path)


def test_a_measurement_has_a_verdict():
    one = DenseMeasurement("a.b", "mIoU", 2000, 0, 48.05, 48.1)
    assert one.verdict == "agrees"
    assert DenseMeasurement("a.b", "mIoU", 2000, 0, 47.5, 48.1).verdict == "differs by -0.60"
