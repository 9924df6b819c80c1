"""Whatever is sent to the server, it answers: never 5xx, never anything of this machine, and the next one is served.

`make fuzz` sends thousands; every case is a function of (seed, number).
"""

import asyncio
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import torch
from mutations import damaged, damaged_json, image_files

from overtone.config import Model, Preprocess
from overtone.deployment.running import Computation
from overtone.serving.app import create_app
from overtone.serving.limits import Limits
from overtone.serving.models import Served, serve_model
from overtone.tasks import task_named
from overtone.zoo import LoadedModel

SEED = int(os.environ.get("OVERTONE_FUZZ_SEED", "0"))
CASES = int(os.environ.get("OVERTONE_FUZZ_CASES", "0")) or 400
KINDS = (
    "image/jpeg",
    "image/png",
    "",
    "application/octet-stream",
    "multipart/form-data; boundary=b",
    "image/\x00é",
    "x",
)
QUERIES = ("", "?top_k=3", "?model=small", "?masks=rle", "?top_k=99999999999999999999", "?model=%ff%00", "?top_k=nan")
SIDE = 16


def small() -> Served:
    """A network that takes a millisecond."""
    labels, preprocess = ("a", "b"), Preprocess(size=SIDE)
    model = task_named("classification").build(Model(name="hbonet_x010"), labels).eval()
    loaded = LoadedModel(model, "hbonet_x010", labels, preprocess, "here")
    return serve_model("small", loaded, Computation(threads=1))


def form(content: bytes, draw: random.Random) -> bytes:
    """A form with a file, damaged now and then."""
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    whole = head + content + b"\r\n--b--\r\n"
    return damaged(whole, draw) if draw.random() < 0.5 else whole


def tensors(draw: random.Random) -> bytes:
    """A request of the Open Inference Protocol, damaged."""
    one: dict[str, Any] = {"name": "images", "datatype": "FP32", "shape": [1, 3, SIDE, SIDE]}
    one["data"] = [0.5] * (3 * SIDE * SIDE)
    values = {"id": "1", "inputs": [one], "outputs": [{"name": "logits", "parameters": {"binary_data": False}}]}
    return json.dumps(damaged_json(values, draw)).encode()


async def sent(client: httpx.AsyncClient, number: int, files: dict[str, bytes]) -> httpx.Response:
    """The answer to a case."""
    draw = random.Random(f"{SEED} {number}")
    if draw.random() < 0.2:
        headers = {"Inference-Header-Content-Length": str(draw.choice((0, 5, -1, 1 << 40)))}
        chosen = headers if draw.random() < 0.3 else {}
        return await client.post("/v2/models/small/infer", content=tensors(draw), headers=chosen)
    content, kind = damaged(draw.choice(list(files.values())), draw), draw.choice(KINDS)
    body = form(content, draw) if kind.startswith("multipart") else content
    path = draw.choice(("/v1/predict", "/v1/predict", "/v1/explain"))
    return await client.post(path + draw.choice(QUERIES), content=body, headers={"Content-Type": kind.encode()})


def test_uploads_of_every_kind_are_answered(tmp_path: Path) -> None:
    torch.manual_seed(0)
    app = create_app([small()], Limits(max_pixels=1_000_000, max_bytes=1 << 20, decoders=1), explain=lambda *_: b"png")

    async def run() -> Counter[int]:
        statuses: Counter[int] = Counter()
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)  # what the application lets through is raised here
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                for number in range(CASES):
                    files = image_files(random.Random(number)) if number % 100 == 0 else files  # noqa: F821
                    answer = await asyncio.wait_for(sent(client, number, files), 30)
                    statuses[answer.status_code] += 1
                    case = f"case {number} of seed {SEED}: {answer.status_code} {answer.text[:300]}"
                    assert answer.status_code < 500, case
                    if answer.status_code != 200:
                        assert list(answer.json()) == ["error"] and "\n" not in answer.text, case
                    assert "Traceback" not in answer.text and "site-packages" not in answer.text, case
                image = next(iter(image_files(random.Random(0)).values()))
                assert (await client.post("/v1/predict", content=image)).status_code == 200
        return statuses

    statuses = asyncio.run(run())
    assert statuses[200] and statuses[400] and statuses[415] and statuses[422]
