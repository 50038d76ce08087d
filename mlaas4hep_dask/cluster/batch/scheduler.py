"""Runs Dask's scheduler in a process of its own, which ends with the one that started it.

``python -m mlaas4hep_dask.cluster.batch.scheduler`` reads one line of JSON from its input, prints
one with its addresses, and ends when its input is closed: also when the process that holds the
other end was killed. That has said no goodbye then, and its jobs and keys are ended from here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from mlaas4hep_dask.cluster.batch.leftovers import sweep
from mlaas4hep_dask.cluster.batch.records import Driver

GOODBYE = "goodbye"  # of a driver that has ended its jobs itself


async def serve(options: dict[str, Any]) -> None:
    """Run a scheduler until the input is closed; it takes the first port that is free."""
    from distributed import Scheduler
    from distributed.security import Security

    security = Security(**options["security"]) if options["security"] else None
    ports = list(options["ports"])
    while True:
        scheduler = Scheduler(
            port=ports.pop(0),
            protocol="tls" if security else "tcp",
            security=security,
            **options["scheduler"],
        )
        try:
            await scheduler
            break
        except (OSError, RuntimeError):  # of a port that another process has
            await scheduler.close()
            if not ports:
                raise
    async with scheduler:
        port = scheduler.services["dashboard"].port if scheduler.services else None
        sys.stdout.write(json.dumps({"address": scheduler.address, "dashboard": port}) + "\n")
        sys.stdout.flush()
        loop = asyncio.get_running_loop()
        words = await loop.run_in_executor(None, sys.stdin.read)
        ending = None
        if options.get("driver") and GOODBYE not in words:
            driver, folder = Driver.of(options["driver"]), Path(options["folder"])
            ending = loop.run_in_executor(None, sweep, driver, folder)
    if ending is not None:
        await ending


def main() -> None:
    """Take the options from the input and serve."""
    import dask

    options = json.loads(sys.stdin.readline())
    dask.config.set(options["settings"])
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
