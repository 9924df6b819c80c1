"""A family that is defined here is deployed by its own rewrites and exported, and no module of ours names it."""

import numpy as np
import pytest
import torch
from exported_nets import PREPROCESS, inputs, needs, origin
from nets_to_fold import fill
from torch import Tensor, nn

import overtone
from overtone.deployment.export import Request, export, open_export
from overtone.deployment.parity import LOGITS_OF_CLASSES
from overtone.deployment.rewrites.compiler_form import keep_logits_only, with_channels_first
from overtone.deployment.running import loaded_export
from overtone.errors import OvertoneError
from overtone.tasks.task import OutputSpec


class Doubling(nn.Conv2d):
    """A convolution whose output is doubled."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)

    def plain(self) -> nn.Conv2d:
        conv = nn.Conv2d(self.in_channels, self.out_channels, self.kernel_size, self.stride, bias=False)
        conv.weight.data = 2 * self.weight.data
        return conv


class Tripling(Doubling):
    """Inherits a plain form that is not its own."""

    def forward(self, input: Tensor) -> Tensor:
        return 3 * nn.Conv2d.forward(self, input)


class Spectrum(nn.Module):
    """The power of a map's frequencies, by a transform that exporters do not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x.flatten(2)).abs().square()

    def deployed(self, shape: tuple[int, ...] | None) -> nn.Module:
        return self if shape is None else DeployedSpectrum(shape[2] * shape[3])


class DeployedSpectrum(nn.Module):
    """The same for maps of one size."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        angles = 2 * torch.pi / pixels * torch.outer(torch.arange(pixels), torch.arange(pixels // 2 + 1)).double()
        self.cos, self.sin = nn.Buffer(angles.cos().float()), nn.Buffer(angles.sin().float())

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        return (x @ self.cos) ** 2 + (x @ self.sin) ** 2

    def channels_first(self) -> nn.Module:
        return nn.Sequential(self)


class ToyNet(nn.Module):
    """Two convolutions, a batch norm, a spectrum and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = Doubling(3, 8, 4, 4, bias=False), nn.BatchNorm2d(8)
        self.narrow, self.spectrum, self.head = Tripling(8, 4, 2, 2, bias=False), Spectrum(), nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.spectrum(self.narrow(self.norm(self.stem(x)).relu())).mean(2).sqrt())

    def for_logits_only(self) -> None:
        self.only_logits = True


@pytest.fixture(scope="module")
def net():
    return fill(ToyNet(), "toy").eval()


def test_a_family_brings_its_own_rewrites(net):
    found = overtone.deploy(net, PREPROCESS.size)
    kinds = [type(module) for module in found.modules()]
    assert DeployedSpectrum in kinds and Spectrum not in kinds
    assert Doubling not in kinds and nn.BatchNorm2d not in kinds  # plain, so that the norm was folded into it
    assert Tripling in kinds  # whose forward is not that of the class with the rewrite
    images = torch.from_numpy(inputs(3))
    torch.testing.assert_close(found(images), net(images), rtol=1e-4, atol=1e-4)
    assert Spectrum in [type(module) for module in net.modules()]


def test_and_its_form_for_compilers(net):
    deployed = overtone.deploy(net, PREPROCESS.size)
    found = with_channels_first(deployed)
    assert isinstance(found.spectrum, nn.Sequential) and isinstance(deployed.spectrum, DeployedSpectrum)
    keep_logits_only(found)
    assert found.only_logits and not hasattr(deployed, "only_logits")


def test_it_is_exported_to_onnx(net, tmp_path):
    needs("onnx")
    about = export(net, origin("toy"), Request("onnx", dynamic_batch=True, checked=3), tmp_path / "toy")
    assert about.architecture == "toy" and about.parity["largest"] <= 1e-4
    predictor, _ = open_export(tmp_path / "toy")
    with torch.inference_mode():
        expected = net(torch.from_numpy(inputs(3))).numpy()
    np.testing.assert_allclose(predictor.predict(inputs(3)), expected, atol=1e-4 * np.abs(expected).max())


class TwoHeads(nn.Module):
    """A network with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 7)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.stem(x)
        return {"logits": self.head(maps.relu().mean((2, 3))), "maps": maps}


def disagree(reference, found, tie):
    return 0.0, 0.0


@pytest.mark.parametrize("runtime", ["onnx", "openvino", "torch"])
def test_several_outputs_have_names_and_rules_of_their_own(tmp_path, runtime):
    needs(runtime)
    net = fill(TwoHeads(), "two").eval()
    seen = []

    def agree(reference, found, tie):
        seen.append((reference.shape, found.shape))
        np.testing.assert_allclose(found, reference, atol=1e-4)
        return 1.0, 1.0

    two = origin("two", outputs=(LOGITS_OF_CLASSES, OutputSpec("maps", agree)))
    about = export(net, two, Request(runtime, checked=3), tmp_path / "two")
    assert about.outputs == ("logits", "maps") and about.parity["more"]["maps"]["largest"] <= 1e-4
    assert seen == [((3, 8, 4, 4), (3, 8, 4, 4))]
    images = torch.from_numpy(inputs(3))
    found = loaded_export(tmp_path / "two").model(images)
    with torch.inference_mode():
        torch.testing.assert_close(found, net(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(OvertoneError, match="does not agree"):
        export(
            net,
            origin("two", outputs=(LOGITS_OF_CLASSES, OutputSpec("maps", disagree))),
            Request(runtime, checked=2),
            tmp_path / "no",
        )
