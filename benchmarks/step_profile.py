"""Where the time of a training step goes: milliseconds by kind of operation."""

from collections import Counter
from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

STEPS = 3
LEAST = 0.01  # share of the step below which a kind is counted as one of the others
# the operation, then what it is called here; convolutions are distinguished by their filters
_GROUPS = {
    "aten::native_batch_norm": "batch norm, forward",
    "aten::native_batch_norm_backward": "batch norm, backward",
    "aten::native_layer_norm": "layer norm",
    "aten::native_layer_norm_backward": "layer norm",
    "mkldnn::_linear_pointwise": "pointwise convolutions, in parts",
    "aten::addmm_": "pointwise convolutions, in parts",
    "aten::batch_norm_update_stats": "batch norm, forward",
    "aten::addcmul_": "copies, sums, products of maps",
    "aten::mm": "linear layers, backward",
    "aten::addmm": "linear layers, forward",
    "aten::bmm": "kernels from DCT filters",
    "aten::hardtanh_backward": "activations",
    "aten::clamp_": "activations",
    "aten::clamp_min_": "activations",
    "aten::threshold_backward": "activations",
    "aten::gelu": "activations",
    "aten::gelu_backward": "activations",
    "aten::_fused_sgd_": "optimiser",
    "aten::_fft_r2c": "Fourier transforms",
    "aten::_fft_c2c": "Fourier transforms",
    "aten::_fft_c2r": "Fourier transforms",
    "aten::cat": "copies, sums, products of maps",
    "aten::copy_": "copies, sums, products of maps",
    "aten::add": "copies, sums, products of maps",
    "aten::add_": "copies, sums, products of maps",
    "aten::mul": "copies, sums, products of maps",
    "aten::addcmul": "copies, sums, products of maps",
    "aten::sum": "copies, sums, products of maps",
    "aten::fill_": "copies, sums, products of maps",
}
_OTHERS = "all else"


def profile_of(step: Callable[[], object]) -> dict[str, float]:
    """Milliseconds in one step by kind of operation, the longest first; what each operation itself takes."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        for _ in range(STEPS):
            step()
    spent: Counter[str] = Counter()
    for event in found.key_averages(group_by_input_shape=True):
        spent[_group(event.key, event.input_shapes)] += event.self_cpu_time_total / 1000 / STEPS
    least = LEAST * sum(spent.values())
    large = Counter({group: ms for group, ms in spent.items() if ms >= least and group != _OTHERS})
    return dict(large.most_common()) | {_OTHERS: sum(spent.values()) - sum(large.values())}


def _group(name: str, shapes: list[list[int]]) -> str:
    if name == "aten::mkldnn_convolution":
        return f"{_convolution(shapes[1])}, forward"
    if name == "aten::convolution_backward":
        return f"{_convolution(shapes[2])}, backward"
    return _GROUPS.get(name, _OTHERS)


def _convolution(weight: list[int]) -> str:
    side = weight[2]
    if weight[1] == 1:
        return f"depthwise convolutions {side}x{side}"
    return "pointwise convolutions" if side == 1 else f"dense convolutions {side}x{side}"
