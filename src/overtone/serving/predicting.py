"""The routes that take images: predictions and heat maps."""

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from overtone.errors import OvertoneError
from overtone.machine import usable_cores
from overtone.serving.answers import MaskChoice, answer_of
from overtone.serving.batching import Batcher
from overtone.serving.errors import Refused
from overtone.serving.limits import Limits
from overtone.serving.metrics import Metrics
from overtone.serving.models import Sample, Served, model_named
from overtone.serving.uploads import Reader, Upload

Explain = Callable[[Served, bytes, int | None], bytes]
"""From a model, the bytes of an image and the index of a label (None: the most probable) to a PNG."""
IMAGES = "images"
_MOST_ANSWERS = 1000
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}


class Service:
    """What the routes share: the models, their queues, the threads that decode, the limits.

    Args:
        models: by name.
        limits: bounds.
        metrics: counts.
        explains: whether heat maps are available.
    """

    def __init__(self, models: dict[str, Served], limits: Limits, metrics: Metrics, *, explains: bool) -> None:
        self.models, self.limits, self.metrics, self.explains = models, limits, metrics, explains
        self.reader = Reader(limits)
        self.is_ready = False
        self.batchers = {
            name: Batcher(name, _computer(model), limits, model.largest_batch, metrics)
            for name, model in models.items()
        }

    def start(self) -> None:
        """Begin to serve; needs a running event loop."""
        self.pool = ThreadPoolExecutor(self.limits.decoders or usable_cores(), thread_name_prefix="decode")
        for batcher in self.batchers.values():
            batcher.start()
        self.is_ready = True

    async def close(self) -> None:
        """End, after what is being computed."""
        self.is_ready = False
        for batcher in self.batchers.values():
            await batcher.close()
        self.pool.shutdown(wait=True, cancel_futures=True)

    async def threaded(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function in the threads that decode."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *args)

    def deadline(self) -> "_Deadline":
        """A block that is refused with 504 where it takes too long."""
        return _Deadline(self.limits.deadline_s)


class _Deadline:
    def __init__(self, seconds: float) -> None:
        self._seconds, self._timeout = seconds, asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        try:
            await self._timeout.__aexit__(*error)
        except TimeoutError as late:
            raise Refused(504, f"the answer took longer than {self._seconds:g} s; try again") from late


def _computer(model: Served) -> Callable[[Any, Any], Any]:
    """What a batch of this model's queue is computed by: images, or tensors of one shape."""

    def compute(key: Any, payloads: Any) -> Any:
        if key == IMAGES:
            samples, counts = zip(*payloads, strict=True)
            return model.predict(samples, counts)
        return model.infer_together(payloads)

    return compute


def predicting_routes(service: Service, explain: Explain | None) -> APIRouter:
    """`/v1/predict` and `/v1/explain`."""
    router = APIRouter(prefix="/v1", tags=["images"])

    @router.post("/predict", openapi_extra=_BODY, summary="Predict what images show")
    async def predict(
        request: Request,
        model: Annotated[str | None, Query(description="a name of /v1/models; default: the first")] = None,
        top_k: Annotated[int, Query(ge=1, le=_MOST_ANSWERS, description="most answers for an image")] = 5,
        masks: Annotated[MaskChoice, Query(description="form of masks")] = "png",
    ) -> dict[str, Any]:
        began = time.perf_counter()
        served = model_named(service.models, model)
        batcher = service.batchers[served.name]
        batcher.check_room()
        async with service.reader.body(request, batcher.coming) as body:
            read = time.perf_counter() - began
            service.metrics.stages.labels(served.name, "read").observe(read)
            async with service.deadline():
                uploads = service.reader.files(request.headers.get("content-type", ""), body)
                with batcher.accepted(len(uploads)):
                    one = _ImageAnswers(service, served, top_k, masks)
                    images = await asyncio.gather(*map(one.answer, uploads))
        _refuse_if_all_failed(images)
        total = time.perf_counter() - began
        return {
            "model": served.name,
            "task": served.task.name,
            "images": images,
            "milliseconds": {"read": _ms(read), "total": _ms(total)},
        }

    @router.post(
        "/explain",
        openapi_extra=_BODY,
        summary="Heat map of what a prediction rests on",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}}},
    )
    async def explained(
        request: Request,
        model: Annotated[str | None, Query(description="a name of /v1/models; default: the first")] = None,
        label: Annotated[int | None, Query(ge=0, description="index of a label; default: the most probable")] = None,
    ) -> Response:
        served = model_named(service.models, model)
        if explain is None:
            raise Refused(501, "heat maps are not available: this installation of overtone cannot make them")
        if label is not None and label >= len(served.task.labels):
            raise Refused(422, f"label {label} is not there: {served.name} has {len(served.task.labels)}")
        batcher = service.batchers[served.name]
        batcher.check_room()
        async with service.reader.body(request, contextlib.nullcontext) as body, service.deadline():
            uploads = service.reader.files(request.headers.get("content-type", ""), body)
            with batcher.accepted(1):
                try:
                    png = await service.threaded(_explained, explain, service, served, uploads[0], label)
                except OvertoneError as error:
                    raise Refused(422, "there is no heat map of this model and image") from error
        return Response(png, media_type="image/png")

    return router


def _explained(explain: Explain, service: Service, served: Served, upload: Upload, label: int | None) -> bytes:
    served.sample(upload.content, service.limits.max_pixels)  # refuses what cannot be read
    return explain(served, upload.content, label)


class _ImageAnswers:
    """The answers for the images of one request."""

    def __init__(self, service: Service, served: Served, top_k: int, masks: MaskChoice) -> None:
        self._service, self._served, self._top_k = service, served, top_k
        self._masks: MaskChoice = masks

    async def answer(self, upload: Upload) -> dict[str, Any]:
        """What is answered for one image: a prediction, or `error` with its `status`."""
        name = {"name": os.path.basename(upload.name)} if upload.name else {}
        try:
            return name | await self._predicted(upload.content)
        except Refused as error:
            return name | {"error": error.message, "status": error.status}

    async def _predicted(self, content: bytes) -> dict[str, Any]:
        service, served = self._service, self._served
        started = time.perf_counter()
        batcher = service.batchers[served.name]
        with batcher.coming():
            sample: Sample = await service.threaded(served.sample, content, service.limits.max_pixels)
        decoded = time.perf_counter()
        computed = await batcher.submit(IMAGES, (sample, self._top_k))
        ready = time.perf_counter()
        write = functools.partial(answer_of, computed.result, sample.size, self._masks)
        values = await service.threaded(write) if served.has_masks else write()
        stages = {
            "decode": decoded - started,
            "queue": computed.waited,
            "compute": computed.computed,
            "answer": time.perf_counter() - ready,
        }
        for stage, seconds in stages.items():
            service.metrics.stages.labels(served.name, stage).observe(seconds)
        milliseconds = {stage: _ms(seconds) for stage, seconds in stages.items()}
        return values | {"milliseconds": milliseconds, "batch": computed.batch}


def _refuse_if_all_failed(images: list[dict[str, Any]]) -> None:
    """Refuse a request none of whose images could be read.

    Raises:
        Refused: with the reason of the first one.
    """
    if all("error" in image for image in images):
        raise Refused(images[0]["status"], images[0]["error"])


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)
