"""How a command begins and ends: a first line at once, and an end by signals without a trace."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TextIO

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 30.0  # seconds in which a command that was ended has to clean up
AGAIN = 0.05  # seconds after which an interrupt that was swallowed is raised again
INTERRUPTED, TERMINATED, HUNG_UP = 130, 143, 129  # exit statuses, as of a shell
_CAME, _SWALLOWED, _OVER = b"c", b"s", b"o"  # what the guard is told


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


def interrupt_of(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that an error is, or has come from; None if it has another reason.

    What cleans up after an interrupt may fail, such as a wait for a worker that was ended too.
    """
    earlier: list[BaseException] = []
    while error is not None and not any(error is other for other in earlier):
        if isinstance(error, KeyboardInterrupt):
            return error
        earlier.append(error)
        error = error.__cause__ or error.__context__
    return None


@contextmanager
def may_be_cut() -> Iterator[None]:
    """Whoever reads the standard output may stop to, as in ``| head``."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # nothing is to be written at the end, either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP wait until the block has ended, as when Dask starts or ends.

    To mask them would not do: threads of libraries, such as those of OpenBLAS, take them then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    came: list[int] = []
    earlier = {number: signal.getsignal(number) for number in ENDING}
    heard = {number: old for number, old in earlier.items() if old not in (signal.SIG_IGN, None)}
    for number in heard:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def whole_stack() -> Iterator[ExitStack]:
    """A stack for what Dask starts; a signal while it is unwound waits: it would be half closed."""
    stack = ExitStack()
    try:
        yield stack
    finally:
        with signals_wait():
            stack.close()


@contextmanager
def ended_by_signals(give_up: Callable[[], object], *, last: bool = False) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise a KeyboardInterrupt, `Terminated` or `HungUp`, once.

    What comes later is ignored: a second Ctrl-C would interrupt the cleaning up. After `GRACE`
    seconds ``give_up`` is called and the process ends all the same. An interrupt that Python
    would print and forget, as it does with what a destructor raises, is raised again.

    Parameters
    ----------
    give_up : function
        Called in another thread before the process is ended.
    last : bool
        Whether the process ends after the block: what comes then is ignored, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    ending = _Ending(give_up)
    ending.hear()
    try:
        yield
    finally:
        # CPython notes an interrupt that leaves an exec of text, as modules do it while they are
        # imported, and would end by SIGINT, whatever the exit status; the next exec clears that.
        exec("")  # noqa: S102  # a constant
        if last:
            ending.ignore()
        else:
            ending.stop()


class _Ending:
    """The handler of signals, and a thread that guards the end of the process.

    A handler runs between any two steps of the main thread, which may hold any lock, also those
    of `threading`. So it starts nothing and waits for nothing: it tells the guard by one byte.
    """

    def __init__(self, give_up: Callable[[], object]) -> None:
        self._give_up = give_up
        self._number: int | None = None  # of the signal that has come
        self._earlier = {number: signal.getsignal(number) for number in ENDING}
        self._heard = [n for n, old in self._earlier.items() if old is not signal.SIG_IGN]
        self._hook = sys.unraisablehook
        self._told, self._teller = os.pipe()
        self._process, self._main = os.getpid(), threading.get_ident()
        self._guard = threading.Thread(target=self._watch, daemon=True, name="guard of the end")

    def hear(self) -> None:
        """Take the signals, but for those that are ignored, as SIGINT of a background command."""
        self._guard.start()
        sys.unraisablehook = self._look
        for number in self._heard:
            signal.signal(number, self._end)

    def ignore(self) -> None:
        """Let no signal interrupt the end of the process, unless that takes too long."""
        for number in self._heard:
            signal.signal(number, self._note)

    def stop(self) -> None:
        """Give the signals back."""
        self._tell(_OVER)
        self._guard.join()
        sys.unraisablehook = self._hook
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        os.close(self._told)
        os.close(self._teller)

    def _end(self, number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code is _Ending._look.__code__:  # out of which nothing can be raised
                self._tell(_SWALLOWED)
                return
            frame = frame.f_back
        for other in self._heard:
            signal.signal(other, signal.SIG_IGN)
        self._note(number, None)
        raise _interrupt(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._number = self._number or number
        self._tell(_CAME)

    def _look(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Look at what Python prints and forgets, since nobody can catch it."""
        is_ours = threading.get_ident() == self._main and interrupt_of(unraisable.exc_value)
        if self._number is None or not is_ours:
            self._hook(unraisable)
            return
        signal.signal(self._number, self._end)
        self._tell(_SWALLOWED)

    def _tell(self, word: bytes) -> None:
        if os.getpid() == self._process:  # else it was forked, and has no guard
            os.write(self._teller, word)

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._told, select.POLLIN)
        deadline: float | None = None
        while poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
            word = os.read(self._told, 1)
            if word == _OVER:
                return
            deadline = deadline or time.monotonic() + GRACE
            if word == _SWALLOWED:
                time.sleep(AGAIN)  # until the main thread has left the place
                signal.pthread_kill(self._main, self._number or signal.SIGINT)
        self._give_up()
        os._exit(status_of(_interrupt(self._number or signal.SIGINT)))


def _interrupt(number: int) -> KeyboardInterrupt:
    kinds = {signal.SIGTERM: Terminated, signal.SIGHUP: HungUp}
    return kinds.get(signal.Signals(number), KeyboardInterrupt)()
