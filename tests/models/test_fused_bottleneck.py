"""The fused bottleneck computes what its layers compute, and steps aside where something looks at them."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

import overtone.models  # noqa: F401  (registers the architectures)
from overtone.layers import fused_bottleneck
from overtone.layers.fused_bottleneck import run_bottleneck
from overtone.layers.inverted_residual import InvertedResidual


@pytest.fixture(autouse=True)
def count(monkeypatch):
    """Small maps are fused too, an image or two at a time; returns how often that happened."""
    calls, apply = [], fused_bottleneck._Bottleneck.apply
    monkeypatch.setattr(fused_bottleneck, "_LEAST_BYTES", 0)
    monkeypatch.setattr(fused_bottleneck, "_CHUNK_BYTES", 8 * 24 * 9 * 7 * 2)
    monkeypatch.setattr(fused_bottleneck, "_GRAM_ROWS", 50)
    monkeypatch.setattr(fused_bottleneck._Bottleneck, "apply", lambda *a: calls.append(1) or apply(*a))
    return calls


def block(stride=1, dtype=torch.float64) -> InvertedResidual:
    torch.manual_seed(0)
    net = InvertedResidual(4, 6, stride=stride, expand_ratio=6).to(dtype).train()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, 1, 1)
            nn.init.normal_(norm.running_mean)
    return net.to(memory_format=torch.channels_last)


def maps(offset=0.0, dtype=torch.float64) -> torch.Tensor:
    torch.manual_seed(1)
    x = torch.randn(5, 4, 9, 7, dtype=torch.float64) * torch.tensor([0.1, 1, 2, 5])[:, None, None] + offset
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def layers(sequence, x):
    return sequence(x)


def results(net, x, run) -> list[torch.Tensor]:
    """Output, gradients of the input and of all weights, and buffers after two steps."""
    net, leaf = copy.deepcopy(net), x.clone().requires_grad_()
    for _ in range(2):
        y = run(net.conv, leaf * 1)
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).sin().view_as(y))
    return [y.detach(), leaf.grad, *(p.grad for p in net.parameters() if p.requires_grad), *net.buffers()]


def worst(found, expected) -> list[float]:
    return [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize("stride", [1, 2])
def test_the_fused_bottleneck_is_the_layers(stride, count):
    net = block(stride)
    found, expected = results(net, maps(0.5), run_bottleneck), results(net, maps(0.5), layers)
    assert len(count) == 2
    assert max(worst(found, expected)) < 1e-12


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_float32_is_as_exact_as_the_layers_in_float32(offset, count):
    expected = results(block(), maps(offset), layers)
    single = block(dtype=torch.float32)
    ours = worst(results(single, maps(offset, torch.float32), run_bottleneck), expected)
    plain = worst(results(single, maps(offset, torch.float32), layers), expected)
    assert len(count) == 2
    assert all(a <= 2 * b + 1e-6 for a, b in zip(ours, plain, strict=True))


def test_frozen_weights_and_an_input_without_gradient(count):
    net = block()
    for name, parameter in net.named_parameters():
        parameter.requires_grad = name in ("conv.1.weight", "conv.3.weight")
    gradients = []
    for run in (run_bottleneck, layers):
        trained = copy.deepcopy(net)
        run(trained.conv, maps()).square().sum().backward()
        gradients.append([p.grad for p in trained.parameters()])
    assert len(count) == 1 and sum(g is not None for g in gradients[0]) == 2
    torch.testing.assert_close(*gradients)


def test_it_has_gradients_of_gradients(count):
    net, found = block(), []
    for run in (run_bottleneck, layers):
        trained, leaf = copy.deepcopy(net), maps()[:2].clone().requires_grad_()
        (grad,) = torch.autograd.grad(run(trained.conv, leaf).square().sum(), leaf, create_graph=True)
        grad.square().sum().backward()
        found.append([leaf.grad, *(p.grad for p in trained.parameters())])
    assert len(count) == 1
    torch.testing.assert_close(*found)


def test_a_checkpointed_block_has_the_same_gradients(count):
    def recomputed(sequence, x):
        return torch.utils.checkpoint.checkpoint(run_bottleneck, sequence, x, use_reentrant=False)

    found, expected = results(block(), maps(), recomputed), results(block(), maps(), layers)
    gradients = slice(0, 2 + len(list(block().parameters())))  # running statistics move twice, as the layers' do
    assert len(count) == 4
    assert max(worst(found[gradients], expected[gradients])) < 1e-12


def test_one_map_is_kept_on_each_side_of_the_depthwise_convolution():
    kept = {}

    def pack(tensor):
        if tensor.numel() >= 5 * 24 * 9 * 7:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run_bottleneck(block().conv, maps())
    assert len(kept) == 2


def _hooked(net):
    net.conv[2].register_forward_hook(lambda *_: None)


def _frozen_norm(net):
    net.conv[1].eval()


def _cumulative(net):
    net.conv[4].momentum = None


def _another_norm(net):
    net.conv[1].__class__ = type("SyncBatchNorm", (nn.BatchNorm2d,), {})


def _pruned(net):
    prune.l1_unstructured(net.conv[0], "weight", 0.5)


def _evaluated(net):
    net.eval()


@pytest.mark.parametrize("change", [_hooked, _frozen_norm, _cumulative, _another_norm, _pruned, _evaluated])
def test_a_changed_bottleneck_is_left_to_its_layers(change, count):
    net = block()
    change(net)
    torch.testing.assert_close(run_bottleneck(net.conv, maps()), net.conv(maps()))
    assert not count


def test_what_records_or_transforms_operations_sees_the_layers(count, monkeypatch):
    net, x = block(), maps()
    with torch.no_grad():
        run_bottleneck(net.conv, x)
    with torch.autocast("cpu", torch.bfloat16):
        run_bottleneck(block(dtype=torch.float32).conv, x.float())
    run_bottleneck(net.conv, x.contiguous())
    net.conv[2], net.conv[5] = nn.ReLU6(), nn.ReLU6()  # ours is not for torch.func in training
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    torch.func.grad(lambda x: torch.func.functional_call(net, {k: v.clone() for k, v in state.items()}, x).sum())(x)
    with FlopCounterMode(display=False):
        run_bottleneck(net.conv, x)
    torch.compile(lambda x: run_bottleneck(net.conv, x), backend="eager", fullgraph=True)(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of what it records
        torch.jit.trace(net, x, check_trace=False)
    monkeypatch.setattr(fused_bottleneck, "_LEAST_BYTES", 1 << 30)
    run_bottleneck(net.conv, x)
    assert not count
