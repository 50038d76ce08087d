"""The scorers of several bundles behind one scoring thread, for protocols of any kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import torch

from mlaas4hep_dask.errors import BundleError, BusyError, UnknownModelError, nearest, shown
from mlaas4hep_dask.score.batching import Batcher
from mlaas4hep_dask.score.opening import open_scorer
from mlaas4hep_dask.score.parts import Part
from mlaas4hep_dask.score.scorer import Scorer
from mlaas4hep_dask.score.scores import Scores

MAX_NAME = 100  # characters of a name that another is near to


class Service:
    """Loaded models by name; lives in one event loop.

    Parameters
    ----------
    paths : sequence of str or Path
        Folders of bundles, or .tar.gz archives of them.
    stopping : str
        What requests are told when no more are taken.
    """

    def __init__(self, paths: Sequence[str | Path], *, stopping: str) -> None:
        self.paths = paths
        self.is_draining = False
        self._stopping = stopping
        self._scorers: Mapping[str, Scorer] | None = None  # None until all are loaded
        self._batchers: Mapping[str, Batcher] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Models are loaded when the context begins; it ends when all requests are answered.

        Raises
        ------
        BundleError
            When a bundle is altered, or two models have one name.
        """
        # One scoring thread for all models, and one torch thread inside it: two of either are
        # slower on shared cores. Torch keeps the number per thread, so each is told.
        torch.set_num_threads(1)
        with ThreadPoolExecutor(1, "score", torch.set_num_threads, (1,)) as executor:
            scorers = await asyncio.get_running_loop().run_in_executor(executor, self._load)
            self._batchers = {
                name: Batcher(scorer.score, executor, stopping=self._stopping)
                for name, scorer in scorers.items()
            }
            self._scorers = scorers
            yield
            for batcher in self._batchers.values():
                await batcher.drain()
        self._scorers = None

    def _load(self) -> dict[str, Scorer]:
        scorers: dict[str, Scorer] = {}
        for path in self.paths:
            scorer = open_scorer(path)
            if scorer.name in scorers:
                raise BundleError.at(path, f"a model named {scorer.name!r} is served already")
            scorers[scorer.name] = scorer
        return scorers

    @property
    def is_loaded(self) -> bool:
        """Whether there are scorers."""
        return self._scorers is not None

    @property
    def scorers(self) -> Mapping[str, Scorer]:
        """Scorers by the names of their models, in the order of the bundles; `BusyError` before."""
        if self._scorers is None:
            raise BusyError("the server is starting")
        return self._scorers

    def scorer(self, name: str) -> Scorer:
        """The scorer of a model; `UnknownModelError` names the nearest."""
        scorer = self.scorers.get(name)
        if scorer is None:
            near = nearest(name[:MAX_NAME], self.scorers)
            hint = f"; did you mean {near!r}?" if near else ""
            raise UnknownModelError(f"no model named {shown(name)}{hint}", name=name, nearest=near)
        return scorer

    async def scores_of(self, name: str, parts: Sequence[Part]) -> Scores:
        """Scores of one request by the model of a name; raises as `Batcher.submit`."""
        return await self._batchers[name].submit(parts)

    def drain(self) -> None:
        """Say that no more requests are taken; those that arrive are answered."""
        self.is_draining = True

    def give_up(self) -> None:
        """Refuse all requests that wait for scores."""
        for batcher in self._batchers.values():
            batcher.give_up()
