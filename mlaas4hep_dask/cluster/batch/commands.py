"""Runs commands of a batch system, each for a limited time that can be made shorter at any time."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Mapping

COMMAND_TIMEOUT = 60.0  # seconds; a busy controller takes some of them
SLICE = 0.1  # seconds after which a command that still runs is looked at again


class Commands:
    """Runs commands, from any thread.

    Parameters
    ----------
    seconds : float
        In which each has to end.
    """

    def __init__(self, seconds: float = COMMAND_TIMEOUT) -> None:
        self._seconds = seconds
        self._hurried = -math.inf, seconds

    def hurry(self, seconds: float) -> None:
        """Give all that run, and all later ones, no more than so many seconds from now on."""
        self._hurried = time.monotonic(), seconds

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What a command printed, and its exit status.

        Raises
        ------
        TimeoutError
            When it was ended since it took too long.
        OSError
            When it cannot be run, as one that is missing.
        """
        began = time.monotonic()
        with subprocess.Popen(  # noqa: S603  # commands of the batch system
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            while True:
                try:
                    output, errors = process.communicate(timeout=SLICE)
                except subprocess.TimeoutExpired:
                    waited = time.monotonic() - began
                    if waited > self._limit(began):
                        process.kill()
                        raise TimeoutError(
                            f"{command[0]} did not answer within {waited:.0f} s"
                        ) from None
                except BaseException:
                    process.kill()
                    raise
                else:
                    return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def _limit(self, began: float) -> float:
        """Seconds that a command may take."""
        since, seconds = self._hurried
        return min(self._seconds, max(0.0, since - began) + seconds)


def words_of(process: subprocess.CompletedProcess[str]) -> str:
    """What a command said, in one line; its exit status if it said nothing."""
    return (
        " ".join((process.stderr or process.stdout).split()) or f"exit status {process.returncode}"
    )
