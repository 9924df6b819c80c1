"""Inference in bfloat16: eager, as one CUDA graph, and compiled."""

import copy
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from overtone import zoo
from overtone.deployment.rewrites.deploy import deploy
from overtone.deployment.runtimes.torch_runtime import InBfloat16
from overtone.reproduction.gpu.place import NETS, Cases, Place, Row, Warmed, difference, figures

_WARM_UP = 3


def inference(place: Place) -> Cases:
    """One image and 128, of the five networks; the ratio is to the network as built, eager.

    Forms: `built`, `deployed` (`overtone.deploy`), `graph` (the deployed form as one CUDA graph), `compiled` (the
    deployed form by torch.compile). `difference` is that of the outputs to the first form's in units of their standard
    deviation. The compiled cases come last.
    """
    cases: dict[str, Callable[[], Sequence[Row]]] = {}
    for batch in (1, 2) if place.is_dry else (1, 128):
        for name in NETS:
            forms = ("built", "deployed") if place.is_dry else ("built", "deployed", "graph")
            cases[f"{name}, batch {batch}"] = functools.partial(_raced, place, name, batch, forms)
            if place.is_dry:
                cases[f"{name}, batch {batch}, graph"] = place.need_cuda
    for batch in (2,) if place.is_dry else (1, 128):
        for name in place.compiled:
            forms = ("deployed", "compiled")
            cases[f"{name}, batch {batch}, compiled"] = functools.partial(_raced, place, name, batch, forms)
    return cases


@torch.inference_mode()
def _raced(place: Place, name: str, batch: int, forms: Sequence[str]) -> list[Row]:
    torch.manual_seed(0)
    net = zoo.build(name).eval()
    images = place.noise(batch, 3, place.size, place.size).contiguous(memory_format=torch.channels_last)
    warmed = [Warmed(place, functools.partial(_form, place, net, form, images)) for form in forms]
    timings, outputs = place.race([one.call for one in warmed]), [one.call() for one in warmed]
    return [
        {"form": form, **figures(timing, batch, one, timings[0]), "difference": difference(output, outputs[0])}
        for form, timing, one, output in zip(forms, timings, warmed, outputs, strict=True)
    ]


def _form(place: Place, net: nn.Module, form: str, images: Tensor) -> Callable[[], Tensor]:
    made = copy.deepcopy(net) if form == "built" else deploy(net, place.size)
    made = InBfloat16(made).to(place.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    if form == "compiled":
        made.compile(backend=place.backend)
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
