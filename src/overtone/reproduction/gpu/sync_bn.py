"""Synchronised batch norm on one device, against batch norm of the whole batch in float64."""

import functools
import multiprocessing
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from overtone.engine.sync_bn import synchronise_batch_norm
from overtone.reproduction.gpu.place import Cases, Place, Row, difference

_BOUND = 1e-5  # of the largest value, in float32
_CHANNELS, _IMAGES, _SIDE = 16, 8, 12


def sync_bn(place: Place) -> Cases:
    """One process over nccl (gloo on a CPU), and two over gloo that share the device, each with half of the batch.

    Of one process PyTorch's layer exchanges nothing on CUDA, and nccl refuses two on one device: the second case is the
    one in which statistics and gradients travel. Processes are forked, so nothing here may touch CUDA before.
    """
    backend = "gloo" if place.is_dry else "nccl"
    return {
        f"1 process, {backend}": functools.partial(_compared, place, 1, backend),
        "2 processes, gloo": functools.partial(_compared, place, 2, "gloo"),
    }


def _compared(place: Place, size: int, backend: str) -> list[Row]:
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        address = (backend, f"file://{Path(folder) / 'ranks'}", size, place.device)
        ranks = [
            context.Process(target=_rank, args=(far_end, rank, *address), daemon=True)
            for rank, (_, far_end) in enumerate(pipes)
        ]
        for rank, (_, far_end) in zip(ranks, pipes, strict=True):
            rank.start()
            far_end.close()
        found = [pipe.recv() for pipe, _ in pipes]  # EOFError: that process ended
        for rank in ranks:
            rank.join()
    for one in found:
        if isinstance(one, str):
            raise RuntimeError(one)
    images, weights = _work()
    expected = _results(nn.BatchNorm2d(_CHANNELS).double(), images.double(), weights.double())
    joined = {
        "output": torch.cat([torch.from_numpy(one["output"]) for one in found]),
        "input_gradient": torch.cat([torch.from_numpy(one["input_gradient"]) for one in found]),
        "weight_gradient": torch.stack([torch.from_numpy(one["weight_gradient"]) for one in found]).sum(0),
        "running_var": torch.from_numpy(found[-1]["running_var"]),
    }
    row: Row = {name: difference(values, torch.from_numpy(expected[name])) for name, values in joined.items()}
    return [{"processes": size, "backend": backend, **row, "passed": max(row.values()) <= _BOUND}]


def _work() -> tuple[Tensor, Tensor]:
    """Images, and what each output counts in the loss."""
    generator = torch.Generator().manual_seed(0)
    images = 3 + torch.randn(_IMAGES, _CHANNELS, _SIDE, _SIDE, generator=generator)
    return images, torch.randn(images.shape, generator=generator)


def _rank(pipe: Connection, rank: int, backend: str, address: str, size: int, device: str) -> None:
    try:
        torch.set_num_threads(1)
        dist.init_process_group(backend, init_method=address, rank=rank, world_size=size)
        norm = synchronise_batch_norm(nn.Sequential(nn.BatchNorm2d(_CHANNELS)).to(device), torch.device(device))[0]  # type: ignore[index]
        own = slice(rank * _IMAGES // size, (rank + 1) * _IMAGES // size)
        images, weights = _work()
        pipe.send(_results(norm, images[own].to(device), weights[own].to(device)))
        dist.destroy_process_group()
    except Exception as error:  # raised again by the caller
        pipe.send(f"rank {rank}: {type(error).__name__}: {error}".partition("\n")[0])


def _results(norm: Any, images: Tensor, weights: Tensor) -> dict[str, Any]:
    """A step's output and gradients, and the running variance, as arrays."""
    images = images.requires_grad_()
    output = norm.train()(images)
    (output * weights).sum().backward()
    assert images.grad is not None
    found = {"output": output, "input_gradient": images.grad, "weight_gradient": norm.weight.grad}
    found["running_var"] = norm.running_var
    return {name: values.detach().cpu().numpy() for name, values in found.items()}
