"""ROOT to torch batches with f9columnar: a cluster at a time, padded, shuffled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from f9columnar.ml.collate import CollateConfig
from f9columnar.pipeline.dataloader import get_chunk_dataloader
from f9columnar.pipeline.readers import get_chunk_reader
from request import answer


def prepare(request: dict[str, Any]) -> Callable[[], Iterator[tuple[int, int]]]:
    torch.set_num_threads(1)
    jagged = [name for group in request["jagged"].values() for name in group]
    loader, _, _ = get_chunk_dataloader(
        "events",
        [file for group in request["files"].values() for file in group],
        get_chunk_reader("root", key=request["tree"], fields=[*request["flat"], *jagged]),
        step_size=request["cluster_events"],
        num_workers=0,
        collate_config=CollateConfig(
            modalities={"flat": request["flat"], **request["jagged"]},
            layout="padding",
            max_lengths=request["width"],
        ),
        shuffle_chunks=True,
        shuffle_batch=True,
        batch_size=request["batch_size"],
        base_seed=0,
        prepare_num_workers=1,
    )

    def epoch() -> Iterator[tuple[int, int]]:
        for modalities, _ in loader:
            tensors = [part for fields, _, _ in modalities.values() for part in fields.values()]
            yield len(tensors[0]), sum(part.nbytes for part in tensors)

    return epoch


if __name__ == "__main__":
    answer(prepare)
