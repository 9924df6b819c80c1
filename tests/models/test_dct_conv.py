"""The harmonic convolution against its definition; types, memory formats, the cache of its kernel."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overtone.layers.dct_bank import dct_bank
from overtone.layers.dct_conv import HarmConv2d


def uncomposed(layer: HarmConv2d, x: Tensor) -> Tensor:
    """The published order: every channel through every DCT filter, inner batch norm, then the 1x1 mixture."""
    bank = dct_bank(layer.kernel_size, layer.level, dtype=x.dtype).unsqueeze(1).repeat(layer.in_channels, 1, 1, 1)
    z = F.conv2d(x, bank, None, layer.stride, layer.padding, layer.dilation, groups=layer.in_channels)
    z = z if layer.bn is None else layer.bn(z)
    weight = layer.weight.reshape(layer.out_channels, -1, 1, 1)
    return F.conv2d(z, weight, layer.bias, groups=layer.groups)


def double_layer(*args, **kwargs) -> HarmConv2d:
    torch.manual_seed(0)
    layer = HarmConv2d(*args, **kwargs).double()
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    if layer.bn is not None:
        nn.init.normal_(layer.bn.running_mean)
        nn.init.uniform_(layer.bn.running_var, 0.5, 2)
    return layer


def close(a: Tensor, b: Tensor, tolerance: float = 1e-11) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- the bank and the convolution -----------------------------------------------------------------------------------


def test_bank_is_orthogonal_and_of_unit_l1_norm():
    bank = dct_bank(5).flatten(1)
    assert bank.shape == (25, 25) and bank.dtype == torch.float64
    close(bank.abs().sum(1), torch.ones(25, dtype=torch.float64))
    gram = bank @ bank.T
    close(gram - torch.diag(gram.diagonal()), torch.zeros(25, 25, dtype=torch.float64))
    close(bank[0], torch.full((25,), 1 / 25, dtype=torch.float64))
    assert bank[1].reshape(5, 5)[0].std() > 0.01 and bank[1].reshape(5, 5)[:, 0].std() < 1e-12  # j runs along a row


@pytest.mark.parametrize(("level", "filters"), [(1, 1), (2, 3), (3, 6), (4, 8), (None, 9)])
def test_level_keeps_the_low_frequencies(level, filters):
    assert dct_bank(3, level).shape == (filters, 3, 3)


@pytest.mark.parametrize("level", [0, -1])
def test_bank_refuses_a_level_without_filters(level):
    with pytest.raises(ValueError, match="level"):
        dct_bank(3, level)


CASES = {
    "plain": {"args": (6, 8, 3), "padding": 1},
    "strided 7x7": {"args": (3, 8, 7), "stride": 4, "padding": 3, "bias": False},
    "grouped, level": {"args": (6, 9, 3), "groups": 3, "padding": 1, "level": 3},
    "dilated, even": {"args": (4, 6, 4), "dilation": 2, "padding": 2, "groups": 2},
    "inner": {"args": (3, 8, 7), "stride": 2, "padding": 3, "inner_bn": True, "bias": False},
    "inner, bias, one channel": {"args": (1, 8, 3), "padding": 1, "inner_bn": True},
    "inner, grouped, level": {"args": (4, 6, 5), "groups": 2, "padding": 2, "inner_bn": True, "level": 3},
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_composed_equals_the_published_order(case, layout, training):
    case = dict(case)
    layer = double_layer(*case.pop("args"), **case).train(training)
    reference = copy.deepcopy(layer)
    x = torch.randn(3, layer.in_channels, 17, 13, dtype=torch.float64).to(memory_format=layout).requires_grad_()
    y, expected = layer(x), uncomposed(reference, x)
    close(y, expected)
    direction = torch.randn_like(y)
    gradients = torch.autograd.grad((y * direction).sum(), [x, *layer.parameters()])
    exact = torch.autograd.grad((expected * direction).sum(), [x, *reference.parameters()])
    for a, b in zip(gradients, exact, strict=True):
        close(a, b, 1e-9)
    for (key, a), b in zip(layer.state_dict().items(), reference.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-12), key
    with torch.no_grad():
        close(layer.eval()(x), uncomposed(reference.eval(), x))
        close(layer.folded()(x), uncomposed(reference, x))


def test_gradient_of_gradient():
    layer = double_layer(2, 4, 3, padding=1, groups=2)
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)

    def run(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    inputs = (x, layer.weight.detach().requires_grad_(), layer.bias.detach().requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_per_sample_gradients_with_functional_transforms():
    layer = double_layer(2, 4, 3, padding=1)
    x = torch.randn(3, 2, 6, 6, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters, image):
        return torch.func.functional_call(layer, parameters, (image[None],)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    layer(x).square().sum().backward()
    close(per_sample["weight"].sum(0), layer.weight.grad)


def test_training_keeps_no_kernel_for_the_backward_pass():
    layer = HarmConv2d(16, 16, 3, padding=1, bias=False)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        layer(torch.randn(1, 16, 4, 4, requires_grad=True))
    assert torch.Size([16, 16, 3, 3]) not in kept and torch.Size([16, 16, 9]) in kept


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_running_statistics_are_those_of_batch_norm(momentum):
    layer = double_layer(3, 8, 3, inner_bn=True)
    layer.bn.momentum = momentum
    reference = copy.deepcopy(layer)
    for _ in range(3):
        x = torch.randn(2, 3, 9, 9, dtype=torch.float64) * 3 + 1
        layer(x), uncomposed(reference, x)
    for (key, a), b in zip(layer.state_dict().items(), reference.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-12), key


def test_frozen_inner_norm_keeps_its_statistics():
    layer = double_layer(3, 8, 3, inner_bn=True)
    layer.bn.eval()
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    y = layer(x)
    assert all(torch.equal(a, before[key]) for key, a in layer.state_dict().items())
    close(y, uncomposed(layer, x))


def test_another_inner_norm_is_called_itself():
    layer = double_layer(3, 8, 3, inner_bn=True)
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    expected = uncomposed(copy.deepcopy(layer), x)
    layer.bn = nn.Sequential(layer.bn)
    close(layer(x), expected)


def test_one_value_per_channel_is_refused_in_training():
    with pytest.raises(ValueError, match="more than 1 value"):
        HarmConv2d(3, 4, 3, inner_bn=True)(torch.randn(1, 3, 3, 3))


def test_initialisation_is_kaiming_over_the_published_fan_out():
    torch.manual_seed(0)
    for layer, fan_out in ((HarmConv2d(64, 128, 3), 128 * 9), (HarmConv2d(32, 512, 3, inner_bn=True), 512)):
        fan = nn.init._calculate_fan_in_and_fan_out(torch.empty(layer.published_shape, device="meta"))[1]
        if layer.bn is None:  # torch reads the fan of the 5-D weight as out * F
            assert fan == fan_out
        assert layer.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
        assert not layer.bias.any()


# --- types, devices, formats -----------------------------------------------------------------------------------------


def test_bank_is_never_a_rounded_copy():
    exact = dct_bank(3)
    layer = HarmConv2d(2, 2, 3)
    assert torch.equal(layer.double().bank, exact)
    assert torch.equal(layer.bfloat16().bank, exact.float())  # half-precision kernels are rounded once, at the end
    assert torch.equal(layer.half().double().bank, exact)
    assert not any("bank" in key for key in layer.state_dict())


def test_meta_device_and_to_empty():
    with torch.device("meta"):
        layer = HarmConv2d(3, 4, 3, inner_bn=True)
    assert layer(torch.empty(1, 3, 8, 8, device="meta")).shape == (1, 4, 6, 6)
    source = HarmConv2d(3, 4, 3, inner_bn=True).eval()
    x = torch.randn(1, 3, 8, 8)
    emptied = copy.deepcopy(layer).to_empty(device="cpu")
    emptied.load_state_dict(source.state_dict())
    layer.load_state_dict(source.state_dict(), assign=True)
    for other in emptied.eval(), layer.eval():
        assert torch.equal(other.bank, source.bank)
        close(other(x), source(x), 1e-6)


@pytest.mark.parametrize("inner_bn", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_autocast_and_half_precision(inner_bn, training):
    torch.manual_seed(0)
    layer = HarmConv2d(4, 8, 3, padding=1, inner_bn=inner_bn).train(training)
    x = torch.randn(2, 4, 12, 12)
    exact = copy.deepcopy(layer).double()(x.double()).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32 and layer.weight.grad.isfinite().all()
    torch.testing.assert_close(y.float(), exact, rtol=0.03, atol=0.03)
    pure = copy.deepcopy(layer).bfloat16()(x.bfloat16())
    assert pure.dtype == torch.bfloat16
    torch.testing.assert_close(pure.float(), exact, rtol=0.05, atol=0.05)


def test_kernel_follows_the_memory_format_of_the_input():
    layer = HarmConv2d(8, 8, 3).to(memory_format=torch.channels_last).eval()
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        y = layer(x.to(memory_format=torch.channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert layer._composed.kernel.is_contiguous(memory_format=torch.channels_last)
        close(layer(x), y.contiguous(), 1e-5)
        assert layer._composed.kernel.is_contiguous()


# --- the cache -------------------------------------------------------------------------------------------------------


def changes():
    def in_place(layer):
        with torch.no_grad():
            layer.weight.mul_(2)

    def in_place_in_inference_mode(layer):
        with torch.inference_mode():
            layer.weight.mul_(2)

    def one_entry(layer):
        with torch.no_grad():
            layer.weight[0, 0, 0] += 1

    def loading(layer):
        layer.load_state_dict({key: value + 1 for key, value in layer.state_dict().items()})

    def optimiser(layer):
        layer.weight.grad = torch.ones_like(layer.weight)
        torch.optim.AdamW(layer.parameters(), lr=0.1).step()

    def replaced_data(layer):
        layer.weight.data = layer.weight.data + 1

    def replaced_parameter(layer):
        layer.weight = nn.Parameter(layer.weight.detach().clone() * 2)

    def parameter_over_the_same_memory(layer):
        version = layer.weight._version
        layer.weight = nn.Parameter(layer.weight.data)
        with torch.no_grad():
            for _ in range(version - layer.weight._version):
                layer.weight.add_(1)

    def written_through_data(layer):
        layer.weight.data.add_(1)

    def written_through_numpy(layer):
        layer.weight.detach().numpy()[:, :, 3] = 5

    def statistics(layer):
        layer.bn.running_mean.add_(1)

    def statistics_through_data(layer):
        layer.bn.running_var.data.mul_(3)

    def bias(layer):
        layer.bias.data.add_(1)

    return [change for name, change in sorted(locals().items())]


@pytest.mark.parametrize("change", changes(), ids=lambda change: change.__name__)
def test_cached_kernel_is_dropped_when_anything_changes(change):
    layer = double_layer(3, 8, 3, inner_bn=True).eval()
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        before = layer(x)
        kept = layer._composed
        assert torch.equal(layer(x), before) and layer._composed is kept
    change(layer)
    with torch.no_grad():
        after = layer(x)
        close(after, uncomposed(layer, x))
    assert not torch.allclose(after, before)


def test_cached_kernel_follows_conversions():
    layer = double_layer(3, 8, 3).eval()
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        y = layer(x)
        close(layer.float()(x.float()).double(), y, 1e-5)
        assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.float()(x.float()).dtype == torch.bfloat16
        assert layer(x.float()).dtype == torch.float32


def test_nothing_is_cached_while_gradients_may_flow():
    layer = HarmConv2d(3, 8, 3)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        layer(x)
        assert layer._composed is None  # training
    layer.eval()(x).sum().backward()
    assert layer._composed is None and layer.weight.grad is not None
    layer.requires_grad_(False)
    layer(x)
    assert layer._composed is not None  # frozen
    assert layer.train()._composed is None
    with torch.inference_mode():
        born_there = HarmConv2d(3, 8, 3).eval()
        born_there(x)
    assert born_there._composed is None  # no version counter to trust


def test_kernel_cached_in_inference_mode_serves_saliency():
    layer = HarmConv2d(3, 8, 3).eval().requires_grad_(False)
    x = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        layer(x)
    image = x.clone().requires_grad_()
    layer(image).sum().backward()
    assert image.grad.abs().sum() > 0


def test_cache_stays_out_of_copies_and_of_the_state():
    layer = HarmConv2d(3, 8, 3, inner_bn=True).eval()
    with torch.no_grad():
        x = torch.randn(1, 3, 8, 8)
        y = layer(x)
        keys = ["weight", "bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"]
        assert list(layer.state_dict()) == keys
        for other in copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)):
            assert layer._composed is not None and other._composed is None
            assert torch.equal(other(x), y)


@pytest.mark.parametrize("training", [True, False])
def test_compiles_without_graph_breaks_and_sees_new_weights(training):
    torch._dynamo.reset()
    net = nn.Sequential(HarmConv2d(3, 4, 3, inner_bn=True, bias=False), nn.ReLU(), HarmConv2d(4, 4, 3)).train(training)
    reference = copy.deepcopy(net)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    x = torch.randn(2, 3, 9, 9)
    for _ in range(2):
        y, expected = compiled(x), reference(x)
        close(y, expected, 1e-5)
        y.sum().backward()
        expected.sum().backward()
        close(net[2].weight.grad, reference[2].weight.grad, 1e-4)
        with torch.no_grad():
            net[0].weight.mul_(2)
            reference[0].weight.mul_(2)
            with torch.autocast("cpu", torch.bfloat16):
                assert compiled(x).dtype == torch.bfloat16
                reference(x)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(net.buffers(), reference.buffers(), strict=True))
