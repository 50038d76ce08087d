"""What one would write in a notebook: uproot reads files, torch learns from rows in memory.

As a script it does both, once: ``plain.py ROWS EPOCHS BATCH_SIZE FILE ...``. ROWS is a file of
`numpy.savez` with the rows, which somebody else has made, and the names of the branches to read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import data
import numpy as np
import torch
import uproot

HIDDEN = (128, 64)


def read(paths: Sequence[Path], names: Sequence[str], *, zlib_library: str = "zlib") -> int:
    """Events read by bare uproot, cluster by cluster.

    ``uproot.ZLIB.library`` has no effect on reading; the instance that reads has its own.
    """
    reader = uproot.compression._decompress_ZLIB
    earlier, reader.library = reader.library, zlib_library
    try:
        return sum(
            len(events)
            for events in uproot.iterate(
                {str(path): "Events" for path in paths},
                expressions=names,
                step_size=data.CLUSTER_EVENTS,
                handler=uproot.MemmapSource,
            )
        )
    finally:
        reader.library = earlier


def network(num_columns: int) -> torch.nn.Module:
    """The published network of torch's own parts."""
    layers: list[torch.nn.Module] = []
    for width, following in pairwise((num_columns, *HIDDEN)):
        layers += [torch.nn.Linear(width, following), torch.nn.ReLU(), torch.nn.Dropout(0.5)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN[-1], 1))


def learn(
    learning: torch.nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    batch_size: int,
    epochs: int = 1,
    shuffle: bool = True,
    validation: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """Go through all rows in batches, ``epochs`` times, on one thread.

    Parameters
    ----------
    learning : torch.nn.Module
        The network.
    x, y : Tensor of shape (events, columns) and (events,)
        Rows and labels.
    batch_size : int
        Events per step.
    epochs : int
        How often.
    shuffle : bool
        Whether each epoch has another order.
    validation : tuple of Tensor, optional
        Rows and labels whose loss is measured after every epoch.
    """
    torch.set_num_threads(1)  # as each of our ranks: a second one gains little in small steps
    optimiser = torch.optim.Adam(learning.parameters(), lr=1e-3, fused=True)
    loss_of = torch.nn.BCEWithLogitsLoss()
    for _ in range(epochs):
        learning.train()
        order = torch.randperm(len(x)) if shuffle else None
        for begin in range(0, len(x), batch_size):
            part = slice(begin, begin + batch_size)
            rows = part if order is None else order[part]
            optimiser.zero_grad()
            loss = loss_of(learning(x[rows]).squeeze(1), y[rows])
            loss.backward()
            optimiser.step()
        if validation is not None:
            learning.eval()
            with torch.inference_mode():
                loss_of(learning(validation[0]).squeeze(1), validation[1])


def main(rows: str, epochs: str, batch_size: str, *files: str) -> None:
    """Read all events, and learn from the rows."""
    known = np.load(rows)
    read(list(map(Path, files)), known["names"].tolist(), zlib_library="isal")
    x, y, *validation = (torch.from_numpy(known[name]) for name in ("x", "y", "vx", "vy"))
    sizes = {"batch_size": int(batch_size), "epochs": int(epochs)}
    learn(network(x.shape[1]), x, y, **sizes, validation=(validation[0], validation[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
