"""The application under uvicorn: signals, slow clients, an end in good order."""

import asyncio
import logging
import signal
import socket
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
_BACKLOG = 512


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
    server, bound = listen(app, limits, host, port)
    # uvicorn raises the signal again after its end: by then it has been obeyed
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        asyncio.run(run(server, bound, app, limits, listening))
    finally:
        signal.signal(signal.SIGTERM, before)
        bound.close()


def listen(app: FastAPI, limits: Limits, host: str, port: int) -> tuple[uvicorn.Server, socket.socket]:
    """A server that does not run yet, and the socket that it has bound.

    Raises:
        OvertoneError: the address cannot be had.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(_HEADER_S),
        timeout_graceful_shutdown=max(int(limits.drain_s), 1),
        limit_concurrency=_CONNECTIONS,
        h11_max_incomplete_event_size=16 << 10,
    )
    for name in ("uvicorn.error", "python_multipart"):  # which warn of every malformed request
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        # connections inherit it; else the body of an answer waits 40 ms for the client to acknowledge its head
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OvertoneError(
            f"{host}:{port} cannot be listened on: {reason}; choose another --port or --host"
        ) from error
    return uvicorn.Server(config), bound


async def run(
    server: uvicorn.Server,
    bound: socket.socket,
    app: FastAPI,
    limits: Limits,
    listening: Callable[[str], object] = lambda address: None,
) -> None:
    """Serve until a signal, or until `server.should_exit`; see `serve`."""
    host, port = bound.getsockname()[:2]
    watching = asyncio.create_task(_watch(server, app, limits))
    announcing = asyncio.create_task(
        _announce(server, f"http://{f'[{host}]' if ':' in host else host}:{port}", listening)
    )
    try:
        await server.serve([bound])
    finally:
        watching.cancel()
        announcing.cancel()


async def _announce(server: uvicorn.Server, address: str, listening: Callable[[str], object]) -> None:
    while not server.started:
        await asyncio.sleep(0.02)
    listening(address)


async def _watch(server: uvicorn.Server, app: FastAPI, limits: Limits) -> None:
    """Close connections whose client sends no whole header, or does not read its answer."""
    idle, unread = _Stalled(_HEADER_S), _Stalled(limits.upload_s)
    while True:
        await asyncio.sleep(_TICK_S)
        if server.should_exit:
            app.state.service.is_ready = False
        connections = list(server.server_state.connections)
        cycles: dict[Any, Any] = {one: getattr(one, "cycle", None) for one in connections}
        late = idle.late({one: cycle for one, cycle in cycles.items() if cycle is None or cycle.response_complete})
        late |= unread.late({one: cycle for one, cycle in cycles.items() if _is_paused(one)})
        for connection in late:
            if connection.transport is not None:
                connection.transport.abort()


def _is_paused(connection: Any) -> bool:
    return getattr(getattr(connection, "flow", None), "write_paused", False)


class _Stalled:
    """Connections that have been at one request (`cycle`) in one state for too long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[Any, tuple[Any, float]] = {}

    def late(self, cycles: dict[Any, Any]) -> set[Any]:
        """Those that are late, of the connections in the state, each with its request."""
        now = time.monotonic()
        kept: dict[Any, tuple[Any, float]] = {}
        for connection, cycle in cycles.items():
            before = self._since.get(connection)
            # another request since the last look: it has not been in this state all the time
            kept[connection] = before if before is not None and before[0] is cycle else (cycle, now)
        self._since = kept
        return {connection for connection, (_, since) in kept.items() if now - since > self._seconds}
