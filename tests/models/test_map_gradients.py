"""Gradients of slices and pools are dense, in the layout of the maps, and right."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import overtone
from overtone.layers.map_gradients import dense_gradient, halve_resolution
from overtone.models.hbonet import HarmoniousBottleneck


def test_a_gradient_is_made_dense_in_the_layout_of_its_map():
    for memory_format in (torch.channels_last, torch.contiguous_format):
        x = torch.randn(2, 3, 4, 5).to(memory_format=memory_format).requires_grad_()
        other, seen = torch.randn(2, 6, 4, 5).to(memory_format=memory_format), []
        inner = x * 1
        inner.register_hook(seen.append)
        (torch.cat([other, dense_gradient(inner)], dim=1).square() / 2).sum().backward()
        assert seen[0].is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(x.grad, x.detach())


@pytest.mark.parametrize("first", [0, 2])
@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 6), (4, 3), (2, 2)])
def test_halving_has_the_result_and_the_gradient_of_a_pool(height, width, first):
    torch.manual_seed(0)
    x = torch.randn(2, 5, height, width, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    reference = x.detach().clone().requires_grad_()
    found = halve_resolution(x, first)
    expected = F.avg_pool2d(reference, 2, ceil_mode=True, count_include_pad=False)[:, first:]
    torch.testing.assert_close(found, expected)
    grad = torch.randn_like(expected)
    found.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(x.grad, reference.grad)
    assert torch.autograd.gradgradcheck(lambda x: halve_resolution(x, first).square(), x.detach().requires_grad_())


def literal_block(block: HarmoniousBottleneck, x: torch.Tensor) -> torch.Tensor:
    """The block as the paper's figure has it, with slices and PyTorch's own layers."""
    y = block.conv(x)
    if block.stride == 2:
        x = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
    if block.is_added:
        up = F.interpolate(y, size=x.shape[-2:], mode="nearest")
        y = block.upconv(x[:, : block.half_chs] + up)
    return torch.cat([x[:, -block.passed_chs :], y], dim=1)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 7)])
@pytest.mark.parametrize("num_halvings", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("out_chs", [4, 6, 7, 9, 12])  # narrower, as wide, and wider up to twice
def test_the_block_has_the_gradients_of_the_literal_one(out_chs, stride, num_halvings, height, width):
    torch.manual_seed(0)
    block = HarmoniousBottleneck(6, out_chs, stride=stride, num_halvings=num_halvings).double().train()
    block.to(memory_format=torch.channels_last)
    x = torch.randn(2, 6, height, width, dtype=torch.float64).to(memory_format=torch.channels_last)
    grad, found = None, []
    for forward in (block, lambda x: literal_block(block, x)):
        leaf = x.clone().requires_grad_()
        block.zero_grad()
        y = forward(leaf * 1)
        grad = torch.randn_like(y) if grad is None else grad
        y.backward(grad)
        found.append([y.detach(), leaf.grad, *(p.grad for p in block.parameters())])
    torch.testing.assert_close(*found)


class _GradientLayouts(TorchDispatchMode):
    """Counts the gradients that batch norms get, and those of them that are not dense and channels_last."""

    def __init__(self):
        super().__init__()
        self.count, self.bad = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "batch_norm_backward" in func.overloadpacket.__name__:
            self.count += 1
            if not args[0].is_contiguous(memory_format=torch.channels_last):
                self.bad.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["hbonet_x025", "hbonet_x025_4x", "mobilenetv2_x025"])
def test_every_batch_norm_gets_its_gradient_dense_and_channels_last(name):
    net = overtone.create_model(name, num_classes=3).train().to(memory_format=torch.channels_last)
    loss = net(torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)).square().sum()
    with _GradientLayouts() as layouts:
        loss.backward()
    assert layouts.count == sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert layouts.bad == []
