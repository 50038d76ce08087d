"""Answers in JSON, and the status of each error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mlaas4hep_dask.errors import (
    BusyError,
    EventError,
    MLaaSError,
    PayloadError,
    TooLargeError,
    UnknownModelError,
)

STATUSES: dict[type[MLaaSError], int] = {
    PayloadError: 400,
    UnknownModelError: 404,
    TooLargeError: 413,
    EventError: 422,
    BusyError: 503,
}
# Of a request that was too large the rest is not waited for.
_HEADERS = {413: {"Connection": "close"}, 503: {"Retry-After": "1"}}


def json_answer(content: Any, *, status: int = 200) -> Response:
    """An answer of JSON values and NumPy arrays."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")


def error_body(message: str, *, event: int | None = None, branch: str | None = None) -> bytes:
    """The JSON of every refusal."""
    return orjson.dumps({"error": message, "event": event, "branch": branch})


def _refusal(body: bytes, status: int, headers: Mapping[str, str] | None) -> Response:
    return Response(body, status, headers, "application/json")


async def _answer_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, MLaaSError)
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    facts = {name: error.facts.get(name) for name in ("event", "branch")}
    return _refusal(error_body(error.message, **facts), status, _HEADERS.get(status))


async def _answer_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = error.detail
    if message == "Not Found":
        message = "no such path; GET /v1/models lists the models"
    return _refusal(error_body(message), error.status_code, error.headers)


async def _answer_failure(_request: Request, _failure: Exception) -> Response:
    return _refusal(error_body("the server failed to answer; its log says why"), 500, None)


ERROR_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    **dict.fromkeys(STATUSES, _answer_error),
    HTTPException: _answer_http_error,
    Exception: _answer_failure,
}
