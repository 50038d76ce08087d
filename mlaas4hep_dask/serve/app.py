"""The Starlette application that serves bundles."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mlaas4hep_dask.errors import BundleError
from mlaas4hep_dask.score.service import Service
from mlaas4hep_dask.serve.answers import ERROR_HANDLERS, json_answer
from mlaas4hep_dask.serve.body import MAX_BODY_BYTES, Bodies
from mlaas4hep_dask.serve.limits import MAX_VALUES, STOPPING
from mlaas4hep_dask.serve.protocol import Backing, Protocol
from mlaas4hep_dask.serve.rest import Rest

PROTOCOLS: tuple[type[Protocol], ...] = (Rest,)


def build_app(
    *bundle_paths: str | Path,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_values: int = MAX_VALUES,
) -> Starlette:
    """An ASGI application that serves the models of one or more bundles.

    The bundles are opened, verified and loaded when the application starts, which raises
    `BundleError` when one is altered or when two models have the same name. ``app.state.models``
    then maps names to scorers. ``app.state.drain()`` makes /health say that the application takes
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
    service = Service(bundle_paths, stopping=STOPPING)
    backing = Backing(service, Bodies(max_body_bytes), max_values)
    protocols = [protocol(backing) for protocol in PROTOCOLS]

    async def health(_request: Request) -> Response:
        return _health(service)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(service.running())
            for path, name in zip(service.paths, service.scorers, strict=True):
                _require_name_for_url(path, name)
            app.state.models = service.scorers
            for protocol in protocols:
                await stack.enter_async_context(protocol.running())
            # Torch leaves a large graph of objects, which full collections would walk again
            # and again: 100 ms pauses.
            gc.collect()
            gc.freeze()
            yield
        gc.unfreeze()

    app = Starlette(
        routes=[
            Route("/health", health),
            *(route for protocol in protocols for route in protocol.routes()),
        ],
        exception_handlers=ERROR_HANDLERS,
        lifespan=lifespan,
    )

    def drain() -> None:
        service.drain()
        backing.bodies.drain()

    app.state.drain = drain
    app.state.give_up = service.give_up
    return app


def _health(service: Service) -> Response:
    if not service.is_loaded:
        return json_answer({"status": "starting", "models": []}, status=503)
    names = list(service.scorers)
    if service.is_draining:
        return json_answer({"status": "draining", "models": names}, status=503)
    return json_answer({"status": "ok", "models": names})


def _require_name_for_url(path: str | Path, name: str) -> None:
    if not name or "/" in name or not name.isprintable():
        raise BundleError.at(path, f"model name {name!r} cannot stand in a URL")
