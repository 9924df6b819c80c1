"""Requests gathered into batches: images of many clients pass through the network together.

One task of the event loop gathers, one thread computes. While a batch computes, the next one is gathered; an image
waits for others only as long as some are on their way, and never longer than `max_wait_ms`.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from overtone.serving.errors import LOGGER, Refused, busy
from overtone.serving.limits import Limits
from overtone.serving.metrics import Metrics

_SMOOTHING = 0.2


@dataclass(eq=False)
class Work:
    """Something to compute, which joins others of the same `key`."""

    key: Hashable
    payload: Any
    done: asyncio.Future[Any]
    since: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True)
class Computed:
    """A result, the seconds that it waited and was computed in, and the size of its batch."""

    result: Any
    waited: float
    computed: float
    batch: int


class Batcher:
    """The queue of one model.

    Args:
        name: of the model.
        compute: from a key and payloads to as many results; runs in a thread of its own.
        limits: how much is gathered, and how much may wait.
        largest_batch: payloads of one call at most; None: those of the limits.
        metrics: counts.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[[Hashable, Sequence[Any]], Sequence[Any]],
        limits: Limits,
        largest_batch: int | None,
        metrics: Metrics,
    ) -> None:
        self.name, self._compute, self._limits, self._metrics = name, compute, limits, metrics
        self._largest = min(limits.max_batch, largest_batch or limits.max_batch)
        self._waiting: deque[Work] = deque()
        self._accepted = self._coming = 0
        self._seconds_each = 0.05  # a first guess of the time of one image, for Retry-After
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to gather; needs a running event loop."""
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"compute-{self.name}")
        self._task = asyncio.create_task(self._run(), name=f"batches of {self.name}")

    async def close(self) -> None:
        """End, after what is being computed."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._thread.shutdown(wait=True, cancel_futures=True)

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """A block that may bring work soon, such as reading or decoding: others may wait for it."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._arrived.set()

    @contextlib.contextmanager
    def accepted(self, count: int) -> Iterator[None]:
        """Room for so many payloads, from their decoding to their results.

        Raises:
            Refused: 503, there is none.
        """
        self.check_room(count)
        self._accepted += count
        self._metrics.queue.labels(self.name).set(self._accepted)
        try:
            yield
        finally:
            self._accepted -= count
            self._metrics.queue.labels(self.name).set(self._accepted)

    def check_room(self, count: int = 1) -> None:
        """Refuse what would not find room now.

        Raises:
            Refused: 503.
        """
        if self._accepted and self._accepted + count > self._limits.max_queue:
            raise busy(f"{self.name} is busy with {self._accepted} images; try again", self._wait())

    def _wait(self) -> float:
        return self._accepted * self._seconds_each

    async def submit(self, key: Hashable, payload: Any) -> Computed:
        """Compute a payload together with others of its key."""
        work = Work(key, payload, asyncio.get_running_loop().create_future())
        self._waiting.append(work)
        self._arrived.set()
        return await work.done

    async def _run(self) -> None:
        while True:
            batch = await self._gathered()
            if batch:
                await self._answer(batch)

    async def _gathered(self) -> list[Work]:
        """The next batch; perhaps none, where clients no longer wait."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.max_wait_ms / 1000
        while len(self._waiting) < self._largest and self._coming:
            self._arrived.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._arrived.wait()
            except TimeoutError:
                break
        key, batch, others = self._waiting[0].key, list[Work](), deque[Work]()
        while self._waiting and len(batch) < self._largest:
            work = self._waiting.popleft()
            if not work.done.done():  # else its deadline has passed, or its client has gone
                (batch if work.key == key else others).append(work)
        others.extend(self._waiting)
        self._waiting = others
        return batch

    async def _answer(self, batch: list[Work]) -> None:
        began = time.perf_counter()
        results = await self._results(batch)
        seconds = time.perf_counter() - began
        self._seconds_each += _SMOOTHING * (seconds / len(batch) - self._seconds_each)
        self._metrics.batches.labels(self.name).observe(len(batch))
        for work, result in zip(batch, results, strict=True):
            if work.done.done():
                continue
            if isinstance(result, BaseException):
                work.done.set_exception(result)
            else:
                work.done.set_result(Computed(result, began - work.since, seconds, len(batch)))

    async def _results(self, batch: Sequence[Work]) -> Sequence[Any]:
        """What each one gives, or why it fails; of a batch that fails each one is tried alone."""
        loop, payloads = asyncio.get_running_loop(), [work.payload for work in batch]
        try:
            return await loop.run_in_executor(self._thread, self._compute, batch[0].key, payloads)
        except Refused as error:
            failure: Exception = error
        except Exception as error:
            LOGGER.exception("%s failed on a batch of %d", self.name, len(batch))
            failure = error
        if len(batch) == 1:
            return [failure]
        return [(await self._results([work]))[0] for work in batch]
