"""Runs the whole command and tells the processor seconds of each stage, of all its processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil

INTERVAL = 0.02  # seconds between two looks at the journal


class Stage(NamedTuple):
    """One stage: processor seconds of all processes, and seconds on the clock."""

    cpu: float
    wall: float


def run_stages(config: Path, output: Path, *more: str) -> dict[str, Stage]:
    """The stages of a run of ``mlaas4hep run``, by name; what is in none of them is ``other``.

    The journal tells when a stage begins and ends. Processor seconds are read from the system at
    these moments, for the command and all that descend from it: imports, scheduler and client are
    in them. Stages before the journal has a file, which are start and plan, are ``other``.
    """
    command = ["-m", "mlaas4hep_dask.run", str(config), "--output", str(output), *more]
    log = output.with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, *command], stdout=stream, stderr=stream)
    began = time.perf_counter()
    spent = _Spent(process.pid)
    journal, seen, entered = output / "journal.jsonl", 0, 0.0
    stages: dict[str, Stage] = {}
    while process.poll() is None:
        time.sleep(INTERVAL)
        if not journal.exists():
            continue
        lines = journal.read_text().split("\n")[:-1]
        records = [json.loads(line) for line in lines[seen:]]
        seen = len(lines)
        for record in records:
            if record["kind"] == "stage":
                entered = spent.now()
            elif record["kind"] == "stage_end" and record["stage"] not in ("start", "plan"):
                stages[record["stage"]] = Stage(spent.now() - entered, record["seconds"])
    if process.returncode:
        sys.exit(log.read_text())
    total = Stage(spent.last, time.perf_counter() - began)
    other = (sum(stage[i] for stage in stages.values()) for i in range(2))
    return {**stages, "other": Stage(*(a - b for a, b in zip(total, other, strict=True)))}


class _Spent:
    """Processor seconds of a process and all its descendants, those that have ended too."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seconds: dict[psutil.Process, float] = {}
        self.last = 0.0

    def now(self) -> float:
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return self.last
        for process in processes:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            self._seconds[process] = times.user + times.system
        self.last = sum(self._seconds.values())
        return self.last
