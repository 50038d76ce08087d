"""Runs Dask's scheduler in a process of its own, which ends with the one that started it.

``python -m mlaas4hep_dask.cluster.batch.scheduler`` reads one line of JSON from its input, prints
one with its addresses, and ends when its input is closed: also when the process that holds the
other end was killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


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
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Take the options from the input and serve."""
    import dask

    options = json.loads(sys.stdin.readline())
    dask.config.set(options["settings"])
    asyncio.run(serve(options))


if __name__ == "__main__":
    main()
