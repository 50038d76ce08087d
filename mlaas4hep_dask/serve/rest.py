"""The server's own protocol: events as JSON objects, a list of them in a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from mlaas4hep_dask.score.parts import Part
from mlaas4hep_dask.score.scorer import Scorer
from mlaas4hep_dask.serve import cut
from mlaas4hep_dask.serve.answers import json_answer
from mlaas4hep_dask.serve.body import require_json
from mlaas4hep_dask.serve.parts import INLINE_BYTES, parts_of
from mlaas4hep_dask.serve.protocol import Protocol


class Rest(Protocol):
    """``/v1/models``, and ``/predict`` of each."""

    def routes(self) -> Sequence[BaseRoute]:
        """The list of models, each of them, and its scores."""
        return (
            Route("/v1/models", self._list_models),
            Route("/v1/models/{name}", self._describe_model),
            Route("/v1/models/{name}/predict", self._predict, methods=["POST"]),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """With a thread that cuts large bodies into parts."""
        with ThreadPoolExecutor(1, "cut") as self._cutter:
            cut.warm_up()
            yield

    async def _list_models(self, _request: Request) -> Response:
        scorers = self.backing.service.scorers.values()
        return json_answer({"models": [description(scorer) for scorer in scorers]})

    async def _describe_model(self, request: Request) -> Response:
        return json_answer(description(self._scorer(request)))

    async def _predict(self, request: Request) -> Response:
        scorer = self._scorer(request)
        require_json(request)
        try:
            async with self.backing.bodies.read(request) as body:
                parts = await self._parts_of(body)
                scores = await self.backing.service.scores_of(scorer.name, parts)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        return json_answer(
            {
                "model": scorer.name,
                "scores": scores.values,
                **names_of_scores(scorer),
                "counts": scores.counts.as_json(),
                "ignored": sorted(scores.ignored),
            }
        )

    async def _parts_of(self, body: bytearray) -> Sequence[Part]:
        if len(body) <= INLINE_BYTES:
            return parts_of(body)
        cutting = partial(parts_of, body, max_values=self.backing.max_values)
        return await asyncio.get_running_loop().run_in_executor(self._cutter, cutting)

    def _scorer(self, request: Request) -> Scorer:
        return self.backing.service.scorer(request.path_params["name"])


def names_of_scores(scorer: Scorer) -> dict[str, list[str]]:
    """What the numbers of a score are; nothing for one of two classes or a reconstruction."""
    objective = scorer.objective
    return {objective.names_key: list(objective.scored)} if objective.scored else {}


def description(scorer: Scorer) -> dict[str, Any]:
    """What a client needs to know of a model, as JSON values."""
    manifest = scorer.bundle.manifest
    return {
        "name": scorer.name,
        "created": manifest.get("created"),
        "input": {"branches": [asdict(branch) for branch in scorer.bundle.reads]},
        **({"recipe": manifest["recipe"]} if scorer.bundle.recipe is not None else {}),
        "output": manifest.get("output"),
        "metrics": manifest.get("metrics"),
    }
