"""Command line of the server."""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import logging
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mlaas4hep_dask.errors import MissingExtraError, MLaaSError
from mlaas4hep_dask.serve.body import MAX_BODY_BYTES
from mlaas4hep_dask.serve.hosts import LOOPBACK, Hosts
from mlaas4hep_dask.serve.limits import MAX_VALUES, Front, Limits

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from mlaas4hep_dask.serve.server import Server

KEEP_ALIVE_SECONDS = 5
EXTRA = ("httptools", "orjson", "starlette", "uvicorn", "uvloop")

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve bundles until a signal; the exit code is 2 when the user can mend what is wrong."""
    options = _parser().parse_args(argv)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        _require_extra()
        _serve(options)
    except (MLaaSError, OSError) as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 2
    return 0


def one_line(error: BaseException) -> str:
    """An error's text in one line that a terminal shows as it is, whatever others put into it."""
    words = " ".join(str(error).split())
    return "".join(c if c.isprintable() else c.encode("unicode-escape").decode() for c in words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mlaas4hep_dask.serve",
        description="Serve the models of bundles over HTTP.",
    )
    parser.add_argument(
        "bundles", metavar="BUNDLE", nargs="+", type=Path, help="RUN/bundle, or a .tar.gz of it"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", default=8000, type=_port, help="port; 0 picks a free one (%(default)s)"
    )
    parser.add_argument(
        "--max-body-bytes",
        default=MAX_BODY_BYTES,
        type=_positive,
        help="largest request body (%(default)s)",
    )
    parser.add_argument(
        "--max-values",
        default=MAX_VALUES,
        type=_positive,
        help="most values in a request; names count as one, lists and objects as four "
        "(%(default)s)",
    )
    parser.add_argument(
        "--allowed-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name that the server answers to beside its address, as a proxy sends it; "
        "may be given several times; '*' stands for all",
    )
    parser.add_argument(
        "--max-connections",
        default=Limits().connections,
        type=_positive,
        help="largest number of connections (%(default)s)",
    )
    parser.add_argument(
        "--max-connections-per-address",
        default=None,
        type=_positive,
        help="largest number of connections of one client's address (half of all)",
    )
    parser.add_argument(
        "--keep-alive-seconds",
        default=KEEP_ALIVE_SECONDS,
        type=_positive,
        help="how long a connection without a request stays open (%(default)s)",
    )
    parser.add_argument(
        "--log-level",
        default="warning",
        choices=("debug", "info", "warning", "error"),
        help="least severe messages that are logged (%(default)s)",
    )
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _require_extra() -> None:
    for module in EXTRA:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise MissingExtraError.of("serve", module=module) from error


def _serve(options: argparse.Namespace) -> None:
    import uvloop

    from mlaas4hep_dask.serve.app import build_app
    from mlaas4hep_dask.serve.connection import require_uvicorn
    from mlaas4hep_dask.serve.server import Server, fitting

    require_uvicorn()
    most = options.max_connections
    per_address = options.max_connections_per_address or max(1, most // 2)
    limits = fitting(Limits(connections=most, connections_per_address=per_address))
    if limits.connections < most:
        logger.warning(
            "at most %d connections: the system lets the process have no more files open",
            limits.connections,
        )
    app = build_app(
        *options.bundles, max_body_bytes=options.max_body_bytes, max_values=options.max_values
    )
    server = Server(
        app,
        Front(limits, Hosts(options.host, options.allowed_host)),
        keep_alive_seconds=options.keep_alive_seconds,
        on_drain=app.state.drain,
        on_give_up=app.state.give_up,
    )

    def stop(*_: Any) -> None:
        server.should_exit = True

    # Uvicorn hands signals on after it has shut down; the lifespan has still to end then.
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    with _listen(options.host, options.port) as listener:
        if options.host not in LOOPBACK:
            logger.warning(
                "%s may be reached by others; the server asks nobody's name", options.host
            )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(server, app, listener, _url(options.host, listener)))
    # The last collection of a process would walk all of torch once more: 1.4 s of a processor.
    gc.freeze()


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


def _announce(models: dict[str, Any], url: str) -> None:
    """Tell where each model is; clients that come before the server loop starts just queue."""
    import orjson

    lines = []
    for name, model in models.items():
        target = f"{url}/v1/models/{quote(name)}/predict"
        body = orjson.dumps({"events": [model.example()]}).decode()
        request = f"-d {shlex.quote(body)} {shlex.quote(target)}"
        lines.append(f"serving model {name!r} at {target}")
        lines.append(f"curl -H 'Content-Type: application/json' {request}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
