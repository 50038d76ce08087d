"""ROOT to torch batches as most write it: uproot and awkward in a data set, torch's DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import awkward as ak
import numpy as np
import torch
import uproot
from request import answer
from torch.utils.data import DataLoader, IterableDataset


class Rows(IterableDataset):
    """Padded events, one by one, shuffled within a cluster."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request = request
        self._jagged = [name for group in request["jagged"].values() for name in group]
        self._rng = np.random.default_rng(0)

    def __iter__(self) -> Iterator[np.ndarray]:
        request, width = self._request, self._request["width"]
        files = {file: request["tree"] for group in request["files"].values() for file in group}
        names = [*request["flat"], *self._jagged]
        for chunk in uproot.iterate(files, names, step_size=request["cluster_events"]):
            flat = [ak.to_numpy(chunk[name])[:, np.newaxis] for name in request["flat"]]
            padded = [
                ak.to_numpy(ak.fill_none(ak.pad_none(chunk[name], width, clip=True), 0))
                for name in self._jagged
            ]
            rows = np.concatenate([*flat, *padded], axis=1, dtype=np.float32)
            yield from rows[self._rng.permutation(len(rows))]


def prepare(request: dict[str, Any]) -> Callable[[], Iterator[tuple[int, int]]]:
    torch.set_num_threads(1)
    rows = Rows(request)

    def epoch() -> Iterator[tuple[int, int]]:
        for batch in DataLoader(rows, batch_size=request["batch_size"]):
            yield len(batch), batch.nbytes

    return epoch


if __name__ == "__main__":
    answer(prepare)
