"""What a protocol is: how clients ask for scores and are answered.

To add one, write a class of `Protocol` in a module of its own and name it in
`mlaas4hep_dask.serve.app.PROTOCOLS`. It turns what clients send into parts: `Records`, `Columns`,
or a form of its own, see `mlaas4hep_dask.score.parts`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.routing import BaseRoute

from mlaas4hep_dask.score.service import Service
from mlaas4hep_dask.serve.body import Bodies


@dataclass(frozen=True)
class Backing:
    """What all protocols of a server share.

    Parameters
    ----------
    service : Service
        Scores events.
    bodies : Bodies
        Reads the bodies of requests within limits.
    max_values : int
        Most values in a request.
    """

    service: Service
    bodies: Bodies
    max_values: int


class Protocol:
    """How clients ask for scores and are answered.

    Errors of scoring may be raised from a route: each has its status.

    Parameters
    ----------
    backing : Backing
        What all protocols of a server share.
    """

    def __init__(self, backing: Backing) -> None:
        self.backing = backing

    def routes(self) -> Sequence[BaseRoute]:
        """Where HTTP requests of this protocol arrive; none for one that is not HTTP."""
        return ()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Holds what the protocol needs, such as a listener of its own, while models are there."""
        yield
