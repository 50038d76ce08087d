"""Tells a scheduler what happens in a run, for its page on the dashboard."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from mlaas4hep_dask.journal import End, Record
from mlaas4hep_dask.journal.records import to_json
from mlaas4hep_dask.waiting.topics import RECORDS

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

PROGRESS = "progress"  # the kind of record
INTERVAL = 0.5  # seconds between two messages
END_TIMEOUT = 5.0  # seconds for the last one


class Teller:
    """Sends records to the scheduler from a thread of its own: nothing waits for it.

    Of progress only the latest of each message is sent. When the scheduler does not take a message,
    nothing more is told: the records of a run are in its folder.

    Parameters
    ----------
    client : distributed.Client
        Of the scheduler.
    run : str
        What the run is known by; empty for what belongs to the cluster, as its jobs do.
    """

    def __init__(self, client: Client, run: str = "") -> None:
        self._client = client
        self._run = run
        self._queue: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._send, name="teller", daemon=True)

    def __enter__(self) -> Self:
        # What workers tell from now on is of this run, and not to be forgotten with the one before.
        if not self._run or self._log_event([]):
            self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self._run:
            line = str(error).partition("\n")[0]
            self.hear(End("failed" if isinstance(error, Exception) else "interrupted", line))
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join(END_TIMEOUT)

    def hear(self, record: Record) -> None:
        """Take a record of a journal."""
        self.tell(to_json(record))

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Take facts that are JSON values."""
        self._queue.put({"time": time.time(), **facts})

    def _send(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._is_over.wait(INTERVAL)
            records: list[dict[str, Any]] = []
            while not self._queue.empty():
                facts = self._queue.get()
                if records and facts.get("kind") == records[-1].get("kind") == PROGRESS:
                    records[-1] = facts
                else:
                    records.append(facts)
            if records and not self._log_event(records):
                return

    def _log_event(self, records: list[dict[str, Any]]) -> bool:
        """Send a message; False when the scheduler does not take it."""
        message = {"run": self._run, "records": records}
        try:
            log_event = self._client.scheduler.log_event
            self._client.sync(log_event, topic=RECORDS, msg=message, callback_timeout=END_TIMEOUT)
        except Exception as error:  # of whatever kind: the run goes on
            logger.info("the dashboard is told no more: %r", error)
            return False
        return True
