"""What a client is answered where it cannot be served: a status and one line, without paths and tracebacks."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from overtone.errors import printable

LOGGER = logging.getLogger("overtone.serving")
_LONGEST = 300  # characters of a message


class Refused(Exception):
    """A request that is not served.

    Attributes:
        status: of HTTP.
        message: why, and what to do, in one line.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})

    def response(self) -> JSONResponse:
        """The answer, `{"error": …}`."""
        return JSONResponse({"error": printable(self.message)[:_LONGEST]}, self.status, self.headers)


def busy(message: str, seconds: float) -> Refused:
    """503 with the time after which to try again."""
    return Refused(503, message, {"Retry-After": str(max(1, min(round(seconds), 30)))})


def handle_errors(app: FastAPI) -> None:
    """Answer every error of the application as `Refused` does."""

    async def refused(request: Request, error: Any) -> JSONResponse:
        return error.response()

    async def failed(request: Request, error: Any) -> JSONResponse:
        detail = (
            str(error.detail)
            if error.status_code != 404
            else "there is no such path, or not with this method; see /docs"
        )
        return Refused(error.status_code, detail, error.headers).response()

    async def invalid(request: Request, error: Any) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first.get("loc", ())[1:])
        return Refused(422, f"{where}: {first.get('msg', 'is not valid')}").response()

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, failed)
    app.add_exception_handler(RequestValidationError, invalid)
