"""Inference in bfloat16: eager, as one CUDA graph, and compiled."""

import copy
import functools
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from overtone import zoo
from overtone.deployment.rewrites.deploy import deploy
from overtone.deployment.runtimes.torch_runtime import InBfloat16
from overtone.reproduction.gpu.place import Cases, Place, Row, difference, raced_forms, warmed_forms

_WARM_UP = 3
_HIDING = 1e-4  # layer scales as initialised, behind which nothing of a block would be seen


def inference(place: Place) -> Cases:
    """One image and 128, of the five networks; the ratio is to the network as built, eager.

    Forms: `built`, `deployed` (`overtone.deploy`), `graph` (the deployed form as one CUDA graph), `compiled` (the
    deployed form by torch.compile; of three networks, as each takes a while). `difference` is that of the outputs to
    the first form's, as a share of the largest.
    """
    cases: dict[str, Callable[[], Sequence[Row]]] = {}
    batches = (2,) if place.is_dry else (1, 128)
    for name, batch in itertools.product(place.nets, batches):
        forms = ("built", "deployed", "graph")
        cases[f"{name}, batch {batch}"] = functools.partial(_raced, place, name, batch, forms)
    for batch, name in itertools.product(batches, place.compiled(2)):
        forms = ("deployed", "compiled")
        cases[f"{name}, batch {batch}, compiled"] = functools.partial(_raced, place, name, batch, forms)
    return cases


@torch.inference_mode()
def _raced(place: Place, name: str, batch: int, forms: Sequence[str]) -> list[Row]:
    torch.manual_seed(0)
    net = zoo.build(name).eval()
    for values in net.parameters():
        if 0 < values.abs().max() < _HIDING:
            values.fill_(0.1)
    images = place.noise(batch, 3, place.size, place.size).contiguous(memory_format=torch.channels_last)
    warmed, rows = warmed_forms(place, forms, functools.partial(_form, place, net, images))
    outputs = {form: one.call().clone() for form, one in warmed.items()}
    for row in raced_forms(place, warmed, batch):
        rows.append({**row, "difference": difference(outputs[row["form"]], outputs[forms[0]])})
    return rows


def _form(place: Place, net: nn.Module, images: Tensor, form: str) -> Callable[[], Tensor]:
    if form == "graph":
        place.need_cuda()
    made = copy.deepcopy(net) if form == "built" else deploy(net, place.size)
    made = InBfloat16(made).to(place.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    if form == "compiled":
        place.compile(made)
    return graphed(made, images) if form == "graph" else functools.partial(made, images)


def graphed(net: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], Tensor]:
    """A network's work on these images as a CUDA graph, which is replayed at every call, into the same output."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):  # libraries allocate and choose at their first calls, which cannot be captured
            net(images)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        output = net(images)

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay
