"""Serving: one raw event per JSON request over many connections, against a bare Starlette echo.

Both servers are processes of their own on one core; the client has another. The model is the
published 128-64-1 network behind the encoding of generated events. A third process serves the
same application without limits of connections. With ``--attack`` the client that behaves is one
alone, and others, on its core, do what they can to take the server from it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
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
import psutil
import torch
from attacks import ATTACKS

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

HERE = Path(__file__).parent
PREDICT = "/v1/models/benchmark/predict"
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


def request_of(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def drive(port: int, path: str, bodies: list[bytes], requests: int, connections: int) -> Load:
    """Send requests and wait for all answers."""
    heads = [request_of(path, body) for body in bodies]

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
        encode={"normalisation": "auto"},
        metrics={},
        data={},
        card="",
    )
    records = ak.to_list(events.to_awkward()[:100])
    return bundle.path, [json.dumps({"events": [record]}).encode() for record in records]


async def paced(port: int, path: str, bodies: list[bytes], seconds: float) -> list[float]:
    """Latencies of one client that asks, waits for its answer, and pauses."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    latencies = []
    until = time.perf_counter() + seconds
    for body in itertools.cycle(bodies):
        if time.perf_counter() > until:
            break
        began = time.perf_counter()
        writer.write(request_of(path, body))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head.lower()).group(1))
        answer = await reader.readexactly(length)
        latencies.append(time.perf_counter() - began)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError((head + answer).decode())
        await asyncio.sleep(0.002)
    writer.close()
    return latencies


def percentiles(latencies: list[float]) -> tuple[float, float, float]:
    """p50, p99 and the longest, in milliseconds."""
    quantiles = statistics.quantiles(latencies, n=100)
    return tuple(round(1e3 * value, 2) for value in (quantiles[49], quantiles[98], max(latencies)))


def under_attack(
    server: subprocess.Popen[bytes],
    port: int,
    bodies: list[bytes],
    names: list[str],
    seconds: float,
) -> dict[str, object]:
    """The latencies of a client that behaves, with and without each attack, in one run."""
    process = psutil.Process(server.pid)
    found: dict[str, object] = {}
    uvloop.run(paced(port, PREDICT, bodies, 1))  # the first answer comes when the model is loaded
    print(f"{'attack':12} {'p50 ms':>16} {'p99 ms':>16} {'longest ms':>18} {'memory MB':>10}")
    for name in names:
        without = percentiles(uvloop.run(paced(port, PREDICT, bodies, seconds)))
        attacking = subprocess.Popen(
            [sys.executable, str(HERE / "attacks.py"), name, str(port), str(seconds + 1)],
            preexec_fn=lambda: os.nice(10),  # the client that behaves has this core first
            stdout=subprocess.PIPE,
            text=True,
        )
        if attacking.stdout.readline() != "connected\n":  # it has ended, and said why
            sys.exit(f"the attack {name} has not begun")
        during = percentiles(uvloop.run(paced(port, PREDICT, bodies, seconds)))
        attacking.wait(timeout=60)
        memory = process.memory_info().rss // 2**20
        pairs = [f"{a:g} -> {b:g}" for a, b in zip(without, during, strict=True)]
        print(f"{name:12} {pairs[0]:>16} {pairs[1]:>16} {pairs[2]:>18} {memory:>10}", flush=True)
        found[name] = {"without": without, "during": during, "memory_mb": memory}
    return found


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        connections={"type": int, "default": 100, "help": "connections at a time"},
        attack={
            "nargs": "*",
            "choices": list(ATTACKS),
            "default": None,
            "help": "what another client sees of these attacks, or of all, instead",
        },
        seconds={"type": float, "default": 3.0, "help": "of each attack"},
    )
    requests = min(parsed.events, 20_000)
    parsed.events = data.CLUSTER_EVENTS  # enough to make requests from
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        bundle, bodies = example_bundle(Path(folder), parsed)
        ports = [free_port() for _ in range(3)]
        ours = ["-m", "mlaas4hep_dask.serve", str(bundle), "--port", str(ports[0])]
        plain = [str(HERE / "plain.py"), str(bundle), str(ports[1])]
        echo = [str(HERE / "echo.py"), str(ports[2])]
        try:
            processes.append(started(ours, ports[0], cores[0]))
            if parsed.attack is not None:
                names = parsed.attack or list(ATTACKS)
                found = under_attack(processes[0], ports[0], bodies, names, parsed.seconds)
                print(json.dumps({"stage": "serve --attack", "attacks": found}))
                return
            processes.append(started(plain, ports[1], cores[0]))
            processes.append(started(echo, ports[2], cores[0]))
            compare_servers(parsed, ports, processes, bodies, requests)
        finally:
            for process in processes:
                process.terminate()
                process.wait(timeout=20)


def compare_servers(
    parsed: argparse.Namespace,
    ports: list[int],
    processes: list[subprocess.Popen[bytes]],
    bodies: list[bytes],
    requests: int,
) -> None:
    """Ours against an echo, and against the same application without limits of connections."""
    latencies: list[float] = []
    cpu: dict[str, list[float]] = {"ours": [], "plain": [], "echo": []}

    def run(name: str, place: int, path: str) -> None:
        process = psutil.Process(processes[place].pid)
        before = sum(process.cpu_times()[:2])
        load = drive(ports[place], path, bodies, requests, parsed.connections)
        cpu[name].append((sum(process.cpu_times()[:2]) - before) / requests)
        if name == "ours":
            latencies.extend(load.latencies)

    results = common.compare_with(
        lambda: run("ours", 0, PREDICT),
        {"plain": lambda: run("plain", 1, PREDICT), "echo": lambda: run("echo", 2, "/echo")},
        parsed.repeats,
    )
    p50, p99, _ = percentiles(latencies)
    common.close(
        "serve",
        requests,
        results["echo"],
        reference="a bare Starlette echo of the same requests",
        cores=1,
        connections=parsed.connections,
        p50_ms=p50,
        p99_ms=p99,
        request_bytes=len(bodies[0]),
        ratio_without_limits_of_connections=round(results["plain"].ratio, 4),
        cpu_us_per_request={
            name: round(1e6 * statistics.median(spent[1:]), 1) for name, spent in cpu.items()
        },
    )


if __name__ == "__main__":
    main()
