"""ROOT to torch batches by ROOT's own RDataLoader: padded with zeros, clusters shuffled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ROOT
import torch
from request import answer

LABELS = {"signal": 1, "background": 0}


def prepare(request: dict[str, Any]) -> Callable[[], Iterator[tuple[int, int]]]:
    torch.set_num_threads(1)
    jagged = [name for group in request["jagged"].values() for name in group]
    frames = [
        ROOT.RDataFrame(request["tree"], files).Define("label", f"{LABELS[sample]}.f")
        for sample, files in request["files"].items()
    ]
    loader = ROOT.Experimental.ML.RDataLoader(
        frames,
        batch_size=request["batch_size"],
        batches_in_memory=-(-request["cluster_events"] // request["batch_size"]),
        columns=[*request["flat"], *jagged, "label"],
        max_vec_sizes=dict.fromkeys(jagged, request["width"]),
        target="label",
        shuffle=True,
        drop_remainder=False,
        set_seed=1,
    )

    def epoch() -> Iterator[tuple[int, int]]:
        for x, y in loader.as_torch():
            yield len(x), x.nbytes + y.nbytes

    return epoch


if __name__ == "__main__":
    answer(prepare)
