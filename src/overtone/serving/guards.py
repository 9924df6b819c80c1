"""What stands before the application: the host's name, the token, the origin; and the headers of every answer."""

import hmac
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from overtone.serving.errors import Refused
from overtone.serving.metrics import Metrics

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
_OPEN = ("/v2/health/live", "/v2/health/ready")
_CLOSED = ("/v1/", "/v2", "/metrics", "/openapi.json", "/docs")
_LOCAL = ("localhost", "127.0.0.1", "::1")


def is_local(host: str) -> bool:
    """Whether an address to listen on is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Middleware that refuses what must not come in.

    Args:
        app: what comes after it.
        hosts: names that the Host header may have, against pages that make their own name lead here (DNS rebinding);
            None: any.
        token: that a client must show as `Authorization: Bearer`; None: none.
        metrics: counts answers.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str] | None, token: str | None, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith(_CLOSED):
                    headers.setdefault("Cache-Control", "no-store")
                self._count(scope, message["status"])
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
            await self._app(scope, receive, guarded)
        except Refused as error:
            await error.response()(scope, receive, guarded)
        except Exception:
            if started:
                raise
            await Refused(500, "internal error; the log of the server has more").response()(scope, receive, guarded)
            raise

    def _check(self, path: str, headers: Headers) -> None:
        """Refuse a request by its headers.

        Raises:
            Refused: another host, another origin, or no token.
        """
        host = headers.get("host", "")
        if self._hosts is not None and _name_of(host) not in self._hosts:
            raise Refused(421, "this server is not called by that name; use localhost")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Refused(403, "requests of pages from elsewhere are not served")
        if self._token is None or path in _OPEN or not path.startswith(_CLOSED):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            raise Refused(401, "a token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    def _count(self, scope: Scope, status: int) -> None:
        route = scope.get("route")
        path = getattr(route, "path", None) or "other"  # never the address itself: clients could fill the memory
        self._metrics.requests.labels(path, str(status)).inc()
        if status >= 400:
            self._metrics.errors.labels(str(status)).inc()


def local_names(host: str) -> list[str]:
    """Names by which a server on a local address may be called."""
    return [*_LOCAL, host]


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
