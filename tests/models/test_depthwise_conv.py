import pytest
import torch
from torch import nn
from torch.nn import functional as F

from overtone.layers import depthwise_conv
from overtone.layers.depthwise_conv import DepthwiseConv2d


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 2), (3, 2), (3, 4), (4, 4)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_gradients_are_those_of_the_plain_convolution(kernel_size, stride, height, width, memory_format, monkeypatch):
    taken = []
    original = depthwise_conv._filter_gradient
    monkeypatch.setattr(depthwise_conv, "_filter_gradient", lambda *args: taken.append(True) or original(*args))
    torch.manual_seed(0)
    layer = DepthwiseConv2d(6, kernel_size, stride).double()
    x = torch.randn(5, 6, height, width, dtype=torch.float64).to(memory_format=memory_format).requires_grad_()
    plain = x.detach().clone().requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    y = layer(x)
    expected = F.conv2d(plain, weight, stride=stride, padding=kernel_size // 2, groups=6)
    torch.testing.assert_close(y, expected)
    grad = torch.randn_like(y)
    y.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(x.grad, plain.grad)
    torch.testing.assert_close(layer.weight.grad, weight.grad)
    assert bool(taken) == (max(height, width) <= 2 * stride)


def test_it_is_a_plain_convolution_elsewhere() -> None:
    layer = DepthwiseConv2d(4, 3)
    assert isinstance(layer, nn.Conv2d) and layer.groups == 4
    with torch.no_grad():
        assert layer(torch.zeros(1, 4, 2, 2)).shape == (1, 4, 2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.zeros(1, 4, 2, 2)).dtype == torch.bfloat16
    assert layer(torch.zeros(0, 4, 2, 2)).shape == (0, 4, 2, 2)
