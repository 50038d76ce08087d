"""Tries on one worker of a group, before any pass, what a run will import there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from distributed import Future, get_worker

from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.usercode import TRIAL_SECONDS, Lack, Need, Tried, try_imports
from mlaas4hep_dask.waiting import ClusterHandle, Group, OverdueError

logger = logging.getLogger(__name__)


class FirstWorker:
    """The trial of imports on a worker, which goes on while other things are done.

    Trainers of a batch system may come when all is read. So, while there is none, a reader tries
    too, in whose environment the same is expected.

    Parameters
    ----------
    cluster : ClusterHandle
        Whose worker it is.
    needs : sequence of Need
        What has to be imported.
    group : {"readers", "trainers"}
        Of which group the worker is.
    near : str, optional
        Address of the worker that is rather taken.
    seconds : float
        In which the imports have to come back.
    lacking : callable, optional
        Tells on a worker of the group what else it lacks, if anything.
    """

    def __init__(
        self,
        cluster: ClusterHandle,
        needs: Sequence[Need],
        group: Group,
        *,
        near: str | None = None,
        seconds: float = TRIAL_SECONDS,
        lacking: Callable[[], str] | None = None,
    ) -> None:
        self._lacking = lacking
        self._seconds = seconds
        self._cluster, self._needs, self._group = cluster, needs, group
        self._futures: dict[Group, Future] = {group: self._submit(group, near)}
        if group == "trainers" and not cluster.alive(group):
            self._futures["readers"] = self._submit("readers", None)

    def _submit(self, group: Group, near: str | None) -> Future:
        needs = tuple(self._needs)
        lacking = self._lacking if group == self._group else None
        return self._cluster.submit(
            _try_here, needs, lacking, group=group, near=near, pure=False, priority=20
        )

    def look(self) -> None:
        """As `end`, of what has ended already."""
        for group, future in list(self._futures.items()):
            if future.done():
                self._end(group)

    def end(self, *, wait: bool = True) -> None:
        """Wait until the trial has ended; versions and variables that differ are logged.

        Parameters
        ----------
        wait : bool
            Also where the group has no worker yet, as those of a batch system may come later, and
            on a local cluster, whose workers can import what this process can: there the time that
            it takes is worth more than to know it a moment earlier.

        Raises
        ------
        ClusterError
            When the worker cannot import something (facts: module, worker, host, python) or lacks
            what else is needed, or the user's code has not come back.
        """
        if not wait and self._cluster.is_local():
            self.look()
            return
        for group in list(self._futures)[::-1]:
            if wait or self._cluster.alive(group):
                self._end(group)

    def _end(self, group: Group) -> None:
        future = self._futures.pop(group)  # once, whatever it tells
        address, tried, lack = self._result(future, group)
        where = _described(address, tried, "" if group == self._group else self._group)
        if tried.lacks:
            first = tried.lacks[0]
            raise ClusterError(
                told(first, where) + _others(tried.lacks[1:]),
                module=first.module,
                worker=address,
                host=tried.host,
                python=tried.python,
            )
        if lack:
            raise ClusterError(f"{lack} ({where})", worker=address, host=tried.host)
        if tried.versions:
            here = {n: v for need in self._needs for n, v in need.packages.items()}
            pairs = (f"{n} {v} ({here[n]} here)" for n, v in sorted(tried.versions.items()))
            logger.warning("%s has other versions: %s", where, ", ".join(pairs))
        for name, what in tried.variables.items():
            logger.warning(
                "%s asks for the environment's %s, which has another value on %s, or none: there "
                "that one counts; give it to the workers (environment or pass-environment of a "
                "site's file), or as one of kwargs",
                what,
                name,
                where,
            )

    def _result(self, future: Future, group: Group) -> tuple[str, Tried, str]:
        try:
            result: tuple[str, Tried, str] = self._cluster.result(
                future, "trying imports", group=group, seconds=self._seconds
            )
        except OverdueError as error:
            self._cluster.let_go([future])
            names = ", ".join(need.what for need in self._needs if need.code is not None)
            raise ClusterError(
                f"the import of {names} on a worker of {group!r} has not ended after "
                f"{self._seconds:g} s"
            ) from error
        return result


def told(lack: Lack, where: str) -> str:
    """What a worker cannot import, and what to do."""
    if not lack.module:
        return f"{lack.what} cannot be imported on {where}: {lack.reason}"
    text = f"{lack.what} needs module {lack.module!r}, which {where} does not have: "
    if lack.version:
        here = "" if lack.version.startswith("Python ") else f", here {lack.version}"
        return f"{text}install it in the environment of the workers{here}"
    return (
        f"{text}install it in the environment of the workers; or, if it is yours, put it beside "
        "dataset.yaml or on PYTHONPATH here and name it in an import statement, then it is sent"
    )


def _others(lacks: Sequence[Lack]) -> str:
    names = list(dict.fromkeys(lack.module for lack in lacks if lack.module))
    return f"; nor has it {', '.join(names)}" if names else ""


def _described(address: str, tried: Tried, instead_of: str) -> str:
    instead = f"; none of {instead_of!r} has come yet" if instead_of else ""
    facts = f"host {tried.host}, Python {tried.python}, {tried.executable}{instead}"
    return f"worker {address} ({facts})"


def _try_here(needs: Sequence[Need], lacking: Callable[[], str] | None) -> tuple[str, Tried, str]:
    return get_worker().address, try_imports(needs), "" if lacking is None else lacking()
