"""Linear layers through oneDNN: equal to PyTorch's, and chosen only where nothing records the operations."""

from collections import Counter

import pytest
import timm
import torch
from torch.nn import functional as F

import overtone
from overtone.layers import onednn_linear
from overtone.layers.onednn_linear import VARIABLE, OneDnnLinear, linear

RELATIVE = 1e-6


@pytest.fixture
def onednn(monkeypatch):
    """Linear layers go through oneDNN, whatever the processor."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setenv(VARIABLE, "1")


@pytest.fixture
def products(monkeypatch):
    """The products that went through oneDNN, as a list that grows; those of the tests' sizes do."""
    seen = []
    monkeypatch.setattr(onednn_linear, "_MULTIPLY_ADDS", 0)
    product = onednn_linear._product
    monkeypatch.setattr(onednn_linear, "_product", lambda *a: seen.append(a) or product(*a))
    return seen


def inputs(shape, out, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(s, generator=generator) for s in (shape, (out, shape[-1]), (out,), (*shape[:-1], out))]
    return [t.to(dtype) for t in tensors]


def gradients(function, x, weight, bias, grad):
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    output = function(*leaves)
    return output.detach(), *torch.autograd.grad(output, leaves, grad)


@pytest.mark.parametrize("shape", [(64, 24), (2, 33, 24), (2, 7, 5, 24)])
@pytest.mark.parametrize("out", [10, 40])
def test_output_and_gradients_are_those_of_linear(onednn, products, shape, out):
    found = gradients(linear, *inputs(shape, out))
    assert len(products) == 3  # forward, and the gradients of input and weight
    exact = gradients(F.linear, *inputs(shape, out, torch.float64))
    for ours, expected in zip(found, exact, strict=True):
        assert ours.shape == expected.shape and ours.is_contiguous()
        assert (ours - expected).abs().max() <= RELATIVE * expected.abs().max()


def test_gelu_within_the_product_is_exact(onednn, products):
    x, weight, bias, _ = inputs((2, 33, 24), 40)
    expected = F.gelu(F.linear(x.double(), weight.double(), bias.double()))
    for tensor in (x, x.clone().requires_grad_()):
        found = linear(tensor, weight, bias, gelu=True)
        assert (found - expected).abs().max() <= RELATIVE * expected.abs().max()
    assert len(products) == 2


def test_float64_is_pytorchs_own_to_the_bit(onednn, products):
    found, expected = (gradients(f, *inputs((64, 24), 10, torch.float64)) for f in (linear, F.linear))
    assert all(map(torch.equal, found, expected)) and not products


def test_input_may_be_a_slice_and_a_bias_missing(onednn, products):
    x, weight, _, _ = inputs((64, 48), 10)
    torch.testing.assert_close(linear(x[:, 24:], weight[:, 24:]), F.linear(x[:, 24:], weight[:, 24:]))
    assert len(products) == 1


def test_only_what_is_wanted_is_differentiated(onednn, products):
    x, weight, bias, grad = inputs((64, 24), 10)
    weight.requires_grad_()
    linear(x, weight, bias).backward(grad)
    assert len(products) == 2 and weight.grad is not None


def test_gradient_of_a_gradient(onednn, products):
    def penalty(function, dtype):
        x, weight, bias, _ = inputs((64, 24), 10, dtype)
        leaf = x.requires_grad_()
        (first,) = torch.autograd.grad(function(leaf, weight, bias).square().sum(), leaf, create_graph=True)
        return torch.autograd.grad(first.square().sum(), leaf)[0]

    expected = penalty(F.linear, torch.float64)
    assert (penalty(linear, torch.float32) - expected).abs().max() <= RELATIVE * expected.abs().max()


def test_a_run_repeats_to_the_bit(onednn, products):
    first, second = (gradients(linear, *inputs((300, 24), 40)) for _ in range(2))
    assert all(map(torch.equal, first, second))


def under_autocast(x, layer):
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:FutureWarning")
@pytest.mark.parametrize(
    "call",
    [
        lambda x, layer: torch.export.export(layer, (x,)).module()(x),
        lambda x, layer: torch.jit.trace(layer, x, check_trace=False)(x),
        lambda x, layer: torch.func.vmap(layer)(x.reshape(2, -1, 24)),
        lambda x, layer: layer(x[:8]),
        under_autocast,
    ],
    ids=["export", "trace", "vmap", "few rows", "autocast"],
)
def test_others_get_plain_linear(onednn, products, call):
    x, _, _, _ = inputs((64, 24), 10)
    with torch.no_grad():
        call(x, OneDnnLinear(24, 10))
    assert not products


def test_small_products_stay(onednn):
    small, large = inputs((64, 24), 10), inputs((2000, 128), 64)
    assert not onednn_linear._applies(*small[:2]) and onednn_linear._applies(*large[:2])


def test_switched_off(monkeypatch, products):
    monkeypatch.setenv(VARIABLE, "0")
    x, weight, bias, _ = inputs((64, 24), 10)
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias)) and not products


@pytest.mark.parametrize(
    ("processor", "capability", "chosen"),
    [
        ("vendor_id : AuthenticAMD", "AVX512", True),
        ("vendor_id : AuthenticAMD", "AVX2", False),
        ("vendor_id : GenuineIntel", "AVX512", False),
    ],
)
def test_chosen_by_the_processor(monkeypatch, tmp_path, processor, capability, chosen):
    (tmp_path / "cpuinfo").write_text(processor)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(onednn_linear, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(onednn_linear, "_is_faster", onednn_linear._is_faster.__wrapped__)
    assert onednn_linear.is_chosen() is (chosen and torch.backends.mkldnn.is_available())


def test_deploy_rewrites_the_linears_of_any_network(onednn, products):
    net = timm.create_model("vit_tiny_patch16_224", img_size=96, embed_dim=48, depth=1, num_classes=5).eval()
    x = torch.randn(1, 3, 96, 96)
    deployed = overtone.deploy(net, 96)
    products.clear()
    with torch.no_grad():
        torch.testing.assert_close(deployed(x), net(x), rtol=1e-4, atol=1e-5)
    assert (
        len(products) == 4
        and sum(args[3:] == (True,) for args in products) == 1
        and deployed.state_dict().keys() <= net.state_dict().keys()
    )
    targets = Counter(str(node.target) for node in torch.export.export(deployed, (x,)).graph.nodes)
    assert targets["aten.linear.default"] == 5 and targets["aten.gelu.default"] == 1
    assert not any("mkldnn" in target for target in targets)
