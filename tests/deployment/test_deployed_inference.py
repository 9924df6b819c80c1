"""Inference in the deployed form: the same answers as of the network as it was trained, in every task."""

from typing import Any

import pytest
import torch
from exported_nets import FAMILIES, net_of
from nets_to_fold import fill
from torch import nn

from overtone.config import Preprocess
from overtone.deployment.rewrites.deploy import deploy
from overtone.deployment.running import fastest_form
from overtone.engine.inference import Computing, Inference, ready
from overtone.heads import build_segmenter
from overtone.heads.detectors import create_detector
from overtone.zoo import LoadedModel

LABELS = tuple("abcdefg")


def both(
    network: nn.Module,
    task: str,
    size: int,
    precision: str = "float32",
    labels: tuple[str, ...] = LABELS,
    name: str = "test",
) -> tuple[Inference, Inference]:
    """The network as it was trained, and deployed."""
    loaded = LoadedModel(network.eval(), name, labels, Preprocess(size=size), "test", task=task)
    computing = Computing(device="cpu", precision=precision, workers=0)
    return ready(loaded, labels, computing), ready(loaded, labels, computing, form=fastest_form)


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("task", ["classification", "multilabel"])
@pytest.mark.parametrize("architecture", [*FAMILIES.values(), "resnet10t"])
def test_the_probabilities_and_features_of_a_classifier(architecture: str, task: str) -> None:
    size = 224 if architecture == "hornet_tiny_gf" else 64
    network: Any = net_of(architecture)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trained, deployed = both(network, task, size)
    assert trained.model is network and deployed.model is not network and not norms(deployed.model)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    found = []
    for one in (trained, deployed):
        model: Any = one.model
        with torch.inference_mode():
            outputs = one.task.predict(one.placement.forward(model), one.placement.inputs(images))
            pooled = model.forward_head(model.forward_features(images), pre_logits=True)
        found.append((outputs.softmax(1) if task == "classification" else outputs.sigmoid(), pooled))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0, atol=1e-5)
    assert found[1][0].argmax(1).equal(found[0][0].argmax(1))
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-5)
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("architecture", ["hbonet_x010", "hornet_tiny_gf"])
def test_bfloat16_rounds_the_deployed_form_as_much(architecture: str) -> None:
    size = 224 if architecture == "hornet_tiny_gf" else 64
    network = net_of(architecture)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = network(images)
        errors = []
        for one in both(network, "classification", size, "bfloat16"):
            outputs = one.placement.forward(one.model)(images)
            errors.append(float((outputs - exact).norm() / (exact - exact.mean(1, keepdim=True)).norm()))
    assert outputs.dtype == torch.float32 and errors[1] < max(2 * errors[0], 0.05)


@pytest.mark.parametrize(
    ("backbone", "head", "arguments"),
    [
        ("hbonet_x010", "lraspp", {}),
        ("hornet_tiny_gf", "upernet", {"depths": (1, 1, 2, 1), "base_dim": 16}),
    ],
)
def test_the_maps_of_a_segmenter_at_every_size(backbone: str, head: str, arguments: dict[str, Any]) -> None:
    """Global filters keep their form for every size; all else around them is folded."""
    small = {"channels": 16} if head == "upernet" else None
    network = fill(build_segmenter(backbone, head, 3, backbone_args=arguments, head_args=small), backbone)
    trained, deployed = both(network, "segmentation", 64, labels=LABELS[:3])
    assert norms(network) and not norms(deployed.model)
    for height, width in ((64, 64), (96, 70)):
        images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected, found = (one.placement.forward(one.model)(images) for one in (trained, deployed))
        torch.testing.assert_close(found.softmax(1), expected.softmax(1), rtol=0, atol=1e-5)
        assert found.argmax(1).equal(expected.argmax(1))


def test_the_boxes_of_a_detector_at_every_size() -> None:
    torch.manual_seed(0)
    arguments = {"width": 32, "score_thresh": 0.005, "detections_per_img": 20}
    network = create_detector("mobilenetv2_x010", 2, head="retinanet", head_args=arguments)
    trained, deployed = both(network, "detection", 64, labels=LABELS[:2], name="retinanet_mobilenetv2_x010")
    assert deployed.model is not network and not norms(deployed.model)
    for size in ((64, 64), (96, 128)):
        images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            (expected,), (found,) = (
                one.task.predict(one.placement.forward(one.model), images) for one in (trained, deployed)
            )
        assert len(expected.scores) and found.labels.equal(expected.labels)
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=1e-3)


class Stubborn(nn.Module):
    """A classifier that takes one size, and nothing that watches it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[-1] != 8:
            raise KeyError("size")
        return self.layer(images.flatten(1))


def test_a_network_that_cannot_be_deployed_stays_as_it_is() -> None:
    network = Stubborn()
    _, found = both(network, "classification", 64)
    assert found.model is network
    _, found = both(network, "classification", 8)
    assert found.model is not network


def test_forms_of_one_size_are_left_out_where_every_size_goes() -> None:
    network: Any = net_of("hornet_tiny_gf")
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(deploy(network, 64, any_size=True)(images), network(images), rtol=1e-4, atol=1e-5)
        with pytest.raises(Exception, match="size"):
            deploy(network, 64)(images)
