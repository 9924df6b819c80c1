"""`overtone serve`: networks behind an HTTP server."""

import importlib.util
import os
from pathlib import Path

from overtone import options
from overtone.deployment.running import Computation
from overtone.errors import OvertoneError
from overtone.verbs.console import note, warn
from overtone.verbs.loading import introduce, loaded_for

_NEEDED = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "prometheus_client": "prometheus-client",
    "python_multipart": "python-multipart",
}
_TOKEN = "OVERTONE_SERVE_TOKEN"


def serve(chosen: options.Serve) -> int:
    """Serve until SIGTERM, which ends with 0.

    Raises:
        OvertoneError: no model, one that cannot be had, a library that is not installed, or an address that is taken.
    """
    missing = [package for module, package in _NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise OvertoneError(f'overtone serve needs {", ".join(missing)}; install them: pip install "overtone[serve]"')
    if not chosen.models:
        raise OvertoneError("no model is given; add a run folder, a checkpoint, a name or an export after serve")
    # the libraries of the extra are imported here alone
    from overtone.serving.app import create_app
    from overtone.serving.explaining import explainer
    from overtone.serving.guards import is_local, local_names
    from overtone.serving.limits import Limits
    from overtone.serving.models import serve_model, unique_names
    from overtone.serving.server import serve as run_server

    token = chosen.token or os.environ.get(_TOKEN) or None
    local = is_local(chosen.host)
    limits = Limits(
        max_batch=chosen.max_batch,
        max_wait_ms=chosen.max_wait_ms,
        max_queue=chosen.max_queue,
        max_bytes=chosen.max_mb << 20,
        max_pixels=chosen.max_pixels,
        deadline_s=chosen.deadline,
    )
    served = []
    for name, spec in zip(unique_names(chosen.models), chosen.models, strict=True):
        loaded = loaded_for(options.Predict(spec, (), weights_dir=chosen.weights_dir, ema=chosen.ema))
        introduce(loaded)
        served.append(serve_model(name, loaded, _computation(chosen)))
    if not local and token is None:
        warn(f"{chosen.host} is open to everyone who can reach it; --token TOKEN lets in only those who have it")
    app = create_app(
        served,
        limits,
        token=token,
        hosts=local_names(chosen.host) if local else None,
        explain=explainer(),
        runs=_folder(chosen.runs),
    )
    names = ", ".join(model.name for model in served)
    run_server(app, limits, chosen.host, chosen.port, lambda address: note(f"serving {names} at {address}"))
    return 0


def _computation(chosen: options.Serve) -> Computation:
    return Computation(
        runtime=chosen.runtime,
        precision=chosen.precision,
        calibration=chosen.calibration,
        size=chosen.size,
        threads=chosen.threads,
        device=chosen.device,
    )


def _folder(runs: Path | None) -> Path | None:
    """The folder of runs.

    Raises:
        OvertoneError: it is not there.
    """
    if runs is not None and not runs.is_dir():
        raise OvertoneError(f"{runs} is not a folder; give the folder of your runs as --runs")
    return runs
