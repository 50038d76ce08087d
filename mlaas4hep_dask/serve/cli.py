"""Command line of the server."""

from __future__ import annotations

import argparse
import asyncio
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

if TYPE_CHECKING:
    from starlette.applications import Starlette

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
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


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
    import uvicorn
    import uvloop

    from mlaas4hep_dask.serve.app import build_app

    app = build_app(*options.bundles, max_body_bytes=options.max_body_bytes)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="httptools",
            lifespan="off",  # entered below, where its errors arrive as they are
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=30,
        )
    )

    def stop(*_: Any) -> None:
        server.should_exit = True

    # Uvicorn hands signals on after it has shut down; the lifespan has still to end then.
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    with _listen(options.host, options.port) as listener:
        if options.host not in ("127.0.0.1", "::1", "localhost"):
            logger.warning(
                "%s may be reached by others; the server asks nobody's name", options.host
            )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(server, app, listener, _url(options.host, listener)))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


def _url(host: str, listener: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


async def _run(server: Any, app: Starlette, listener: socket.socket, url: str) -> None:
    async with app.router.lifespan_context(app):
        _announce(app.state.models, url)
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
