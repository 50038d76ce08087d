"""How well an epoch mixes samples and files, beside a global shuffle and the schemes of others.

The ratio is the variance of the share that a file has of a batch after a global shuffle, over ours:
1 is as good. Beside it stand the same for the share of a sample, and the correlation of the places
that neighbours in the epoch have in their files, which is 0 after a global shuffle.

``weaver`` reads a part of every file at each step and shuffles within it; ``RDataLoader`` shuffles
the list of clusters, and the events within as many as fit in its buffer; ``by file`` goes through
files one after the other and shuffles as many events as a window has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import common
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.train.assign import assign

Order = NDArray[np.int64]  # numbers of events in the order in which an epoch uses them
SAMPLES = 2
BLOCKS = 8  # blocks of a file


class Events:
    """Where each event is from: sample, file, block, and place in its file."""

    def __init__(self, num_events: int, files: int) -> None:
        self.per_block = max(num_events // (SAMPLES * files * BLOCKS), 1)
        self.num_files = SAMPLES * files
        numbers = np.arange(self.num_files * BLOCKS * self.per_block)
        self.block = numbers // self.per_block
        self.file = self.block // BLOCKS
        self.sample = self.file // files
        per_file = BLOCKS * self.per_block
        self.place = numbers % per_file / per_file

    def __len__(self) -> int:
        return len(self.block)


def ours(events: Events, batch: int, window: int, rounds: int) -> Order:
    """One rank's epoch, by what its feed asks of each block."""
    sizes = [
        (f"sample{n // (len(events) // events.per_block // SAMPLES)}", events.per_block)
        for n in range(len(events) // events.per_block)
    ]
    files = [n // BLOCKS for n in range(len(sizes))]
    options: dict[str, Any] = {"ranks": 1, "batch_size": batch, "window_events": window}
    assignment = replace(assign(sizes, **options, seed=1, files=files), rounds=rounds)
    epoch, order = assignment.epoch(0, 1), []
    for number in range(assignment.num_rounds):
        of_round = epoch.round(number)
        rows = [
            assignment.order(share, num_rows=events.per_block, epoch=1)
            + share.piece.block * events.per_block
            for share in of_round.shares
        ]
        for place in range(of_round.num_windows):
            at, _ = assignment.rows(0, number * of_round.num_windows + place, epoch=1)
            ordered = np.empty_like(at)
            for share, offset, begin, size in of_round.window(place):
                used = np.sort(rows[share][offset :: of_round.num_windows])
                ordered[at[begin : begin + size]] = used
            order.append(ordered)
    return np.concatenate(order)


def everything(events: Events, rng: np.random.Generator) -> Order:
    """A global shuffle."""
    return rng.permutation(len(events))


def by_file(events: Events, window: int, rng: np.random.Generator) -> Order:
    """Whole files one after the other, shuffled window by window."""
    files = rng.permutation(events.num_files)
    line = np.concatenate([np.flatnonzero(events.file == file) for file in files])
    return _shuffled_in(line, window, rng)


def weaver(events: Events, steps: int, rng: np.random.Generator) -> Order:
    """A part of every file at each step, shuffled."""
    step = (events.place * steps).astype(int)
    return np.concatenate([rng.permutation(np.flatnonzero(step == n)) for n in range(steps)])


def r_data_loader(events: Events, window: int, rng: np.random.Generator) -> Order:
    """Clusters, which are the blocks here, in a random order, shuffled in a buffer."""
    blocks = rng.permutation(int(events.block[-1]) + 1)
    line = (blocks[:, None] * events.per_block + np.arange(events.per_block)).ravel()
    return _shuffled_in(line, window, rng)


def _shuffled_in(line: Order, window: int, rng: np.random.Generator) -> Order:
    parts = [line[begin : begin + window] for begin in range(0, len(line), window)]
    return np.concatenate([rng.permutation(part) for part in parts])


def variance(order: Order, of: NDArray[np.int64], batch: int) -> float:
    """The variance of the share that each value has of a batch, over that of a global shuffle."""
    num, number = len(order) // batch, int(of.max()) + 1
    batches = of[order[: num * batch]].reshape(num, batch)
    counts = np.array([np.bincount(each, minlength=number) for each in batches])
    fair = np.bincount(of, minlength=number) / len(order)
    expected = batch * fair * (1 - fair) * (len(order) - batch) / (len(order) - 1)
    return float((((counts - batch * fair) ** 2).mean(0) / expected).mean())


def correlation(order: Order, events: Events) -> float:
    """Of the places in their files of events that follow each other."""
    place = events.place[order]
    return float(np.corrcoef(place[:-1], place[1:])[0, 1])


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        files={"type": int, "default": 8, "help": "files of each sample"},
        windows={"type": int, "default": 16, "help": "windows of an epoch"},
        batch_size={"type": int, "default": 100, "help": "events of a batch"},
    )
    events = Events(parsed.events, parsed.files)
    batch, window = min(parsed.batch_size, len(events)), max(len(events) // parsed.windows, 1)
    rng = np.random.default_rng(1)
    schemes: dict[str, Callable[[], Order]] = {
        "ours": lambda: ours(events, batch, window, 1),
        "ours, 4 rounds": lambda: ours(events, batch, window, 4),
        "ours, a window a round": lambda: ours(events, batch, window, parsed.windows),
        "global": lambda: everything(events, rng),
        "weaver": lambda: weaver(events, parsed.windows, rng),
        "RDataLoader": lambda: r_data_loader(events, window, rng),
        "by file": lambda: by_file(events, window, rng),
    }
    found: dict[str, dict[str, float]] = {}
    seconds = 0.0
    for name, scheme in schemes.items():
        began = time.perf_counter()
        order = scheme()
        if name == "ours":
            seconds = time.perf_counter() - began
        assert (np.bincount(order, minlength=len(events)) == 1).all()  # every event once
        found[name] = {
            "file": round(variance(order, events.file, batch), 3),
            "sample": round(variance(order, events.sample, batch), 3),
            "correlation": round(correlation(order, events), 4),
        }
        print(name, found[name])
    file_share = found["ours"]["file"]
    common.close(
        "shuffle",
        len(events),
        common.Comparison(seconds, seconds, round(1 / file_share, 4)),
        reference="a global shuffle's variance of the shares of files in a batch",
        cores=1,
        schemes=found,
        files=parsed.files,
        windows=parsed.windows,
        batch_size=batch,
    )


if __name__ == "__main__":
    main()
