"""ROOT to torch batches with bare uproot and vectorised padding, shuffled within a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import awkward as ak
import numpy as np
import torch
import uproot
from request import answer


def prepare(request: dict[str, Any]) -> Callable[[], Iterator[tuple[int, int]]]:
    torch.set_num_threads(1)
    width, size = request["width"], request["batch_size"]
    jagged = [name for group in request["jagged"].values() for name in group]
    names = [*request["flat"], *jagged]
    files = {file: request["tree"] for group in request["files"].values() for file in group}
    rng = np.random.default_rng(0)

    def epoch() -> Iterator[tuple[int, int]]:
        for chunk in uproot.iterate(files, names, step_size=request["cluster_events"]):
            rows = np.zeros((len(chunk), len(request["flat"]) + width * len(jagged)), np.float32)
            for column, name in enumerate(request["flat"]):
                rows[:, column] = ak.to_numpy(chunk[name])
            column = len(request["flat"])
            for group in request["jagged"].values():
                counts = ak.to_numpy(ak.num(chunk[group[0]]))
                starts = np.cumsum(counts) - counts
                kept = np.minimum(counts, width)
                events = np.repeat(np.arange(len(counts)), kept)
                places = np.arange(len(events)) - np.repeat(np.cumsum(kept) - kept, kept)
                for name in group:
                    content = ak.to_numpy(ak.flatten(chunk[name]))
                    rows[events, column + places] = content[starts[events] + places]
                    column += width
            x = torch.from_numpy(rows[rng.permutation(len(rows))])
            for start in range(0, len(rows), size):
                batch = x[start : start + size]
                yield len(batch), batch.nbytes

    return epoch


if __name__ == "__main__":
    answer(prepare)
