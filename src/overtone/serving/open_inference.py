"""The Open Inference Protocol, version 2, which clients of KServe, Triton and OpenVINO Model Server speak.

https://github.com/kserve/open-inference-protocol: health, metadata, and inference on tensors as JSON or, with its
binary extension (`Inference-Header-Content-Length`), as bytes after the JSON. Tensors are what the network takes:
normalised images; predictions of files are at `/v1/predict`.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from torch import Tensor

from overtone import __version__
from overtone.plain_json import parse_json
from overtone.serving.errors import Refused, busy
from overtone.serving.models import Served, model_named
from overtone.serving.predicting import Service

_TYPES = {"FP32": np.float32, "UINT8": np.uint8, "INT64": np.int64}
_NAMES = {torch.float32: "FP32", torch.uint8: "UINT8", torch.int64: "INT64"}
_LENGTH = "Inference-Header-Content-Length"
_MOST_PARTS = 200_000  # brackets and strings in a request: each is an object of Python
_MOST_NUMBERS = 4_000_000  # of an answer in JSON


@dataclass(frozen=True)
class _Asked:
    """A parsed request: the tensor, the outputs that are wanted, and which of them as bytes."""

    id: str | None
    tensor: Tensor
    outputs: tuple[str, ...]
    binary: frozenset[str]


def inference_routes(service: Service) -> APIRouter:
    """`/v2` and what is below it."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @router.get("", summary="The server")
    async def server() -> dict[str, Any]:
        return {"name": "overtone", "version": __version__, "extensions": ["binary_tensor_data"]}

    @router.get("/health/live", summary="Whether the server runs")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", summary="Whether the server takes requests")
    async def ready() -> dict[str, bool]:
        if not service.is_ready:
            raise busy("the server is not ready", 1)
        return {"ready": True}

    @router.get("/models/{name}", summary="The tensors of a model")
    @router.get("/models/{name}/versions/1", include_in_schema=False)
    async def metadata(name: str) -> dict[str, Any]:
        return metadata_of(model_named(service.models, name))

    @router.get("/models/{name}/ready", summary="Whether a model takes requests")
    @router.get("/models/{name}/versions/1/ready", include_in_schema=False)
    async def model_ready(name: str) -> dict[str, Any]:
        served = model_named(service.models, name)
        return {"name": served.name, "ready": service.is_ready}

    @router.post("/models/{name}/infer", summary="Infer on tensors")
    @router.post("/models/{name}/versions/1/infer", include_in_schema=False)
    async def infer(name: str, request: Request) -> Response:
        served = model_named(service.models, name)
        batcher = service.batchers[served.name]
        batcher.check_room()
        async with service.reader.body(request, batcher.coming) as body, service.deadline():
            with batcher.accepted(1):
                with batcher.coming():
                    asked: _Asked = await service.threaded(parse, served, body, request.headers.get(_LENGTH))
                key = (tuple(asked.tensor.shape[1:]), asked.tensor.dtype)
                computed = await batcher.submit(key, asked.tensor)
                return await service.threaded(written, served, asked, computed.result)

    return router


def metadata_of(served: Served) -> dict[str, Any]:
    """What a model takes and gives."""
    return {
        "name": served.name,
        "versions": ["1"],
        "platform": "overtone",
        "inputs": [_tensor_of(*served.input)],
        "outputs": [_tensor_of(*output) for output in served.outputs],
    }


def _tensor_of(name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": _NAMES[dtype], "shape": list(shape)}


def parse(served: Served, body: bytes, length: str | None) -> _Asked:
    """A request's tensor, of the shape and type that the model takes.

    Args:
        served: the model.
        body: JSON, and bytes after it where `length` is given.
        length: bytes of the JSON, as the header says it.

    Raises:
        Refused: it is none.
    """
    text, raw = body, b""
    if length is not None:
        end = int(length) if length.isascii() and length.isdigit() and len(length) < 12 else -1
        if not 0 <= end <= len(body):
            raise Refused(400, f"{_LENGTH} is not the length of the JSON part")
        text, raw = body[:end], body[end:]
    if sum(map(text.count, (b"[", b"{", b'"'))) > _MOST_PARTS:
        raise Refused(400, "the JSON nests too much; give the data of a tensor as one flat list")
    try:
        values = parse_json(text)
        (given,) = values["inputs"]
        tensor = _tensor(served, given, raw)
        wanted: Any = values.get("outputs") or [{"name": name} for name, *_ in served.outputs]
        all_binary = bool((values.get("parameters") or {}).get("binary_data_output", False))
        names = tuple(str(one["name"]) for one in wanted)
        binary = {
            str(one["name"]) for one in wanted if (one.get("parameters") or {}).get("binary_data", all_binary) is True
        }
        identity = values.get("id")
    except Refused:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise Refused(400, "the request is not one of the Open Inference Protocol with one input") from error
    unknown = set(names) - {name for name, *_ in served.outputs}
    if unknown:
        raise Refused(400, f"there is no output {min(unknown)[:60]!r} of {served.name}")
    return _Asked(identity if isinstance(identity, str) else None, tensor, names, frozenset(binary))


def _tensor(served: Served, given: dict[str, Any], raw: bytes) -> Tensor:
    name, dtype, expected = served.input
    shape = [side for side in given["shape"] if type(side) is int and side > 0]
    fits = len(shape) == len(expected) == len(given["shape"]) and all(
        want in (-1, side) for want, side in zip(expected, shape, strict=True)
    )
    if given["name"] != name or given["datatype"] != _NAMES[dtype] or not fits:
        raise Refused(400, f"{served.name} takes {name}, {_NAMES[dtype]}, of shape {list(expected)}")
    if math.prod(shape) * np.dtype(_TYPES[_NAMES[dtype]]).itemsize > served.most_input_bytes:
        raise Refused(413, f"the tensor is larger than {served.most_input_bytes} bytes; send fewer images")
    if "data" in given:
        values = np.array(given["data"], dtype=_TYPES[_NAMES[dtype]])
    else:
        size = given["parameters"]["binary_data_size"]
        if size != len(raw):
            raise Refused(400, f"binary_data_size is {size!r:.20} and {len(raw)} bytes follow the JSON")
        values = np.frombuffer(raw, dtype=np.dtype(_TYPES[_NAMES[dtype]]).newbyteorder("<")).copy()
    return torch.from_numpy(values.reshape(shape))


def written(served: Served, asked: _Asked, outputs: dict[str, Tensor]) -> Response:
    """The answer: JSON, with the outputs that were asked for so as bytes after it.

    Raises:
        Refused: outputs that JSON cannot hold.
    """
    described, tail = [], list[bytes]()
    for name in asked.outputs:
        array = outputs[name].contiguous().numpy()
        about: dict[str, Any] = {
            "name": name,
            "datatype": _NAMES[outputs[name].dtype],
            "shape": list(array.shape),
        }
        if name in asked.binary:
            tail.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            about["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            if array.size > _MOST_NUMBERS or not np.isfinite(array).all():
                raise Refused(422, f"JSON cannot hold {name}, of shape {about['shape']}; ask for binary_data")
            about["data"] = array.ravel().tolist()
        described.append(about)
    answer: dict[str, Any] = {"model_name": served.name, "model_version": "1", "outputs": described}
    if asked.id is not None:
        answer["id"] = asked.id
    if not tail:
        return JSONResponse(answer)
    text = json.dumps(answer).encode()
    content = b"".join([text, *tail])
    return Response(content, media_type="application/octet-stream", headers={_LENGTH: str(len(text))})
