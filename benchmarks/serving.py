"""The server against what it wraps: images/s and latency at 1, 4, 16 and 64 clients, overload, and a long run.

    python benchmarks/serving.py --json benchmarks/serving.json

Contenders, which take turns: `pipeline`, the same decoding and batches of 16 without a server (threads decode ahead);
`loop`, decode and `model(x)` one after the other with the network as it is built; `naive`, a FastAPI handler around
that loop; `serve`, `overtone serve` itself. Servers are processes of their own, with as many threads as `--threads`;
the client is httpx in this one. On a busy machine wall time says little: CPU seconds of the contender's process for
an image are given beside it, and the ratio to the pipeline is of those.
"""

import argparse
import asyncio
import io
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, File
from PIL import Image

from overtone import create_model
from overtone.config import Preprocess
from overtone.data.decoding import decode_image
from overtone.data.transforms import evaluation_transform
from overtone.deployment.running import Computation
from overtone.serving.models import serve_model
from overtone.zoo import load_model

CLIENTS = (1, 4, 16, 64)
BATCH = 16
_TICKS = os.sysconf("SC_CLK_TCK")


def images(count: int, side: int) -> list[bytes]:
    """JPEG files of smooth noise, about as large as photographs of their size."""
    random_ = np.random.default_rng(0)
    made = []
    for _ in range(count):
        small = Image.fromarray(random_.integers(0, 256, (side // 8, side // 6, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(file, format="JPEG", quality=88)
        made.append(file.getvalue())
    return made


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def naive_app(model: str, size: int) -> FastAPI:
    """What one writes first: a handler that opens, transforms, and calls the network."""
    network, transform = create_model(model).eval(), evaluation_transform(Preprocess(size=size))
    app = FastAPI()

    @app.post("/v1/predict")
    def predict(image: bytes = File()) -> dict[str, Any]:
        with torch.inference_mode():
            logits = network(transform(Image.open(io.BytesIO(image)).convert("RGB"))[None])
        best = logits.softmax(1)[0].topk(5)
        return {"classes": best.indices.tolist(), "probabilities": best.values.tolist()}

    return app


def run_naive(model: str, size: int, port: int, threads: int) -> None:
    """The naive server, in this process."""
    torch.set_num_threads(threads)
    uvicorn.run(naive_app(model, size), port=port, log_level="error")


@contextmanager
def server(words: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server process that answers, ended by SIGTERM."""
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                try:
                    httpx.get(f"http://127.0.0.1:{port}/docs", timeout=5)
                    break
                except httpx.TransportError:
                    time.sleep(0.2)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


async def load(port: int, bodies: list[bytes], clients: int, requests: int, *, form: bool) -> dict[str, Any]:
    """So many requests by so many clients, each of which waits for its answer."""
    seconds, statuses, left = list[float](), Counter[int](), iter(range(requests))
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=120) as client:

        async def one() -> None:
            for at in left:
                body, began = bodies[at % len(bodies)], time.perf_counter()
                sent: dict[str, Any] = {"files": {"image": body}} if form else {"content": body}
                statuses[(await client.post("/v1/predict", **sent)).status_code] += 1
                seconds.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(clients)))
        wall = time.perf_counter() - began
    ordered = sorted(seconds)
    return {
        "images_per_s": requests / wall,
        "p50_ms": 1000 * statistics.median(ordered),
        "p99_ms": 1000 * ordered[int(0.99 * (len(ordered) - 1))],
        "statuses": dict(statuses),
    }


def measured(port: int, process: subprocess.Popen[bytes], *rest: Any, **how: Any) -> dict[str, Any]:
    """`load`, with the CPU milliseconds of the server for an image."""
    before = cpu_seconds(process.pid)
    found = asyncio.run(load(port, *rest, **how))
    return found | {"cpu_ms": 1000 * (cpu_seconds(process.pid) - before) / rest[2]}


def bare(function: Any, requests: int) -> dict[str, Any]:
    """A contender without a server."""
    wall, cpu = time.perf_counter(), time.process_time()
    function(requests)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"images_per_s": requests / wall, "cpu_ms": 1000 * cpu / requests}


def bare_contenders(model: str, size: int, threads: int, bodies: list[bytes]) -> dict[str, Any]:
    """Functions of a number of images: `pipeline`, `loop`, and `network`, the batched network on ready batches."""
    torch.set_num_threads(threads)
    served = serve_model(model, load_model(model), Computation(threads=threads, size=size, device="cpu"))
    network, transform = create_model(model).eval(), evaluation_transform(Preprocess(size=size))
    ready = torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)

    def pipeline(count: int) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            samples = pool.map(lambda at: served.sample(bodies[at % len(bodies)], 1 << 28), range(count))
            batch = []
            for sample in samples:
                batch.append(sample)
                if len(batch) == BATCH:
                    served.predict(batch, [5] * BATCH)
                    batch.clear()
            if batch:
                served.predict(batch, [5] * len(batch))

    def loop(count: int) -> None:
        with torch.inference_mode():
            for at in range(count):
                network(transform(decode_image(bodies[at % len(bodies)]))[None]).softmax(1)[0].topk(5)

    def network_alone(count: int) -> None:
        for _ in range(count // BATCH):
            served.infer(ready)

    return {"pipeline": pipeline, "loop": loop, "network": network_alone}


def throughput(chosen: argparse.Namespace) -> dict[str, Any]:
    """All contenders, in turns."""
    bodies = images(32, chosen.side)
    contenders = bare_contenders(chosen.model, chosen.size, chosen.threads, bodies)
    for function in contenders.values():
        function(BATCH)
    serve = ["-m", "overtone", "serve", chosen.model, "--size", str(chosen.size), "--threads", str(chosen.threads)]
    naive = [__file__, "--naive", "--model", chosen.model, "--size", str(chosen.size), "--threads", str(chosen.threads)]
    found: dict[str, list[dict[str, Any]]] = {}
    with (
        server([*serve, "--port", str(chosen.port)], chosen.port) as ours,
        server([*naive, "--port", str(chosen.port + 1)], chosen.port + 1) as theirs,
    ):
        for _ in range(chosen.rounds):
            for name, function in contenders.items():
                found.setdefault(name, []).append(bare(function, chosen.requests))
            for clients in CLIENTS:
                one = measured(chosen.port, ours, bodies, clients, chosen.requests, form=False)
                found.setdefault(f"serve, {clients} clients", []).append(one)
                other = measured(chosen.port + 1, theirs, bodies, clients, chosen.requests, form=True)
                found.setdefault(f"naive, {clients} clients", []).append(other)
    return {name: median(rounds) for name, rounds in found.items()}


def median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure the median over the rounds."""
    kept = {key: round(statistics.median(one[key] for one in rounds), 2) for key in rounds[0] if key != "statuses"}
    statuses: Counter[int] = Counter()
    for one in rounds:
        statuses.update(one.get("statuses", {}))
    return kept | ({"statuses": dict(statuses)} if statuses else {})


def overload(chosen: argparse.Namespace) -> dict[str, Any]:
    """64 clients against a queue of 8, then one client."""
    words = ["-m", "overtone", "serve", chosen.model, "--size", str(chosen.size), "--threads", "1", "--max-queue", "8"]
    bodies = images(8, chosen.side)
    with server([*words, "--port", str(chosen.port + 2)], chosen.port + 2):
        during = asyncio.run(load(chosen.port + 2, bodies, 64, chosen.requests, form=False))
        after = asyncio.run(load(chosen.port + 2, bodies, 1, 20, form=False))
    return {"64 clients, queue of 8": during["statuses"], "one client afterwards": after["statuses"]}


def long_run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Many requests, 1 % of them malformed, on a small network: answers, and the slope of the memory."""
    good, draw = images(32, 96), random.Random(0)
    bodies = [b"no image" if at % 100 == 50 else draw.choice(good) for at in range(chosen.long)]
    words = ["-m", "overtone", "serve", "hbonet_x010", "--size", "64", "--threads", "1"]
    memory, statuses, parts = list[float](), Counter[str](), 20
    with server([*words, "--port", str(chosen.port + 3)], chosen.port + 3) as process:
        for part in range(parts):
            some = bodies[part * chosen.long // parts : (part + 1) * chosen.long // parts]
            statuses.update(asyncio.run(load(chosen.port + 3, some, 16, len(some), form=False))["statuses"])
            memory.append(resident_mb(process.pid))
    thousands = np.arange(parts) * chosen.long / parts / 1000
    late = slice(parts // 4, None)  # the first quarter warms up caches of the allocator
    return {
        "requests": chosen.long,
        "malformed": sum(body == b"no image" for body in bodies),
        "statuses": dict(statuses),
        "memory_mb": [round(value, 1) for value in memory],
        "slope_mb_per_1000": round(float(np.polyfit(thousands[late], memory[late], 1)[0]), 3),
    }


PARTS = {"throughput": throughput, "overload": overload, "long run": long_run}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hbonet_x100")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--side", type=int, default=375, help="shorter side of the images, pixels")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--requests", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", type=int, default=10_000)
    parser.add_argument("--port", type=int, default=8750)
    parser.add_argument("--only", choices=tuple(PARTS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--naive", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.naive:
        run_naive(chosen.model, chosen.size, chosen.port, chosen.threads)
        return
    found = {name: measure(chosen) for name, measure in PARTS.items() if chosen.only in (None, name)}
    settings = {key: value for key, value in vars(chosen).items() if key not in ("json", "naive", "only")}
    text = json.dumps({"settings": settings, "cores": os.cpu_count(), **found}, indent=2)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
