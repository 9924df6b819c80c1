import pytest
import torch
from torch import nn
from torch.nn import functional as F

from overtone.layers import depthwise_conv
from overtone.layers.depthwise_conv import DepthwiseConv2d, depthwise_conv2d


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


def plain_gradients(x, weight, grad, stride):
    """Of the input and the filter, by PyTorch in float64."""
    x, weight = (t.detach().double().requires_grad_() for t in (x, weight))
    y = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=len(weight))
    y.backward(grad.double())
    return x.grad, weight.grad


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("height", "width"), [(5, 5), (6, 9), (11, 8), (1, 7), (7, 1)])
@pytest.mark.parametrize(("kernel_size", "stride"), [(5, 1), (5, 2), (7, 1), (7, 2), (9, 1)])
def test_a_wide_filter_in_pieces_has_the_same_gradient(kernel_size, stride, height, width, memory_format):
    torch.manual_seed(0)
    x = torch.randn(3, 6, height, width, dtype=torch.float64).to(memory_format=memory_format)
    weight = torch.randn(6, 1, kernel_size, kernel_size, dtype=torch.float64)
    grad = torch.randn_like(F.conv2d(x, weight, stride=stride, padding=kernel_size // 2, groups=6))
    _, expected = plain_gradients(x, weight, grad, stride)
    found = depthwise_conv._wide_filter_gradient(x, grad, kernel_size, stride)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 3), (4, 2), (5, 8)])
@pytest.mark.parametrize(("kernel_size", "stride"), [(5, 1), (5, 2), (7, 1), (7, 2)])
def test_all_pairs_of_positions_give_the_same_gradient(kernel_size, stride, height, width, memory_format):
    torch.manual_seed(0)
    x = torch.randn(3, 6, height, width, dtype=torch.float64).to(memory_format=memory_format)
    weight = torch.randn(6, 1, kernel_size, kernel_size, dtype=torch.float64)
    grad = torch.randn_like(F.conv2d(x, weight, stride=stride, padding=kernel_size // 2, groups=6))
    _, expected = plain_gradients(x, weight, grad, stride)
    found = depthwise_conv._pairwise_filter_gradient(x, grad, kernel_size, stride)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("kernel_size", "width", "is_taken"), [(5, 4, True), (3, 4, False), (5, 9, False)])
def test_wide_filters_on_narrow_maps_meet_all_pairs(kernel_size, width, is_taken, monkeypatch):
    taken = []
    original = depthwise_conv._pairwise_filter_gradient
    monkeypatch.setattr(
        depthwise_conv, "_pairwise_filter_gradient", lambda *args: taken.append(True) or original(*args)
    )
    DepthwiseConv2d(4, kernel_size)(torch.randn(2, 4, 4, width)).sum().backward()
    assert bool(taken) == is_taken


@pytest.mark.parametrize(
    ("kernel_size", "width", "in_pieces"), [(5, 9, True), (7, 9, True), (3, 9, False), (5, 4, False)]
)
def test_wide_filters_are_cut_on_maps_that_are_large_enough(kernel_size, width, in_pieces, monkeypatch):
    taken = []
    original = depthwise_conv._wide_filter_gradient
    monkeypatch.setattr(depthwise_conv, "_wide_filter_gradient", lambda *args: taken.append(True) or original(*args))
    monkeypatch.setattr(depthwise_conv, "_HAS_FAST_KERNEL", True)
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, width, requires_grad=True)
    conv = nn.Conv2d(4, 4, kernel_size, padding=kernel_size // 2, groups=4)
    y = depthwise_conv2d(x, conv, scale=0.5)
    torch.testing.assert_close(y, conv(x) * 0.5)
    grad = torch.randn_like(y)
    y.backward(grad)
    expected_x, expected_weight = plain_gradients(x, conv.weight, grad * 0.5, 1)
    torch.testing.assert_close(x.grad.double(), expected_x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(conv.weight.grad.double(), expected_weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(conv.bias.grad, grad.sum((0, 2, 3)) * 0.5)
    assert bool(taken) == in_pieces


@pytest.mark.parametrize(
    ("kernel_size", "stride", "size"), [(3, 2, 12), (5, 1, 12), (5, 2, 12), (5, 1, 4), (3, 1, 2), (3, 1, 12)]
)
def test_under_autocast_the_gradients_are_those_of_bfloat16(kernel_size, stride, size):
    torch.manual_seed(0)
    layer = DepthwiseConv2d(4, kernel_size, stride)
    x = torch.randn(2, 4, size, size).to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    grad = torch.randn_like(y)
    y.backward(grad)
    expected_x, expected_weight = plain_gradients(x.bfloat16(), layer.weight.bfloat16(), grad, stride)
    assert x.grad.dtype == layer.weight.grad.dtype == torch.float32
    for found, expected in (x.grad, expected_x), (layer.weight.grad, expected_weight):
        assert (found - expected).norm() < 0.01 * expected.norm()


def test_gradients_of_the_gradients_are_there():
    torch.manual_seed(0)
    small = DepthwiseConv2d(3, 3).double()
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)  # small enough for the taps
    assert torch.autograd.gradgradcheck(lambda x: small(x).square(), x)
    wide = torch.randn(2, 4, 9, 9, requires_grad=True)
    layer = DepthwiseConv2d(4, 5)
    (grad,) = torch.autograd.grad(layer(wide).square().sum(), wide, create_graph=True)
    grad.square().sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_gradients_per_sample_are_there():
    torch.manual_seed(0)
    images, layer = torch.randn(3, 4, 9, 9), DepthwiseConv2d(4, 5)

    def loss(weight, image):
        return torch.func.functional_call(layer, {"weight": weight}, image[None]).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(layer.weight.detach(), images)
    layer(images[1:2]).square().sum().backward()
    torch.testing.assert_close(found[1], layer.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_a_trace_records_a_plain_convolution():
    traced = torch.jit.trace(DepthwiseConv2d(4, 5), torch.zeros(1, 4, 9, 9), check_trace=False)
    assert "PythonOp" not in str(traced.inlined_graph) and "_convolution" in str(traced.inlined_graph)


@pytest.mark.parametrize("pixels", [2, 12])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_filter_s_gradient_lies_as_the_filter(pixels, layout):
    conv = DepthwiseConv2d(36, 5).to(memory_format=layout)
    conv(torch.randn(2, 36, pixels, pixels).to(memory_format=layout)).sum().backward()
    assert conv.weight.grad.stride() == conv.weight.stride()
