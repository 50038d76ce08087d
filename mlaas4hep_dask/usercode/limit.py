"""Ends what users wrote when it is tried on a few events and does not come back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Seconds for what is tried on a thousand events before a run. What takes so long for these would
# take a week for a hundred million on as many cores as a large cluster has.
TRIAL_SECONDS = 300.0
AGAIN = 30.0  # seconds after which code that went on all the same is ended again


@contextmanager
def limited(seconds: float = TRIAL_SECONDS) -> Iterator[None]:
    """Raise a TimeoutError in code that takes longer than so many seconds, where that code is.

    Only the main thread can be ended so, and only while it runs Python code: elsewhere this has no
    effect, and who waits for the thread has to have a bound.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number: int, frame: Any) -> None:
        del number, frame
        raise TimeoutError(f"it has not come back for {seconds:g} s")

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, late)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if remaining:  # whoever waits for an alarm gets it
            rest = max(remaining - (time.monotonic() - began), 0.001)
            signal.setitimer(signal.ITIMER_REAL, rest, interval)
