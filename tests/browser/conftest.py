"""One server with small networks and one browser for all tests of the page; skipped where there is no browser."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from running_site import Site, heat_map, served
from written_runs import add_images, write_run

from overtone.deployment.images import generated_images
from overtone.serving.app import create_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_SECONDS = 20


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG file as a camera writes it: larger than the network's input, in landscape format."""
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    generated_images(2, 300)[1].save(path, quality=90)
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server, with a network for each of three tasks and two runs."""
    if CHROMIUM is None or find_spec("playwright") is None:
        missing = "Chromium (Debian: apt-get install chromium)" if CHROMIUM is None else "playwright (extra dev)"
        pytest.skip(f"the tests of the page need {missing}")
    runs = tmp_path_factory.mktemp("site") / "runs"
    add_images(write_run(runs / "first"), [("cat", "cat", 0.9), ("owl", "dog", 0.8), ("cat", "dog", 0.6)])
    write_run(runs / "second", lr=0.5)
    models = [served("classification"), served("multilabel"), served("segmentation", "lraspp")]
    app = create_app(models, explain=heat_map, runs=runs)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, http="h11", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        deadline = time.monotonic() + _SECONDS
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}", runs)
        server.should_exit = True
        app.state.service.is_ready = False
        thread.join(_SECONDS)


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Any]:
    """Chromium without a window; while it is open its library runs an event loop, and no other can run here."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - not everyone has it

    with sync_playwright() as playwright:
        # Chromium has no sandbox for root
        flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # a camera of moving colours
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, site: Site) -> Iterator[Any]:
    """`opened("runs", width=390)`: a new page of the site."""
    contexts = []

    def open_page(name: str = "predict", *, width: int = 1100, dark: bool = False, url: str | None = None) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        context.set_default_timeout(1000 * _SECONDS)
        page = context.new_page()
        page.on("request", lambda request: site.asked.append(request.url))
        page.on("pageerror", lambda error: site.errors.append(str(error)))
        page.on("console", lambda message: site.errors.append(message.text) if message.type == "error" else None)
        page.goto(url or f"{site.address}/#{name}")
        return page

    yield open_page
    for context in contexts:
        context.close()
