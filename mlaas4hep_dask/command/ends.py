"""How a command begins and ends: a first line at once, and an end by signals without a trace."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 30.0  # seconds in which a command that was ended has to clean up
INTERRUPTED, TERMINATED, HUNG_UP = 130, 143, 129  # exit statuses, as of a shell


class Terminated(KeyboardInterrupt):
    """SIGTERM has come: batch systems and service managers end processes so."""


class HungUp(KeyboardInterrupt):
    """SIGHUP has come: the terminal of the command was closed."""


def announce(text: str, stream: TextIO | None = None) -> None:
    """Print the first line of a command, before it imports what takes seconds."""
    stream = stream or sys.stdout
    stream.write(f"{text}\n")
    stream.flush()


def status_of(ended: KeyboardInterrupt) -> int:
    """The exit status of a command that was ended."""
    if isinstance(ended, HungUp):
        return HUNG_UP
    return TERMINATED if isinstance(ended, Terminated) else INTERRUPTED


@contextmanager
def may_be_cut() -> Iterator[None]:
    """Whoever reads the standard output may stop to, as in ``| head``."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # nothing is to be written at the end, either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def ended_by_signals(give_up: Callable[[], object]) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise a KeyboardInterrupt, `Terminated` or `HungUp`, once.

    What comes later is ignored: a second Ctrl-C would interrupt the cleaning up. After `GRACE`
    seconds ``give_up`` is called and the process ends all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return

    def stop(status: int) -> None:
        give_up()
        os._exit(status)

    def end(number: int, frame: Any) -> None:
        del frame
        for other in earlier:
            signal.signal(other, signal.SIG_IGN)
        kinds = {signal.SIGTERM: Terminated, signal.SIGHUP: HungUp}
        ended = kinds.get(signal.Signals(number), KeyboardInterrupt)()
        timer = threading.Timer(GRACE, stop, (status_of(ended),))
        timer.daemon = True
        timer.start()
        timers.append(timer)
        raise ended

    timers: list[threading.Timer] = []
    earlier = {number: signal.getsignal(number) for number in ENDING}
    for number, handler in earlier.items():
        if handler is not signal.SIG_IGN:  # such as SIGINT of a command in the background
            signal.signal(number, end)
    try:
        yield
    finally:
        # CPython notes an interrupt that leaves an exec of text, as modules do it while they are
        # imported, and would end by SIGINT, whatever the exit status; the next exec clears that.
        exec("")  # noqa: S102  # a constant
        for timer in timers:
            timer.cancel()
        for number, handler in earlier.items():
            signal.signal(number, handler)
