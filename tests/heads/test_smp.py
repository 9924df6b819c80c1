"""The decoders of segmentation-models-pytorch, by its own `create_model`, over our architectures."""

import warnings

import pytest
import torch

import overtone  # noqa: F401 - registers the architectures with timm
from overtone.errors import OvertoneError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    smp = pytest.importorskip("segmentation_models_pytorch")


@pytest.mark.parametrize(
    ("encoder", "decoders"),
    [
        ("hbonet_x010", ("unet", "fpn", "pan", "segformer", "deeplabv3plus")),
        ("mobilenetv2_x010", ("linknet", "deeplabv3")),
        ("hornet_tiny_7x7", ("unet",)),
        ("harm_resnet50", ("upernet",)),
    ],
)
def test_decoders_give_a_map_of_each_class(encoder, decoders):
    for decoder in decoders:
        with torch.device("meta"):
            network = smp.create_model(decoder, encoder_name=f"tu-{encoder}", encoder_weights=None, classes=3).eval()
            with torch.no_grad():
                logits = network(torch.empty(1, 3, 128, 128))
        assert logits.shape == (1, 3, 128, 128), decoder


def test_a_network_takes_a_training_step():
    network = smp.create_model("unet", encoder_name="tu-hbonet_x010", encoder_weights=None, classes=3)
    network(torch.randn(2, 3, 64, 64)).mean().backward()
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())


def test_a_stride_that_hbonet_does_not_have_is_named():
    with pytest.raises(OvertoneError, match="8"):
        smp.create_model("deeplabv3", encoder_name="tu-hbonet_x010", encoder_weights=None, classes=3)
