"""The application under uvicorn: signals, slow clients, an end in good order."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from overtone.errors import OvertoneError
from overtone.serving.limits import Limits

_HEADER_S = 10.0  # seconds for the headers of a request, and until the next one on an open connection
_CONNECTIONS = 1000
_TICK_S = 1.0


def serve(
    app: FastAPI, limits: Limits, host: str, port: int, listening: Callable[[str], object] = lambda address: None
) -> None:
    """Serve until SIGTERM or Ctrl-C; what was accepted is answered within `limits.drain_s` first.

    Args:
        app: from `create_app`.
        limits: bounds.
        host: name or address to listen on.
        port: 0: any that is free.
        listening: called with the address once requests are taken.

    Raises:
        OvertoneError: the address cannot be had.
        KeyboardInterrupt: Ctrl-C, after the end.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(_HEADER_S),
        timeout_graceful_shutdown=int(limits.drain_s) or 1,
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=16 << 10,
    )
    try:
        socket = config.bind_socket()
    except (OSError, SystemExit) as error:
        reason = getattr(error, "strerror", None) or "it is taken, or not an address of this machine"
        raise OvertoneError(f"{host}:{port} cannot be listened on: {reason}; choose another --port or --host") from None
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = uvicorn.Server(config)
    # uvicorn raises the signal again after its end: by then it has been obeyed
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        asyncio.run(_serve(server, socket, app, limits, listening))
    finally:
        signal.signal(signal.SIGTERM, before)
        socket.close()


async def _serve(server: uvicorn.Server, socket: Any, app: FastAPI, limits: Limits, listening: Any) -> None:
    host, port = socket.getsockname()[:2]
    watching = asyncio.create_task(_watch(server, app, limits))
    announcing = asyncio.create_task(
        _announce(server, f"http://{f'[{host}]' if ':' in host else host}:{port}", listening)
    )
    try:
        await server.serve([socket])
    finally:
        watching.cancel()
        announcing.cancel()


async def _announce(server: uvicorn.Server, address: str, listening: Callable[[str], object]) -> None:
    while not server.started:
        await asyncio.sleep(0.02)
    listening(address)


async def _watch(server: uvicorn.Server, app: FastAPI, limits: Limits) -> None:
    """Close connections whose client sends no whole header, or does not read its answer."""
    idle: dict[Any, float] = {}
    unread: dict[Any, float] = {}
    while True:
        await asyncio.sleep(_TICK_S)
        if server.should_exit:
            app.state.service.is_ready = False
        now, open_now = time.monotonic(), set(server.server_state.connections)
        for kept in (idle, unread):
            for gone in set(kept) - open_now:
                del kept[gone]
        for connection in open_now:
            cycle: Any = getattr(connection, "cycle", None)
            is_idle = cycle is None or cycle.response_complete
            _abort_if_late(connection, idle, is_idle, now, _HEADER_S)
            is_paused = getattr(getattr(connection, "flow", None), "write_paused", False)
            _abort_if_late(connection, unread, is_paused, now, limits.upload_s)


def _abort_if_late(connection: Any, since: dict[Any, float], applies: bool, now: float, most: float) -> None:
    if not applies:
        since.pop(connection, None)
    elif now - since.setdefault(connection, now) > most and connection.transport is not None:
        connection.transport.abort()
