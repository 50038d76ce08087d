"""Where ranks find each other: a board that their cluster keeps, and no port of their own.

torch's own store listens at a port, and tells and obeys whoever connects. Ranks leave the addresses
of gloo's sockets on a board instead, which is reached as everything of the cluster is: with
certificates, where it has them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

import psutil
from torch.distributed import Store  # type: ignore[attr-defined]  # untyped there

from mlaas4hep_dask.errors import TrainingError

PAUSE, LONGEST_PAUSE = 0.005, 0.2  # seconds between looks at the board


class Board(Protocol):
    """Words that members of a gang leave for each other."""

    def leave(self, name: str, words: bytes) -> None:
        """Let all members find some words under a name."""

    def find(self, name: str) -> bytes | None:
        """What was left under a name; None when there is nothing yet."""

    def clear(self) -> None:
        """Take everything away."""

    def tell(self, facts: dict[str, Any]) -> None:
        """Tell who started the members where one stands that does not get on."""


class BoardStore(Store):
    """A store of torch's, as far as gloo and NCCL use one, on a board.

    Parameters
    ----------
    board : Board
        Of this meeting alone.
    rank : int
        Who looks, for messages.
    timeout : timedelta
        For how long another rank's words are waited for.
    is_abandoned : callable
        True when nobody will come any more.
    """

    def __init__(
        self, board: Board, *, rank: int, timeout: timedelta, is_abandoned: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._board = board
        self._rank = rank
        self._timeout = timeout
        self._is_abandoned = is_abandoned

    def set(self, key: str, value: bytes) -> None:  # type: ignore[override]  # gloo gives bytes
        """Leave a value under a key."""
        self._board.leave(key, bytes(value))

    def get(self, key: str) -> bytes:
        """The value of a key, once it is there.

        Raises
        ------
        TrainingError
            When it does not come in time, or the meeting was abandoned.
        """
        return self._wait(key, self._timeout)

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Wait until all keys have values; raises as `get`."""
        for key in keys:
            self._wait(key, timeout or self._timeout)

    def check(self, keys: list[str]) -> bool:
        """Whether all keys have values; a thread of NCCL's looks now and then."""
        return all(self._board.find(key) is not None for key in keys)

    def clone(self) -> BoardStore:
        """The same store: it may be used by several threads."""
        return self

    def _wait(self, key: str, timeout: timedelta) -> bytes:
        began, pause = time.monotonic(), PAUSE
        while (words := self._board.find(key)) is None:
            waited = time.monotonic() - began
            if self._is_abandoned() or waited > timeout.total_seconds():
                why = "training was abandoned" if self._is_abandoned() else "no answer"
                raise TrainingError(
                    f"{why} while rank {self._rank} waited {waited:.0f} s for the others to join",
                    rank=self._rank,
                    late=[key],
                )
            time.sleep(pause)  # between looks: the others import torch, or load their checkpoint
            pause = min(2 * pause, LONGEST_PAUSE)
        return words


def interface_of(host: str) -> str | None:
    """The network interface that has the address of a host, which is this one; None if unknown."""
    try:
        addresses_of_host = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address.partition("%")[0] in addresses_of_host for address in addresses):
            return name
    return None
