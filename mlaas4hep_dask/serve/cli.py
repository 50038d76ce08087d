"""The command line: ``mlaas4hep serve RUN/bundle``."""

from __future__ import annotations

import asyncio
import importlib
import logging
import shlex
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from mlaas4hep_dask.command import (
    Verb,
    announce,
    arguments_of,
    count_option,
    process,
    status,
    version_option,
)
from mlaas4hep_dask.errors import MissingExtraError, MLaaSError, ServerError
from mlaas4hep_dask.serve.body import MAX_BODY_BYTES
from mlaas4hep_dask.serve.hosts import LOOPBACK, Hosts
from mlaas4hep_dask.serve.limits import MAX_VALUES, Front, Limits

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from mlaas4hep_dask.score.scorer import Scorer
    from mlaas4hep_dask.serve.server import Server

NAME = "python -m mlaas4hep_dask.serve"
KEEP_ALIVE_SECONDS = 5
EXTRA = ("httptools", "orjson", "starlette", "uvicorn", "uvloop")

logger = logging.getLogger(__name__)


@click.command(
    "serve",
    cls=Verb,
    short_help="Serve the models of bundles over HTTP.",
    examples=(
        "RUN/bundle",
        "RUN/bundle other/bundle.tar.gz --port 9000",
        "RUN/bundle --host 0.0.0.0 --allowed-host models.example.org",
    ),
)
@click.argument(
    "bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    metavar="N",
    type=click.IntRange(0, 65535),
    help="Port; 0 picks a free one.",
)
@count_option("--max-body-bytes", "Largest request body.", default=MAX_BODY_BYTES)
@count_option(
    "--max-values",
    "Most values in a request; names count as one, lists and objects as four.",
    default=MAX_VALUES,
)
@click.option(
    "--allowed-host",
    metavar="NAME",
    multiple=True,
    help="A name that the server answers to beside its address, as a proxy sends it; may be "
    "repeated; '*' stands for all.",
)
@count_option("--max-connections", "Largest number of connections.", default=Limits().connections)
@count_option(
    "--max-connections-per-address",
    "Largest number of connections of one client's address; half of all by default.",
)
@count_option(
    "--keep-alive-seconds",
    "How long a connection without a request stays open.",
    default=KEEP_ALIVE_SECONDS,
)
@click.option(
    "--log-level",
    default="warning",
    show_default=True,
    type=click.Choice(("debug", "info", "warning", "error")),
    help="Least severe messages that are logged.",
)
@version_option
@click.pass_context
def serve(
    context: click.Context, /, bundles: Sequence[Path], log_level: str, **options: Any
) -> None:
    """Serve the models of bundles over HTTP, until a signal.

    A BUNDLE is RUN/bundle, or a .tar.gz of it.
    """
    # The standard output tells where models are, for programs too.
    announce(f"serve: {arguments_of(context)}", sys.stderr)
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        _require_extra()
        _serve(bundles, **options)
    except (MLaaSError, OSError) as error:  # in one line, which a log of a service needs
        raise ServerError(" ".join(str(error).split())) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve bundles until a signal; the exit status."""
    return status(serve, arguments, name=NAME)


def command() -> int:
    """Run the command as a process of its own, which ends when this returns."""
    return process(serve, name=NAME)


def _require_extra() -> None:
    for module in EXTRA:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise MissingExtraError.of("serve", module=module) from error


def _serve(
    bundles: Sequence[Path],
    *,
    host: str,
    port: int,
    max_body_bytes: int,
    max_values: int,
    allowed_host: Sequence[str],
    max_connections: int,
    max_connections_per_address: int | None,
    keep_alive_seconds: int,
) -> None:
    import uvloop

    from mlaas4hep_dask.serve.app import build_app
    from mlaas4hep_dask.serve.connection import require_uvicorn
    from mlaas4hep_dask.serve.server import Server, fitting

    require_uvicorn()
    per_address = max_connections_per_address or max(1, max_connections // 2)
    limits = fitting(Limits(connections=max_connections, connections_per_address=per_address))
    if limits.connections < max_connections:
        logger.warning(
            "at most %d connections: the system lets the process have no more files open",
            limits.connections,
        )
    app = build_app(*bundles, max_body_bytes=max_body_bytes, max_values=max_values)
    server = Server(
        app,
        Front(limits, Hosts(host, allowed_host)),
        keep_alive_seconds=keep_alive_seconds,
        on_drain=app.state.drain,
        on_give_up=app.state.give_up,
    )

    def stop(*_: Any) -> None:
        server.should_exit = True

    # Uvicorn hands signals on after it has shut down; the lifespan has still to end then.
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    with _listen(host, port) as listener:
        if host not in LOOPBACK:
            logger.warning("%s may be reached by others; the server asks nobody's name", host)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(server, app, listener, _url(host, listener)))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


def _url(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


async def _run(server: Server, app: Starlette, listener: socket.socket, url: str) -> None:
    async with app.router.lifespan_context(app):
        _announce(app.state.models, url)
        async with server.watched():
            await server.serve(sockets=[listener])


def _announce(scorers: Mapping[str, Scorer], url: str) -> None:
    """Tell where each model is; clients that come before the server loop starts just queue."""
    import orjson

    from mlaas4hep_dask.score.example import example_of

    lines = []
    for name, scorer in scorers.items():
        target = f"{url}/v1/models/{quote(name)}/predict"
        body = orjson.dumps({"events": [example_of(scorer.bundle)]}).decode()
        request = f"-d {shlex.quote(body)} {shlex.quote(target)}"
        lines.append(f"serving model {name!r} at {target}")
        lines.append(f"curl -H 'Content-Type: application/json' {request}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
