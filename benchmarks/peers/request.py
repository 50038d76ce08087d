"""How `peers.py` talks to a loader: a request, then an epoch for every line, over pipes."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


def answer(prepare: Callable[[dict[str, Any]], Callable[[], Iterator[tuple[int, int]]]]) -> None:
    """Serve epochs on standard input and output.

    ``prepare`` takes the request and returns what makes the batches of one epoch: for each its
    number of events and its bytes. The process stays on one core.
    """
    request = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, {request["core"]})
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # peers print
    epoch = prepare(request)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        events = size = batches = 0
        for num_events, num_bytes in epoch():
            events += num_events
            size += num_bytes
            batches += 1
        found = {
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - processor,
            "events": events,
            "bytes": size,
            "batches": batches,
        }
        print(json.dumps(found), file=answers, flush=True)
