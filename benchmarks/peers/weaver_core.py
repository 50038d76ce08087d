"""ROOT to torch batches with weaver-core: whole files at a time, its fastest way to read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from request import answer
from torch.utils.data import DataLoader
from weaver.utils.dataset import SimpleIterDataset


def prepare(request: dict[str, Any]) -> Callable[[], Iterator[tuple[int, int]]]:
    torch.set_num_threads(1)
    inputs = {"flat": {"length": 1, "vars": [[name, 0, 0.1] for name in request["flat"]]}}
    for collection, group in request["jagged"].items():
        inputs[collection] = {
            "length": request["width"],
            "pad_mode": "constant",
            "vars": [[name, 0, 0.1] for name in group],
        }
    config = {
        "treename": request["tree"],
        "preprocess": {"method": "manual", "params": None},
        "new_variables": {"truth": f"ak.values_astype({request['flat'][0]} > 60, 'int64')"},
        "inputs": inputs,
        "labels": {"type": "custom", "value": {"truth_label": "truth"}},
    }
    file = Path(tempfile.mkdtemp()) / "data.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML

    def epoch() -> Iterator[tuple[int, int]]:
        data = SimpleIterDataset(
            request["files"],
            str(file),
            for_training=True,
            load_range_and_fraction=((0, 1), 1, 1),
            fetch_by_files=True,
            fetch_step=1,
        )
        loader = DataLoader(data, batch_size=request["batch_size"], num_workers=0)
        for x, *_ in loader:
            yield len(x["flat"]), sum(part.nbytes for part in x.values())

    return epoch


if __name__ == "__main__":
    answer(prepare)
