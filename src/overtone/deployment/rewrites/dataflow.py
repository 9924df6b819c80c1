"""Which module's output goes where, found by watching one forward pass.

A rewrite such as "batch norm into the convolution before it" is exact only where nothing else reads the convolution's
output. Watching a pass answers that for any network that runs, whatever its Python looks like and whatever its modules
are called. Symbolic tracing (torch.fx) stops at the control flow of many nets; the graph of `torch.export` has lost the
modules, so that a rewritten network would no longer be one with its methods and names, and takes longer than the pass.
No activation is kept: tensors are only counted.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

ROOT = ""  # the name of the network itself among its modules


@dataclass(frozen=True)
class Dataflow:
    """What one forward pass did."""

    calls: Counter[str] = field(default_factory=Counter)
    """How often each module was called, by name."""
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of the first input of each module's last call."""
    links: dict[str, str] = field(default_factory=dict)
    """Producer to consumer, where a module's output is read by that one module alone."""
    borrowed: frozenset[str] = frozenset()
    """Modules with a parameter or a buffer that some other module's code reads."""

    def exclusive_pairs(self) -> list[tuple[str, str]]:
        """Producer and consumer where each is called once, nothing else sees what passes between them or holds."""
        return [
            (producer, consumer)
            for producer, consumer in self.links.items()
            if self.calls[producer] == self.calls[consumer] == 1 and not self.borrowed & {producer, consumer}
        ]


@torch.no_grad()
def observe(net: nn.Module, image_shape: tuple[int, ...]) -> Dataflow:
    """Watch one forward pass of `net`, in eval mode, over blank images of `image_shape` (B, C, H, W).

    Modules that are registered under several names, or whose forward is hooked, count as borrowed: replacing their
    parameters would change more than the pass shows.
    """
    like = next((p for p in net.parameters() if p.is_floating_point()), torch.empty(0))
    watcher = _Watcher(net)
    try:
        with watcher:
            result = net(torch.zeros(image_shape, dtype=like.dtype, device=like.device))
    finally:
        watcher.unhook()
    for tensor in _tensors(result):
        watcher.readers[watcher.number(tensor)].add(ROOT)
    links = {}
    for name, output in watcher.outputs.items():
        readers = watcher.readers[output]
        reader = next(iter(readers)) if len(readers) == 1 else ROOT
        if watcher.first_inputs.get(reader) == output:
            links[name] = reader
    return Dataflow(watcher.calls, watcher.input_shapes, links, frozenset(watcher.borrowed))


class _Watcher(TorchDispatchMode):
    """Notes, for every tensor, the innermost modules whose code read it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.input_shapes: dict[str, tuple[int, ...]] = {}
        self.first_inputs: dict[str, int] = {}  # module to number of a tensor, of its last call
        self.outputs: dict[str, int] = {}
        self.readers: dict[int, set[str]] = defaultdict(set)
        self.borrowed: set[str] = set()
        self._count = itertools.count()
        self._numbers = WeakTensorKeyDictionary()
        self._running = [ROOT]
        self._owners: dict[int, str] = {}
        self._hooks: list[Any] = []
        self._register(net)

    def _register(self, net: nn.Module) -> None:
        names: dict[nn.Module, str] = {}
        for name, module in net.named_modules(remove_duplicate=False):
            if module in names:
                self.borrowed |= {name, names[module]}
                continue
            names[module] = name
            if module._forward_hooks or module._forward_pre_hooks:
                self.borrowed.add(name)
            for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                self._owners.setdefault(id(tensor), name)
            self._hooks.append(module.register_forward_pre_hook(self._entering(name)))
            self._hooks.append(module.register_forward_hook(self._leaving(name)))

    def number(self, tensor: Tensor) -> int:
        """A number for each tensor; an identity (`id`) would come again once the memory of a tensor is freed."""
        if tensor not in self._numbers:
            self._numbers[tensor] = next(self._count)
        return self._numbers[tensor]

    def unhook(self) -> None:
        """Take the hooks off again."""
        for hook in self._hooks:
            hook.remove()

    def _entering(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self.calls[name] += 1
            self._running.append(name)
            if inputs and isinstance(inputs[0], Tensor):
                self.first_inputs[name] = self.number(inputs[0])
                self.input_shapes[name] = tuple(inputs[0].shape)

        return note

    def _leaving(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._running.pop()
            if isinstance(output, Tensor):
                self.outputs[name] = self.number(output)

        return note

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do the operation and note who reads its arguments."""
        reader = self._running[-1]
        for tensor in _tensors((args, kwargs)):
            self.readers[self.number(tensor)].add(reader)
            owner = self._owners.get(id(tensor), reader)
            if owner != reader:
                self.borrowed.add(owner)
        return func(*args, **(kwargs or {}))


def _tensors(nested: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor)]
