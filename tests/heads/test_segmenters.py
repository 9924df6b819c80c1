"""Segmentation networks of every head on backbones of ours and of timm's."""

import pytest
import timm
import torch
from torch.nn import functional as F

import overtone
from overtone.errors import OvertoneError
from overtone.heads import (
    HEADS,
    PUBLISHED_SEGMENTERS,
    TrainingLogits,
    build_segmenter,
    create_segmenter,
    is_segmenter,
    load_backbone_weights,
    parse_segmenter,
)
from overtone.heads.backbones import build_backbone
from overtone.heads.segmentation_loss import segmentation_losses

BACKBONES = ("mobilenetv2_x010", "hbonet_x010", "resnet10t", "swin_tiny_patch4_window7_224")
SMALL = {"upernet": {"channels": 16}}


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_trains_on_every_backbone_at_any_size(head: str, backbone: str) -> None:
    depths = {"depths": (1, 1, 1, 1)} if backbone.startswith("swin") else {}
    model = build_segmenter(backbone, head, 3, backbone_args=depths, head_args=SMALL.get(head))
    for size in ((64, 64), (70, 53)):
        outputs = model(torch.randn(2, 3, *size))
        assert isinstance(outputs, TrainingLogits)
        losses = segmentation_losses(outputs, torch.randint(0, 3, (2, *size)))
        model.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        without = [
            name
            for name, parameter in model.named_parameters()
            if parameter.grad is None or not parameter.grad.isfinite().all()
        ]
        assert not without
        with torch.no_grad():
            logits = model.eval()(torch.randn(1, 3, *size))
        model.train()
        stride = {"upernet": 4, "lraspp": 8}.get(head, 32)
        assert logits.shape == (1, 3, -(-size[0] // stride), -(-size[1] // stride))


def test_maps_do_not_depend_on_the_layout_that_timm_gives() -> None:
    """Swin's maps come as (B, H, W, C): channels and places must not change roles."""
    backbone = build_backbone("swin_tiny_patch4_window7_224", arguments={"depths": (1, 1, 1, 1)}).eval()
    image = torch.zeros(1, 3, 64, 128)
    changed = image.clone()
    changed[:, :, :4, 120:] = 1.0
    with torch.no_grad():
        before, after = backbone(image)[0], backbone(changed)[0]
    assert before.shape == (1, 96, 16, 32)
    row, column = divmod(int((after - before).abs().sum(1).argmax()), 32)
    assert row <= 1 and column >= 29


def test_sizes_that_a_network_refuses_are_padded_and_cut() -> None:
    backbone = build_backbone("vit_tiny_patch16_224", arguments={"depth": 3}).eval()
    assert backbone.size_divisor == 16
    with torch.no_grad():
        assert [x.shape for x in backbone(torch.zeros(1, 3, 70, 53))] == [(1, 192, 5, 4)] * 3


@pytest.mark.parametrize(
    ("backbone", "output_stride"),
    [("mobilenetv2_x010", 8), ("mobilenetv2_x010", 16), ("hbonet_x010", 16), ("resnet10t", 8)],
)
def test_output_stride_keeps_the_maps_and_the_weights(backbone: str, output_stride: int) -> None:
    usual = build_backbone(backbone).eval()
    dilated = build_backbone(backbone, arguments={"output_stride": output_stride}).eval()
    dilated.load_state_dict(usual.state_dict(), strict=True)
    assert dilated.reductions == [min(reduction, output_stride) for reduction in usual.reductions]
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps, unchanged = dilated(images), usual(images)
    for x, other, reduction in zip(maps, unchanged, dilated.reductions, strict=True):
        assert x.shape[2:] == (64 // reduction, 96 // reduction)
        assert x.shape[1] == other.shape[1]


def test_dilation_sees_what_strides_saw() -> None:
    """Every second place of the dilated map is the map of the network with a stride, to the border's zeros and all."""
    usual = overtone.create_model("mobilenetv2_x010", num_classes=0).eval().double()
    dilated = overtone.create_model("mobilenetv2_x010", num_classes=0, output_stride=8).eval().double()
    dilated.load_state_dict(usual.state_dict())
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        coarse, fine = usual.forward_features(images), dilated.forward_features(images)
    torch.testing.assert_close(fine[:, :, ::4, ::4], coarse)


def test_a_family_without_dilation_says_so() -> None:
    with pytest.raises(OvertoneError, match=r"8.*16, 32"):
        build_segmenter("hbonet_x010", "fcn", 2, backbone_args={"output_stride": 8})
    with pytest.raises(OvertoneError, match="output_stride"):
        build_segmenter("hornet_tiny_7x7", "fcn", 2, backbone_args={"output_stride": 16})


@pytest.mark.parametrize("name", ["mobilenetv2_x010", "hornet_tiny_gf", "resnet10t", "efficientnet_lite0"])
def test_a_classifier_gives_its_weights_to_a_backbone(name: str) -> None:
    classifier = overtone.create_model(name, num_classes=7).eval()
    arguments = {"filter_size": 384} if name.endswith("_gf") else {}
    backbone = build_backbone(name, arguments=arguments).eval()
    load_backbone_weights(backbone, classifier.state_dict())
    images = torch.randn(1, 3, 64, 64)
    reference = build_backbone(name).eval()
    load_backbone_weights(reference, classifier.state_dict())
    with torch.no_grad():
        expected = classifier.forward_intermediates(images, intermediates_only=True)
        if name.startswith("hornet"):
            expected = [F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=1e-6) for x in expected]
            expected = [x.permute(0, 3, 1, 2) for x in expected]
            backbone = reference  # resized filters are another network, if a close one
        for x, other in zip(backbone(images), expected[-4:], strict=True):
            torch.testing.assert_close(x, other, rtol=1e-4, atol=1e-4)


def test_weights_of_another_backbone_are_refused() -> None:
    weights = overtone.create_model("mobilenetv2_x025").state_dict()
    with pytest.raises(OvertoneError, match=r"another backbone.*features\.0"):
        load_backbone_weights(build_backbone("mobilenetv2_x010"), weights)


def test_names_are_a_head_and_a_backbone() -> None:
    assert parse_segmenter("lraspp_hbonet_x100").backbone == "hbonet_x100"
    assert parse_segmenter("upernet_hornet_base_gf").backbone_args == {"filter_size": 384}
    assert parse_segmenter("upernet_gngf_hornet_small_7x7") == ("upernet", "hornet_small_7x7", {"fusion": "gngf"}, {})
    assert is_segmenter("fcn_resnet10t") and not is_segmenter("resnet10t") and not is_segmenter("fcn_nothing")
    assert all(map(is_segmenter, PUBLISHED_SEGMENTERS))
    assert not any(map(timm.is_model, PUBLISHED_SEGMENTERS))


@pytest.mark.parametrize("name", ["upernet_hornet_huge_7x7", "unet_hbonet_x100", "hbonet_x100"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(OvertoneError, match=name):
        create_segmenter(name)


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(OvertoneError, match=r"unet.*upernet"):
        build_segmenter("hbonet_x010", "unet", 2)
    with pytest.raises(OvertoneError, match=r"hbonet_x011.*hbonet_x010"):
        build_segmenter("hbonet_x011", "fcn", 2)
    with pytest.raises(OvertoneError, match="colour"):
        build_segmenter("hbonet_x010", "fcn", 2, head_args={"colour": 1})
    with pytest.raises(OvertoneError, match="colour"):
        build_segmenter("resnet10t", "fcn", 2, backbone_args={"colour": 1})
    with pytest.raises(OvertoneError, match="'gn'"):
        build_segmenter("hbonet_x010", "upernet", 2, head_args={"fusion": "gn"})
    with pytest.raises(OvertoneError, match="not 0"):
        build_segmenter("hbonet_x010", "fcn", 0)


def test_the_auxiliary_head_is_there_when_asked_for() -> None:
    images = torch.zeros(2, 3, 64, 64)
    outputs = build_segmenter("hbonet_x010", "fcn", 2, auxiliary=True)(images)
    assert outputs.auxiliary.shape == (2, 2, 4, 4)
    assert build_segmenter("hbonet_x010", "fcn", 2)(images).auxiliary is None


def test_checkpointing_changes_no_gradient() -> None:
    model = build_segmenter("hornet_tiny_gf", "upernet", 2, {"depths": (1, 1, 1, 1)}, {"channels": 8}).double().eval()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    gradients = []
    for enabled in (False, True):
        model.backbone.set_grad_checkpointing(enabled)
        model.zero_grad()
        model(images).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.backbone.parameters()])
    torch.testing.assert_close(*gradients)


def test_deployed_form_keeps_dilation() -> None:
    model = overtone.create_model("mobilenetv2_x010", num_classes=5, output_stride=8).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(overtone.deploy(model)(images), model(images), rtol=1e-4, atol=1e-5)
