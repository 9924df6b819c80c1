"""Detectors exported: graphs against networks, what is compared, and exports that predict, evaluate and run alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_boxes import draw, write_coco
from PIL import Image
from torch import nn
from torchvision.ops import FrozenBatchNorm2d, batched_nms

from overtone import cli
from overtone.config import Preprocess
from overtone.data.segments import decoded
from overtone.deployment.export import Origin, Request, export
from overtone.deployment.rewrites.deploy import deploy
from overtone.deployment.runtimes import RUNTIMES
from overtone.deployment.runtimes.onnx_runtime import OnnxRuntime
from overtone.errors import OvertoneError
from overtone.heads.detector_graphs import Candidates, Suppressed
from overtone.heads.detectors import create_detector
from overtone.heads.mask_pasting import paste_masks
from overtone.heads.region_graphs import Regions
from overtone.tasks.detection import standalone
from overtone.tasks.detection.export import DetectionForm, Tolerance, compare_detections, form_of, read_form, script
from overtone.tasks.detection.settings import DetectionSettings
from overtone.tasks.segmentation.transforms import fitted_size

SIDE = 64
LABELS = ("disc", "frame")
PREPROCESS = Preprocess(size=48)
SETTINGS = DetectionSettings(longest=96, threshold=0.06)
FEW = {"rpn_pre_nms_top_n_test": 40, "rpn_post_nms_top_n_test": 20, "box_detections_per_img": 10}
HEADS: dict[str, dict[str, Any]] = {
    "fcos": {"width": 64, "detections_per_img": 20},
    "retinanet": {"width": 32, "score_thresh": 0.005, "detections_per_img": 20},
    "ssdlite": {"topk_candidates": 20, "detections_per_img": 20},
    "faster_rcnn": {"width": 32, **FEW},
    "mask_rcnn": {"width": 32, **FEW},
    "cascade_mask_rcnn": {"rpn": {"test_per_level": 40, "test_proposals": 20}, "roi": {"detections": 10}},
}


def detector(head: str) -> Any:
    """A detector with random weights, and scores that are spread."""
    torch.manual_seed(0)
    network = create_detector("mobilenetv2_x010", len(LABELS), head=head, head_args=HEADS[head]).eval()
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and ("cls" in name or "classification_head" in name):
            module.weight.data.mul_(3)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return network


@pytest.mark.parametrize("head", HEADS)
def test_a_deployed_graph_finds_what_the_network_finds(head: str) -> None:
    network = detector(head)
    deployed = deploy(network, SIDE)
    norms = [m for m in deployed.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    assert not norms and any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    images = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        (expected,) = network(images)
        graph = Regions(deployed, (SIDE, SIDE)) if "rcnn" in head else Suppressed(Candidates(deployed, (SIDE, SIDE)))
        found = [output[0] for output in graph(images)]
    assert len(expected.scores) == len(found[1]) > 0
    torch.testing.assert_close(found[0], expected.boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(found[1], expected.scores, rtol=0, atol=1e-5)
    assert found[2].tolist() == expected.labels.tolist()
    if expected.mask_probabilities is not None:
        torch.testing.assert_close(found[3], expected.mask_probabilities, rtol=0, atol=1e-4)


def test_a_frozen_batch_norm_is_folded() -> None:
    norm = FrozenBatchNorm2d(4)
    norm.running_var.uniform_(0.5, 2.0)  # type: ignore[operator]
    norm.bias.normal_()  # type: ignore[operator]
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norm).eval()
    images = torch.randn(1, 3, 8, 8)
    folded = deploy(network, 8)
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(images), network(images))


def test_suppression_in_numpy_is_torchvisions() -> None:
    torch.manual_seed(0)
    boxes = torch.rand(200, 4) * 30
    boxes[:, 2:] += boxes[:, :2]
    scores, labels = torch.rand(200), torch.randint(0, 3, (200,))
    kept = standalone.suppressed(boxes.numpy(), scores.numpy(), labels.numpy(), 0.2, 0.5, 30)
    expected = batched_nms(boxes, scores, labels, 0.5)
    assert kept.tolist() == expected[scores[expected] > 0.2][:30].tolist()
    assert not len(standalone.suppressed(boxes.numpy(), scores.numpy(), labels.numpy(), 1.0, 0.5, 30))


def test_masks_in_numpy_are_pasted_as_ours() -> None:
    torch.manual_seed(0)
    masks, boxes = torch.rand(3, 28, 28), torch.tensor([[3.2, 4.1, 20.7, 30.3], [-5.0, 2, 8, 9], [10, 10, 40, 25.5]])
    expected = paste_masks(masks, boxes, (32, 36)).numpy()
    for mask, box, one in zip(masks.numpy(), boxes.numpy(), expected, strict=True):
        assert (standalone.pasted(mask, box, (36, 32)) == one).mean() > 0.999


def test_run_lengths_are_cocos() -> None:
    masks = pytest.importorskip("pycocotools.mask")
    bitmap = np.zeros((5, 4), dtype=bool)
    bitmap[1:3, 0:2] = bitmap[0, 3] = True
    arrays = np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64)
    (result,) = standalone.coco_results(*arrays, (1,), "a", [bitmap])
    coded = masks.frPyObjects(result["segmentation"], *bitmap.shape)
    assert (decoded(coded).astype(bool) == bitmap).all()


def form(side: int = SIDE, *, suppressed: bool = True) -> DetectionForm:
    network = create_detector("mobilenetv2_x010", 2, head="ssdlite")
    made = form_of(network, LABELS, PREPROCESS, SETTINGS, side)
    return made.for_outputs(dynamic=suppressed)


@pytest.mark.parametrize(("size", "small"), [((96, 64), (64, 43)), ((50, 100), (32, 64)), ((48, 48), (48, 48))])
def test_an_image_is_letterboxed_into_the_top_left_corner(size: tuple[int, int], small: tuple[int, int]) -> None:
    image = Image.fromarray(np.full((size[1], size[0], 3), 200, dtype=np.uint8))
    view = form().inputs(image)
    assert view.shape == (3, SIDE, SIDE)
    inside = view[:, : small[1], : small[0]]
    expected = (200 / 255 - torch.tensor(PREPROCESS.mean)) / torch.tensor(PREPROCESS.std)
    torch.testing.assert_close(inside, expected[:, None, None].expand_as(inside), atol=1e-5, rtol=0)
    assert not view[:, small[1] :].any() and not view[:, :, small[0] :].any()


def test_the_default_side_holds_three_to_two() -> None:
    network = create_detector("mobilenetv2_x010", 2, head="ssdlite")
    for longest, side in ((1333, 96), (64, 64), (60, 64)):
        assert form_of(network, LABELS, Preprocess(size=50), DetectionSettings(longest=longest), None).size == (
            side,
            side,
        )
    with pytest.raises(OvertoneError, match=r"(?s)50.*32"):
        form(50)


def test_answers_are_in_pixels_of_the_original() -> None:
    boxes = np.array([[[10, 10, 40, 30], [50, 50, 60, 60], [0, 0, 64, 64]]], dtype=np.float32)
    arrays = [boxes, np.array([[0.9, 0.8, 0.7]], np.float32), np.array([[1, 0, 0]])]
    views = torch.zeros(1, 3, SIDE, SIDE), ((32, 64),), None, ((0.5, 0.5),), ((64, 128),)
    (found,) = form().answer(lambda images: arrays, *views)
    assert found.boxes.tolist() == [[20, 20, 80, 60], [0, 0, 128, 64]]  # the second one lies in the padding
    assert found.labels.tolist() == [1, 0] and found.image_size == (64, 128)
    for wrong in ([boxes], [boxes[0], *arrays[1:]], [boxes, arrays[1], np.array([[1, 0, 2]])]):
        with pytest.raises(OvertoneError, match="export again"):
            form().answer(lambda images, wrong=wrong: wrong, *views)


def test_what_an_export_keeps_of_its_form_is_read_strictly() -> None:
    values = json.loads(json.dumps(dict(form().settings)))
    assert read_form(values, PREPROCESS).shipped == form().shipped
    for key, value in (
        ("size", [0, 64]),
        ("size", [64, 33]),
        ("score", 2.0),
        ("categories", [0]),
        ("unknown", 1),
        ("most", "x"),
    ):
        with pytest.raises(OvertoneError):
            read_form(values | {key: value}, PREPROCESS)


ONE = np.array([[10, 10, 40, 30], [1, 2, 30, 40]], np.float32), np.array([0.9, 0.31], np.float32), np.array([1, 0])


@pytest.mark.parametrize(
    ("box", "score", "label", "agrees"),
    [(0.0, 0.0, 1, True), (0.01, 0.0005, 1, True), (0.5, 0.0, 1, False), (0.0, 0.01, 1, False), (0.0, 0.0, 0, False)],
)
def test_detections_agree_within_the_tolerances(box: float, score: float, label: int, agrees: bool) -> None:
    other = ONE[0] + np.float32([[box] * 4, [0] * 4]), ONE[1] - np.float32([score, 0.0]), np.array([label, 0])
    record, failures = compare_detections([(ONE, other)], Tolerance(2.5e-4, 1e-3, 1.0), 320)
    assert (not failures) == agrees == (record["agreement"] == 1.0)
    assert record["detections"] == 4 and record["from_score"] == 0.3


def test_a_missing_or_added_detection_is_none_that_agrees() -> None:
    fewer = tuple(part[:1] for part in ONE)
    for pair in ((ONE, fewer), (fewer, ONE)):
        record, failures = compare_detections([pair], Tolerance(2.5e-4, 1e-3, 1.0), 320)  # type: ignore[list-item]
        assert failures and record["agreement"] == pytest.approx(2 / 3)


def test_where_nothing_is_sure_the_surest_count() -> None:
    unsure = ONE[0], ONE[1] / 10, ONE[2]
    moved = ONE[0] + 5, ONE[1] / 10, ONE[2]
    assert compare_detections([(unsure, unsure)], Tolerance(1e-3, 1e-3, 1.0), 320)[0]["from_score"] is None
    assert compare_detections([(unsure, moved)], Tolerance(1e-3, 1e-3, 1.0), 320)[1]


def test_images_of_one_ratio_have_a_letterbox_of_their_own() -> None:
    network = create_detector("mobilenetv2_x010", 2, head="ssdlite")
    made = form_of(network, LABELS, PREPROCESS, SETTINGS, None)
    assert made.for_images([(64, 96), (65, 96)]).size == (64, 96)  # 48x72, 49x72
    assert made.for_images([(64, 96), (96, 64)]).size == made.for_images([]).size == (96, 96)
    assert form().for_images([(64, 96)]).size == (SIDE, SIDE)  # was chosen


class Wrong(DetectionForm):
    """A form whose graph finds boxes elsewhere."""

    def for_outputs(self, *, dynamic: bool) -> "Wrong":
        return self._with(suppressed=dynamic)

    def graph(self, network: nn.Module) -> nn.Module:
        graph: Any = super().graph(network)
        graph.anchors += 3
        return graph


def origin(network: nn.Module, kind: type[DetectionForm] = DetectionForm) -> Origin:
    made = form_of(network, LABELS, PREPROCESS, SETTINGS, SIDE)
    made = kind(made.shipped, made.preprocess)
    named: dict[str, Any] = {"classes": LABELS, "labels": LABELS, "task": "detection", "trained": True}
    return Origin("mobilenetv2_x010", made.preprocess, "a test", **named, script=script(), form=made)


def test_an_export_that_finds_something_else_is_refused(tmp_path: Path) -> None:
    network = detector("ssdlite")
    with pytest.raises(OvertoneError, match=r"(?s)does not agree.*detections.*nothing is written"):
        export(network, origin(network, Wrong), Request("torch", checked=2), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_requests_that_a_detector_has_not_are_refused(tmp_path: Path) -> None:
    network = detector("faster_rcnn")
    for request, named in (
        (Request("torch", dynamic_batch=True), "dynamic-batch"),
        (Request("torch", with_preprocessing=True), "with-preprocessing"),
        (Request("torch"), "second stage"),
    ):
        with pytest.raises(OvertoneError, match=named):
            export(network, origin(network), request, tmp_path / "out")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    return write_coco(root, {"val": draw(root / "val", 4)})


@pytest.mark.parametrize(("runtime", "suppressed"), [("onnx", True), ("openvino", False)])
def test_an_export_finds_what_the_network_finds(
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    suppressed: bool,
) -> None:
    pytest.importorskip("pycocotools")
    if (reason := RUNTIMES[runtime].missing()) is not None:
        pytest.skip(reason)
    if not suppressed:  # as where ONNX files cannot be written
        monkeypatch.setattr(OnnxRuntime, "tools", ("a_module_that_is_not_there",))
    network, folder = detector("ssdlite"), tmp_path / "export"
    about = export(network, origin(network), Request(runtime, image_folder=shapes / "val", checked=3), folder)
    assert about.parity["agreement"] == 1.0 and about.parity["detections"] > 0 and about.num_classes == 2
    assert about.settings["form"]["suppressed"] == suppressed

    path = shapes / "val" / "0-001.png"
    expected, out = network_on(network, path), tmp_path / "drawn"
    assert cli.main(["predict", str(folder), str(path), "--out", str(out), "--top-k", "100"]) == 0
    alone = subprocess.run([sys.executable, folder / "run.py", path, out], capture_output=True, text=True, check=True)
    capsys.readouterr()
    predicted, written = (json.loads((out / f"0-001{suffix}").read_text()) for suffix in (".json", ".detections.json"))
    assert len(alone.stdout.splitlines()) == len(written) == len(predicted) == len(expected) > 0
    for results in (predicted, written):
        values = np.array([[*result["bbox"], result["score"], result["category_id"]] for result in results])
        assert np.abs(values - expected).max() < 0.05
    with Image.open(out / "0-001.detections.png") as image:
        assert image.size == (96, 64)

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"none")
    refused = subprocess.run([sys.executable, folder / "run.py", broken], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1

    assert cli.main(["evaluate", str(folder), "--data.root", str(shapes), "--data.split", "all", "--json"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["ap"] <= 100


def network_on(network: nn.Module, path: Path) -> np.ndarray:
    """COCO's boxes, scores and categories (N, 6) of the network on the letterboxed image, shown from a score on."""
    made = origin(network).form
    assert isinstance(made, DetectionForm)
    with Image.open(path) as image, torch.inference_mode():
        (found,) = network(made.inputs(image.convert("RGB"))[None])
        height, width = fitted_size(image.height, image.width, SIDE, PREPROCESS.size)
        scales = torch.tensor([width / image.width, height / image.height] * 2)
        boxes = (found.boxes / scales).clamp(max=torch.tensor([*image.size, *image.size]))
    shown = (found.scores >= SETTINGS.threshold) & (boxes[:, 2:] > boxes[:, :2]).all(1)
    sides = torch.cat((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1)
    return torch.cat((sides, found.scores[:, None], found.labels[:, None] + 1), 1)[shown].numpy()
