"""Several processes that train one network: who they are, what they send each other, what is reported when one is lost.

Started by torchrun or Slurm, each process finds its rank in the environment and joins the others. Every step they agree
in one small message (gloo, on the CPU, while the device computes) on how many images it has and whether to stop after
it, so that all of them take the same steps and leave at the same one.
"""

import datetime
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, rendezvous  # pyright: ignore[reportPrivateImportUsage]

from overtone.config import Run
from overtone.errors import OvertoneError

T = TypeVar("T")
WEEK = 7 * 24 * 3600.0
"""Seconds: a timeout for processes that meet only when all have done their shares."""
_DIAGNOSIS_SECONDS = 10.0
# by whom the process was started: rank, number of processes, rank on this machine
_ENVIRONMENTS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
)


@dataclass(frozen=True)
class World:
    """The processes of a training, seen from one of them; alone by default.

    Attributes:
        rank: this process, from 0; the first one writes and reports for all.
        size: how many there are.
        local_rank: this process among those of its machine, which is also its GPU.
        local_size: how many of them share its cores.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    _control: Any = field(default=None, repr=False)
    _diagnosis: Any = field(default=None, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports for all."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other process."""
        return self.size == 1

    def agree(self, num_samples: int, weight: float, num_bad: int, stop: bool, *, lacks: bool = False) -> "Agreement":
        """Begin to agree on a step; every process must call it once a step.

        Args:
            num_samples: of this process's share of the batch.
            weight: of that share.
            num_bad: samples of the share that could not be read.
            stop: whether this process was asked to stop after the step.
            lacks: whether it has no share at all, because it stopped waiting for it: then nobody takes the step.
        """
        shares = [0.0] * self.size
        shares[self.rank] = num_samples
        # whole numbers are exact
        numbers = torch.tensor([weight, num_bad, stop or lacks, lacks, *shares], dtype=torch.float64)
        with self.explained():
            work = None if self.is_alone else dist.all_reduce(numbers, group=self._control, async_op=True)
        return Agreement(self, numbers, work)

    def add_up(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the processes, in place, on its device."""
        if not self.is_alone:
            with self.explained():
                dist.all_reduce(tensor)
        return tensor

    def gather(self, value: T) -> list[T]:
        """What each process has given, in the order of the ranks; on all of them."""
        if self.is_alone:
            return [value]
        values: list[Any] = [None] * self.size
        with self.explained():
            dist.all_gather_object(values, value, group=self._control)
        return values

    def from_first(self, value: T) -> T:
        """What the first process has given, on all of them."""
        return self.gather(value)[0]

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process the first one's buffers, such as batch norm's running statistics."""
        if self.is_alone:
            return
        with self.explained():
            works = [dist.broadcast(buffer, src=0, async_op=True) for buffer in module.buffers()]
            for work in works:
                if work is not None:
                    work.wait()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the failure of a message between processes into an error that names the one that is lost.

        Raises:
            OvertoneError: another process hangs, has ended or cannot be reached.
        """
        try:
            yield
        except RuntimeError as error:
            if self.is_alone or not _is_of_messages(error):
                raise
            reason = " ".join(str(error).split())
            raise OvertoneError(
                f"rank {self.rank} of {self.size} lost the others: {self._missing(reason)}; look at that process's "
                "messages, then give the same command again: the run is resumed from its last checkpoint"
            ) from error

    def _missing(self, reason: str) -> str:
        """Which ranks do not answer, as far as that can be found out."""
        if "closed" in reason or "reset" in reason:
            return f"a process has ended ({_shortened(reason)})"
        try:
            dist.monitored_barrier(self._diagnosis, datetime.timedelta(seconds=_DIAGNOSIS_SECONDS), wait_all_ranks=True)
        except RuntimeError as error:
            return f"no answer in time ({_shortened(' '.join(str(error).split()))})"
        return f"all of them answer now ({_shortened(reason)}); raise --run.timeout if steps may take so long"


@dataclass
class Agreement:
    """What all processes say of one step; reading it waits for the message."""

    world: World
    _numbers: Tensor
    _work: Any

    def _value(self, index: int | slice) -> Tensor:
        if self._work is not None:
            with self.world.explained():
                self._work.wait()
            self._work = None
        return self._numbers[index]

    @property
    def num_samples(self) -> int:
        """Samples of the step, over all processes."""
        return int(self._value(slice(4, None)).sum())

    @property
    def largest_share(self) -> int:
        """Samples of the process that has most of them."""
        return int(self._value(slice(4, None)).max())

    @property
    def weight(self) -> float:
        """What the loss of the step is divided by, over all processes."""
        return float(self._value(0))

    @property
    def num_bad(self) -> int:
        """Samples that could not be read, over all processes."""
        return int(self._value(1))

    @property
    def lacks(self) -> bool:
        """Whether a process has no share of the batch: then the step is not taken."""
        return bool(self._value(3) > 0)

    @property
    def stop(self) -> bool:
        """Whether any process was asked to stop: then all do, after this step."""
        return bool(self._value(2) > 0)


@contextmanager
def joined(run: Run, environment: Mapping[str, str] | None = None) -> Iterator[World]:
    """Join the processes that torchrun or Slurm has started beside this one, until the end of the block.

    GPUs talk over nccl, CPUs over gloo; messages about the steps always go over gloo.

    Args:
        run: `device` decides how tensors travel, `timeout` how long the others are waited for.
        environment: the process's; default `os.environ`.

    Raises:
        OvertoneError: the others cannot be reached, or there are fewer GPUs than processes.
    """
    environment = os.environ if environment is None else environment
    rank, size, local_rank = _place_in(environment)
    if size == 1:
        yield World()
        return
    timeout = datetime.timedelta(seconds=run.timeout)
    on_gpu = run.device.startswith("cuda") or (run.device == "auto" and torch.cuda.is_available())
    if on_gpu:
        count = torch.cuda.device_count()
        if local_rank >= count:
            raise OvertoneError(
                f"process {local_rank} of this machine has no GPU: PyTorch sees {count}; start as many processes as "
                "GPUs, or use --run.device cpu"
            )
        torch.cuda.set_device(local_rank)
    try:
        store, _, _ = next(rendezvous("env://", rank, size, timeout=timeout))
        # torchrun's store outlives the processes that it restarts, with the addresses of those that are gone
        store = PrefixStore(f"restart-{environment.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=size, timeout=timeout
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise OvertoneError(
            f"rank {rank} of {size} could not join the others ({reason}); start with torchrun, or set MASTER_ADDR and "
            "MASTER_PORT to the first process's machine and a free port"
        ) from error
    # Slurm gives each of its tasks cores of its own
    local_size = int(environment.get("LOCAL_WORLD_SIZE", 1))
    try:
        control, diagnosis = (dist.new_group(backend="gloo", timeout=timeout) for _ in range(2))
        yield World(rank, size, local_rank, local_size, control, diagnosis)
    finally:
        dist.destroy_process_group()


def check_shared_evenly(batch_size: int, world: World) -> None:
    """Whether the recipe's batch can be cut into equal shares of two images or more, one for each process.

    Raises:
        OvertoneError: it cannot; the nearest batch sizes and numbers of processes that can are named.
    """
    if batch_size % world.size == 0 and (batch_size >= 2 * world.size or world.is_alone):
        return
    lower = max(batch_size // world.size, 2) * world.size
    batches = [lower] if lower > batch_size else [lower, lower + world.size]
    fits = [
        size for size in range(1, batch_size + 1) if batch_size % size == 0 and (batch_size >= 2 * size or size == 1)
    ]
    fewer = max(size for size in fits if size <= world.size)
    more = min((size for size in fits if size > world.size), default=fewer)
    raise OvertoneError(
        f"train.batch_size is {batch_size}, which {world.size} processes cannot share equally; the nearest that they "
        f"can: --train.batch-size {' or '.join(map(str, batches))}; the nearest numbers of processes: "
        f"{' or '.join(map(str, sorted({fewer, more})))}"
    )


def is_first(environment: Mapping[str, str]) -> bool:
    """Whether this process is the first of those that torchrun or Slurm has started, or the only one."""
    return _place_in(environment)[0] == 0


def _place_in(environment: Mapping[str, str]) -> tuple[int, int, int]:
    for names in _ENVIRONMENTS:
        if names[0] in environment and names[1] in environment:
            rank, size = int(environment[names[0]]), int(environment[names[1]])
            if names[0].startswith("SLURM") and "MASTER_ADDR" not in environment:
                continue  # a shell of an allocation, not one of several tasks that know where to meet
            return rank, size, int(environment.get(names[2], 0))
    return 0, 1, 0


def _is_of_messages(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in text for word in ("gloo", "nccl", "monitoredbarrier"))


def _shortened(text: str, most: int = 240) -> str:
    return text if len(text) <= most else text[:most] + "…"
