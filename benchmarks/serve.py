"""Serving: one raw event per JSON request over many connections, against a bare Starlette echo.

Both servers are processes of their own on one core; the client has another. The model is the
published 128-64-1 network behind the encoding of generated events.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import awkward as ak
import common
import data
import torch

from mlaas4hep_dask.bundle import write_bundle
from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.errors import MissingExtraError
from mlaas4hep_dask.export import to_torchscript
from mlaas4hep_dask.reader import Partition, read
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.network import mlp

try:
    import uvloop
except ModuleNotFoundError as error:
    sys.exit(str(MissingExtraError.of("bench", module=str(error.name))))

START_SECONDS = 120  # until a server must listen


class Connection(asyncio.Protocol):
    """One keep-alive connection that sends the next request when an answer is complete."""

    def __init__(self, requests: list[bytes], load: Load) -> None:
        self._requests = requests
        self._load = load
        self._place = 0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        if self._load.left <= 0:
            self._transport.close()
            return
        self._load.left -= 1
        self._began = time.perf_counter()
        self._transport.write(self._requests[self._place % len(self._requests)])
        self._place += 1

    def data_received(self, received: bytes) -> None:
        self._answer += received
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(re.search(rb"content-length: (\d+)", head.lower()).group(1))
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError((head + body).decode())
        self._answer = b""
        self._load.latencies.append(time.perf_counter() - self._began)
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._load.closed(error)


class Load:
    """A number of requests over some connections, and their latencies."""

    def __init__(self, left: int, connections: int) -> None:
        self.left = left
        self.latencies: list[float] = []
        self._open = connections
        self.done = asyncio.get_running_loop().create_future()

    def closed(self, error: Exception | None) -> None:
        self._open -= 1
        if not self.done.done():
            if error is not None:
                self.done.set_exception(error)
            elif self._open == 0:
                self.done.set_result(None)


def drive(port: int, path: str, bodies: list[bytes], requests: int, connections: int) -> Load:
    """Send requests and wait for all answers."""
    heads = [
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
        for body in bodies
    ]

    async def go() -> Load:
        load = Load(requests, connections)
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            await loop.create_connection(lambda: Connection(heads, load), "127.0.0.1", port)
        await load.done
        return load

    return uvloop.run(go())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def started(command: list[str], port: int, core: int) -> subprocess.Popen[bytes]:
    """A server process on a core, once it accepts connections."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, {core})
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.exit(f"{command} ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.05)  # between looks at whether it listens
    process.kill()
    sys.exit(f"{command} did not listen within {START_SECONDS} s")


def example_bundle(folder: Path, parsed: object) -> tuple[Path, list[bytes]]:
    """A bundle for generated events, and requests of one event each."""
    files = common.planned_files(parsed)
    first = files.partitions[0]
    part = Partition(first.file, first.tree, first.uuid, 0, min(1_000, len(first)), first.sample)
    events = read(part, files.branches)
    specs = measure(events, sample="any")
    encoding = Encoding.from_specs(specs)
    torch.manual_seed(0)
    bundle = write_bundle(
        folder / "bundle",
        name="benchmark",
        model=to_torchscript(mlp(encoding.layout.num_columns), encoding),
        specs=specs,
        encode={},
        metrics={},
        data={},
        card="",
    )
    records = ak.to_list(events.to_awkward()[:100])
    return bundle.path, [json.dumps({"events": [record]}).encode() for record in records]


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        connections={"type": int, "default": 100, "help": "connections at a time"},
    )
    requests = min(parsed.events, 20_000)
    parsed.events = data.CLUSTER_EVENTS  # enough to make requests from
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        bundle, bodies = example_bundle(Path(folder), parsed)
        ports = free_port(), free_port()
        here = str(Path(__file__).parent)
        try:
            ours = ["-m", "mlaas4hep_dask.serve", str(bundle), "--port", str(ports[0])]
            processes.append(started(ours, ports[0], cores[0]))
            processes.append(started([f"{here}/echo.py", str(ports[1])], ports[1], cores[0]))
            latencies: list[float] = []

            def predict() -> None:
                path = "/v1/models/benchmark/predict"
                load = drive(ports[0], path, bodies, requests, parsed.connections)
                latencies.extend(load.latencies)

            def echo() -> None:
                drive(ports[1], "/echo", bodies, requests, parsed.connections)

            result = common.compare(predict, echo, parsed.repeats)
        finally:
            for process in processes:
                process.terminate()
                process.wait(timeout=20)
    quantiles = statistics.quantiles(latencies, n=100)
    common.close(
        "serve",
        requests,
        result,
        reference="a bare Starlette echo of the same requests",
        cores=1,
        connections=parsed.connections,
        p50_ms=round(1e3 * quantiles[49], 3),
        p99_ms=round(1e3 * quantiles[98], 3),
        request_bytes=len(bodies[0]),
    )


if __name__ == "__main__":
    main()
