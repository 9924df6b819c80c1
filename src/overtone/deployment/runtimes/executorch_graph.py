"""A graph in the operations that XNNPACK has, as far as others of the same result stand in it.

ExecuTorch hands XNNPACK the parts that it can compute and walks through the rest with plain loops, one thread and a
change of layout on either side. A network of harmonious bottlenecks took 18 ms for that reason, as long as its naive
module; it takes 5 ms in these operations (two cores).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

_aten = torch.ops.aten
_MOST_WEIGHTS = 4 * 512**2  # of an identity: 4 MB of file in float32
_CEIL_MODE = 4  # the argument's place


def in_xnnpack_operations(program: ExportedProgram) -> fx.GraphModule:
    """The graph of a program with static sizes, rewritten; every value stays the same.

    - An average pool whose windows fill the map needs no `ceil_mode`.
    - A split is slices.
    - Nearest upsampling by a whole factor f is a transposed convolution of f x f pixels and stride f by the identity.
    - An alias is nothing.
    """
    module: fx.GraphModule = program.module()  # type: ignore[assignment]
    for node in list(module.graph.nodes):
        rewrite = _REWRITES.get(node.target)
        if rewrite is not None:
            rewrite(module, node)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    return module


def _pool(module: fx.GraphModule, node: fx.Node) -> None:
    if len(node.args) <= _CEIL_MODE or not node.args[_CEIL_MODE]:
        return
    kernel, strides, padding = (
        _pair(numbers) for numbers in (node.args[1], node.args[2] or node.args[1], node.args[3])
    )
    sizes = _value(node.args[0]).shape[-2:]
    steps = zip(sizes, kernel, strides, padding, strict=True)
    if all((size + 2 * pad - window) % stride == 0 for size, window, stride, pad in steps):
        node.args = (*node.args[:_CEIL_MODE], False, *node.args[_CEIL_MODE + 1 :])


def _split(module: fx.GraphModule, node: fx.Node) -> None:
    source = node.args[0]
    dim = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    ends = [0]
    for part in node.meta["val"]:
        ends.append(ends[-1] + part.shape[dim])
    for user in list(node.users):
        index = user.args[1]
        assert isinstance(index, int)  # users of several values take one of them
        index %= len(ends) - 1
        _replace(module, user, _aten.slice.Tensor, source, dim, ends[index], ends[index + 1])


def _upsample(module: fx.GraphModule, node: fx.Node) -> None:
    before = node.args[0]
    channels, height, width = _value(before).shape[1:]
    new_height, new_width = node.meta["val"].shape[2:]
    factor = new_height // height
    given = node.args[2]  # is kept to, even where it is no whole number and the size is rounded
    scales = _pair(given) if given else (factor, factor)
    if (new_height, new_width) != (factor * height, factor * width) or scales != (factor, factor):
        return
    if (channels * factor) ** 2 > _MOST_WEIGHTS:
        return
    name = f"identity_{channels}_{factor}"
    if not hasattr(module, name):
        identity = torch.eye(channels, dtype=node.meta["val"].dtype)[:, :, None, None]
        module.register_buffer(name, identity.repeat(1, 1, factor, factor))
    with module.graph.inserting_before(node):
        weight = module.graph.get_attr(name)
    _replace(module, node, _aten.conv_transpose2d.input, before, weight, None, [factor, factor])


def _alias(module: fx.GraphModule, node: fx.Node) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    node.replace_all_uses_with(source)
    module.graph.erase_node(node)


_REWRITES: dict[object, Callable[[fx.GraphModule, fx.Node], None]] = {
    _aten.avg_pool2d.default: _pool,
    _aten.split.Tensor: _split,
    _aten.split_with_sizes.default: _split,
    _aten.chunk.default: _split,
    _aten.upsample_nearest2d.vec: _upsample,
    _aten.alias.default: _alias,
}


def _replace(module: fx.GraphModule, node: fx.Node, target: Callable[..., object], *args: object) -> None:
    with module.graph.inserting_before(node):
        new = module.graph.call_function(target, args)  # type: ignore[arg-type]
    new.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)


def _value(node: object) -> Tensor:
    assert isinstance(node, fx.Node)
    return node.meta["val"]


def _pair(numbers: object) -> tuple[Any, Any]:
    assert isinstance(numbers, list | tuple)
    return (numbers[0], numbers[-1])
