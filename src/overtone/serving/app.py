"""The application: routes, guards and the page."""

import contextlib
import inspect
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from overtone import __version__
from overtone.serving.describing import add_docs, describing_routes
from overtone.serving.errors import handle_errors
from overtone.serving.guards import Guard
from overtone.serving.limits import Limits
from overtone.serving.metrics import Metrics
from overtone.serving.models import Served, check_models
from overtone.serving.open_inference import inference_routes
from overtone.serving.pages import page_routes
from overtone.serving.predicting import Explain, Service, predicting_routes

PAGE = Path(__file__).parent / "page"
_OFF = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
# newer versions of FastAPI can send OpenTelemetry where the environment says so
_NO_TELEMETRY: dict[str, Any] = {"telemetry": _OFF} if "telemetry" in inspect.signature(FastAPI).parameters else {}


def create_app(
    models: Sequence[Served],
    limits: Limits | None = None,
    *,
    token: str | None = None,
    hosts: Sequence[str] | None = None,
    explain: Explain | None = None,
    runs: Path | None = None,
) -> FastAPI:
    """The application for some models.

    Args:
        models: what is served; the first one is the default.
        limits: bounds; None: those of `Limits`.
        token: what clients must show; None: nothing.
        hosts: names that the server may be called by; None: any.
        explain: makes heat maps; None: they are not available.
        runs: folder of runs that the page may show; None: none.

    Raises:
        OvertoneError: no model, or two of one name.
    """
    metrics = Metrics()
    service = Service(check_models(models), limits or Limits(), metrics, explains=explain is not None)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="overtone serve",
        version=__version__,
        description='Predictions of images. Errors are one line of JSON: {"error": …}.',
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        **_NO_TELEMETRY,
    )
    app.state.service, app.state.runs = service, runs
    handle_errors(app)
    app.include_router(predicting_routes(service, explain))
    app.include_router(describing_routes(service))
    app.include_router(inference_routes(service))
    app.include_router(page_routes(runs, lambda: service.is_ready))
    add_docs(app)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    app.add_middleware(Guard, hosts=hosts, token=token, metrics=metrics)
    return app
