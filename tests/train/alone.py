"""A rank that trains alone, in this process, on events in memory."""

from pathlib import Path

import awkward as ak
import numpy as np

from mlaas4hep_dask.encode import Block, Encoding, encode
from mlaas4hep_dask.encode.split import event_ids, split_of
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.objective import BINARY
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.assign import Assignments, assign, follow
from mlaas4hep_dask.train.given import Given
from mlaas4hep_dask.train.model import find_model
from mlaas4hep_dask.train.rank import Rank
from mlaas4hep_dask.train.session import RankTask

COLUMNS = 3


class Memory:
    """Blocks of two samples, of which the first column tells the label."""

    def __init__(self, *, sizes=(300, 200, 400, 100)):
        rng = np.random.default_rng(2)
        events = [rng.normal(n % 2, 1.0, (size, COLUMNS)) for n, size in enumerate(sizes)]
        columns = [{f"x{i}": x[:, i] for i in range(COLUMNS)} for x in events]
        parts = [Events.from_awkward(ak.Array(each)) for each in columns]
        encoding = Encoding.from_specs(measure(parts[0], sample="s"))
        self.blocks, self.asked = [], set()
        for number, part in enumerate(parts):
            ids = event_ids(f"file {number}", 0, len(part))
            y = np.full(len(part), number % 2, np.float32)
            split = split_of(ids, (0.6, 0.2, 0.2), seed=1)
            w = np.ones(len(part), np.float32)
            self.blocks.append(Block(encode(part, encoding), y, w, ids, split))

    def prefetch(self, blocks, split):
        """Nothing has to be fetched."""

    def get(self, block, split):  # noqa: ARG002  # all splits are there
        self.asked.add(block)
        return self.blocks[block]

    def counts(self, split):
        return [("ab"[n % 2], int((b.split == split).sum())) for n, b in enumerate(self.blocks)]

    def assignments(self, **options):
        options = {"ranks": 1, "batch_size": 20, "window_events": 200, "seed": 1, **options}
        train = assign(self.counts(0), files=list(range(len(self.blocks))), **options)
        others = (
            follow(train, self.counts(0), self.counts(split), window_events=200) for split in (1, 2)
        )
        return Assignments(train, *others)


def task_of(memory, *, assignments=None, **more):
    """What the rank is told."""
    facts = {
        "session": "test",
        "rank": 0,
        "num_ranks": 1,
        "host": "",
        "model": find_model(
            "mlaas4hep_dask.train.network:mlp", {"hidden": [4]}, resolve=Path, where="here"
        ),
        "given": Given((COLUMNS,)),
        "learning_rate": 0.01,
        "seed": 3,
        "mean_weight": 1.0,
        "assignments": assignments or memory.assignments(),
        "objective": BINARY,
    }
    return RankTask(**{**facts, **more})


def rank_of(task, state=None):
    return Rank(task, state)


def run_epoch(rank, memory, epoch):
    return rank.run_epoch(memory, lambda _: None, epoch)
