"""Adds the page to the dashboard of a scheduler, and folds in there what is told."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin

from mlaas4hep_dask.cluster.page.board import Board
from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.waiting.topics import RECORDS, SAMPLES
from mlaas4hep_dask.waiting.waits import asked

if TYPE_CHECKING:
    from distributed import Client, Scheduler

logger = logging.getLogger(__name__)

PATH = "mlaas4hep"  # of the page, beside Dask's own


class Page(SchedulerPlugin):  # type: ignore[misc]  # of a library without types
    """The board of what was told to a scheduler, and its page.

    Attributes
    ----------
    board : Board
        What is shown.
    """

    name = "mlaas4hep_dask-page"
    idempotent = True

    def __init__(self) -> None:
        self.board = Board()
        self._application: Any = None

    async def start(self, scheduler: Scheduler) -> None:
        """Add the page, if the scheduler has a dashboard.

        Raises
        ------
        ImportError
            Without bokeh.
        """
        from bokeh.server.tornado import BokehTornado
        from distributed.dashboard.core import BokehApplication
        from distributed.dashboard.scheduler import template_variables
        from tornado.ioloop import IOLoop

        from mlaas4hep_dask.cluster.page.document import make_document

        # The dashboard's own application knows under which prefix it was put.
        others = scheduler.http_application.applications
        prefixes = [each.prefix for each in others if isinstance(each, BokehTornado)]
        if not prefixes:
            return  # the dashboard was turned off
        variables = template_variables(scheduler)
        if PATH not in variables["pages"]:
            variables["pages"].append(PATH)  # in the bar above all pages
        self._application = BokehApplication(
            {f"/{PATH}": partial(make_document, self.board)},
            scheduler,
            prefix=prefixes[0].strip("/"),
            template_variables=variables,
        )
        scheduler.http_application.add_application(self._application)
        self._application.initialize(IOLoop.current())
        self._application.start()

    def log_event(self, topic: str, msg: Any) -> None:
        """Fold in what a run, a supervisor or a worker tells."""
        if topic == RECORDS:
            self.board.hear(msg)
        elif topic == SAMPLES:
            self.board.hear_of_sample(msg)

    async def close(self) -> None:
        """End the page's sessions with the scheduler."""
        if self._application is not None:
            self._application.stop()


def add_page(client: Client) -> None:
    """Add the page to the dashboard of a client's scheduler, unless it is there.

    Where that cannot be done, work goes on without: without bokeh there is no dashboard, and a
    scheduler without this package, or one that takes no code, is warned of.
    """
    identity = asked(client, client.scheduler.identity, "asking for the dashboard")
    if identity["services"].get("dashboard") is None:
        return
    try:
        asked(client, lambda: client.register_plugin(Page()), "adding a page to the dashboard")
    except ClusterError:
        raise
    except Exception as error:  # of whatever kind: it came from another process
        logger.warning("no page /%s on the dashboard: %s", PATH, error)
