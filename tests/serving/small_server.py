"""Small networks behind the application, and clients without a network between them."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import torch
from fastapi import FastAPI
from PIL import Image

from overtone.checkpoint import Manifest
from overtone.config import Model, Preprocess
from overtone.deployment.running import Computation
from overtone.serving.models import Served, serve_model
from overtone.tasks import task_named
from overtone.zoo import LoadedModel

LABELS = ("blue", "green", "red")
SIZE = 32


def loaded(task: str = "classification", head: str | None = None, name: str = "hbonet_x010") -> LoadedModel:
    """A network of random weights, the same every time."""
    torch.manual_seed(0)
    preprocess = Preprocess(size=SIZE)
    recipe = {"task": task, "model": {"name": name, "head": head}}
    return LoadedModel(
        model=task_named(task).build(Model(name=name, head=head), LABELS).eval(),
        architecture=name,
        labels=LABELS,
        preprocess=preprocess,
        source="/secret/folder/run",
        task=task,
        manifest=Manifest(name, LABELS, preprocess, recipe=recipe, task=task),
    )


def served(name: str = "small", **kind: Any) -> Served:
    """A network behind a name."""
    return serve_model(name, loaded(**kind), Computation(threads=1))


def encoded(width: int = 40, height: int = 30, kind: str = "JPEG", seed: int = 0) -> bytes:
    """An image file of noise."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, format=kind)
    return file.getvalue()


Conversation = Callable[[httpx.AsyncClient], Awaitable[Any]]


def talk(app: FastAPI, conversation: Conversation) -> Any:
    """Run a conversation of a client with the running application."""

    async def run() -> Any:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await conversation(client)

    return asyncio.run(run())


def post(app: FastAPI, path: str = "/v1/predict", **request: Any) -> httpx.Response:
    """The answer to one request."""
    return talk(app, lambda client: client.post(path, **request))


def get(app: FastAPI, path: str, **request: Any) -> httpx.Response:
    """The answer to one request."""
    return talk(app, lambda client: client.get(path, **request))
