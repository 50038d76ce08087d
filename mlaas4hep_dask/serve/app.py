"""The Starlette application that serves bundles."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mlaas4hep_dask.errors import BundleError, PayloadError, did_you_mean, shown
from mlaas4hep_dask.score.batching import Batcher
from mlaas4hep_dask.score.parts import Scorable
from mlaas4hep_dask.score.scorer import Scorer, open_scorer
from mlaas4hep_dask.serve import cut
from mlaas4hep_dask.serve.body import MAX_BODY_BYTES, Bodies
from mlaas4hep_dask.serve.limits import MAX_VALUES
from mlaas4hep_dask.serve.parts import INLINE_BYTES, parts_of


def build_app(
    *bundle_paths: str | Path,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_values: int = MAX_VALUES,
) -> Starlette:
    """An ASGI application that serves the models of one or more bundles.

    The bundles are opened, verified and loaded when the application starts, which raises
    `BundleError` when one is altered or when two models have the same name. ``app.state.models``
    then maps names to models. ``app.state.drain()`` makes /health say that the application takes
    no more requests, and ``app.state.give_up()`` refuses those that wait.

    Parameters
    ----------
    *bundle_paths : str or Path
        Folders, or .tar.gz archives of them.
    max_body_bytes : int
        Largest request body.
    max_values : int
        Most values in it; names count as one, lists and objects as four.
    """
    service = _Service(bundle_paths, Bodies(max_body_bytes), max_values)
    app = Starlette(
        routes=[
            Route("/health", service.health),
            Route("/v1/models", service.list_models),
            Route("/v1/models/{name}", service.describe_model),
            Route("/v1/models/{name}/predict", service.predict, methods=["POST"]),
        ],
        exception_handlers={
            PayloadError: _answer_payload_error,
            HTTPException: _answer_http_error,
            Exception: _answer_failure,
        },
        lifespan=service.lifespan,
    )
    app.state.drain = service.drain
    app.state.give_up = service.give_up
    return app


# Of a body that was too large or too slow the rest is not waited for.
_HEADERS = {
    503: {"Retry-After": "1"},
    413: {"Connection": "close"},
    408: {"Connection": "close"},
}


class _Service:
    def __init__(self, paths: Sequence[str | Path], bodies: Bodies, max_values: int) -> None:
        self._paths = paths
        self._bodies = bodies
        self._max_values = max_values
        self._is_draining = False
        self._models: Mapping[str, Scorer] | None = None  # None until all are loaded
        self._batchers: Mapping[str, Batcher] = {}

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        # One scoring thread for all models, and one torch thread inside it: two of either are
        # slower on shared cores. Torch keeps the number per thread, so each is told.
        torch.set_num_threads(1)
        with (
            ThreadPoolExecutor(1, "score", torch.set_num_threads, (1,)) as executor,
            ThreadPoolExecutor(1, "cut") as self._cutter,
        ):
            cut.warm_up()
            models = await asyncio.get_running_loop().run_in_executor(executor, self._load)
            # Torch leaves a large graph of objects, which full collections would walk again
            # and again: 100 ms pauses.
            gc.collect()
            gc.freeze()
            self._batchers = {
                name: Batcher(model.score, executor) for name, model in models.items()
            }
            self._models = app.state.models = models
            yield
            for batcher in self._batchers.values():
                await batcher.drain()
        self._models = None
        gc.unfreeze()

    def _load(self) -> dict[str, Scorer]:
        models: dict[str, Scorer] = {}
        for path in self._paths:
            model = open_scorer(path)
            if model.name in models:
                raise BundleError(
                    f"{path}: a model named {model.name!r} is served already", path=str(path)
                )
            models[model.name] = model
        return models

    def drain(self) -> None:
        """Say that no more requests are taken; those that arrive are answered."""
        self._is_draining = True

    def give_up(self) -> None:
        """Refuse all requests that wait for scores."""
        for batcher in self._batchers.values():
            batcher.give_up()

    async def health(self, _request: Request) -> Response:
        if self._models is None:
            return _json({"status": "starting", "models": []}, status=503)
        if self._is_draining:
            return _json({"status": "draining", "models": list(self._models)}, status=503)
        return _json({"status": "ok", "models": list(self._models)})

    async def list_models(self, _request: Request) -> Response:
        return _json({"models": [model.describe() for model in self._loaded().values()]})

    async def describe_model(self, request: Request) -> Response:
        return _json(self._model(request).describe())

    async def predict(self, request: Request) -> Response:
        model = self._model(request)
        name = model.name
        try:
            async with self._bodies.read(request) as body:
                scored = await self._batchers[name].submit(await self._parts_of(body))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        return _json(
            {
                "model": name,
                "scores": scored.scores,
                **model.score_names,
                "counts": scored.counts.as_json(),
                "ignored": sorted(scored.ignored),
            }
        )

    async def _parts_of(self, body: bytearray) -> Sequence[Scorable]:
        if len(body) <= INLINE_BYTES:
            return parts_of(body)
        cutting = partial(parts_of, body, max_values=self._max_values)
        return await asyncio.get_running_loop().run_in_executor(self._cutter, cutting)

    def _loaded(self) -> Mapping[str, Scorer]:
        if self._models is None:
            raise HTTPException(503, "the server is starting", {"Retry-After": "1"})
        return self._models

    def _model(self, request: Request) -> Scorer:
        name = request.path_params["name"]
        models = self._loaded()
        if name not in models:
            near = did_you_mean(name[:100], models)
            raise HTTPException(404, f"no model named {shown(name)}{near}")
        return models[name]


def _json(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, "application/json")


def _error(
    message: str,
    *,
    status: int,
    event: int | None = None,
    branch: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    content = {"error": message, "event": event, "branch": branch}
    return _json(content, status=status, headers=headers)


async def _answer_payload_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, PayloadError)
    return _error(
        error.message,
        status=error.status,
        event=error.event,
        branch=error.branch,
        headers=_HEADERS.get(error.status),
    )


async def _answer_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = error.detail
    if message == "Not Found":
        message = "no such path; GET /v1/models lists the models"
    return _error(message, status=error.status_code, headers=error.headers)


async def _answer_failure(_request: Request, _failure: Exception) -> Response:
    return _error("the server failed to answer; its log says why", status=500)
