"""Scoring files on one core, as a worker and the writer do, against reading and encoding them.

Ours reads, encodes, scores with the published 128-64-1 network and writes a ROOT file; the
reference reads the same partitions and makes their dense rows. With --forward the reference is the
network alone, on dense rows in memory.
"""

import hashlib
import tempfile
from pathlib import Path

import common
import numpy as np
import torch

from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.export import to_torchscript
from mlaas4hep_dask.predict.tasks import SLICE, Scoring, score_partition
from mlaas4hep_dask.reader import read
from mlaas4hep_dask.score.script import Script
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all
from mlaas4hep_dask.train.network import mlp
from mlaas4hep_dask.writer import write_events


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        forward={"action": "store_true", "help": "compare with the network alone"},
    )
    common.pin_to_one_core()
    torch.set_num_threads(1)
    files = common.planned_files(parsed)
    specs = merge_all(
        measure(read(partition, files.branches), sample=partition.sample)
        for partition in files.partitions
    )
    encoding = Encoding.from_specs(specs)
    columns = encoding.layout.num_columns
    model = to_torchscript(mlp(columns).eval(), encoding)
    copied = tuple(branch for branch in files.branches if branch.collection is None)[:3]
    scoring = Scoring(
        name="benchmark",
        model=model,
        digest=hashlib.sha256(model).hexdigest(),
        encoding=encoding,
        reads=encoding.reads,
        recipe=None,
        copied=copied,
        skip=False,
        score_names=("score",),
    )
    with tempfile.TemporaryDirectory() as folder:

        def ours() -> None:
            output = Path(folder, "scores.root")
            with write_events(output, scoring.branches, overwrite=True) as file:
                for partition in files.partitions:
                    file.append(score_partition(partition, 0, scoring).events)

        if parsed.forward:
            network = Script(model)
            part = encode(read(files.partitions[0], files.branches), encoding)
            rows = np.arange(min(SLICE, len(part)))
            x, missing = part.dense(rows), part.missing(rows)

            def reference() -> None:
                for _ in range(-(-parsed.events // len(rows))):
                    network.scores_of(x, missing)

            name = "the network alone, on rows in memory"
        else:

            def reference() -> None:
                for partition in files.partitions:
                    encoded = encode(read(partition, files.branches), encoding)
                    for start in range(0, len(encoded), SLICE):
                        encoded.dense(np.arange(start, min(start + SLICE, len(encoded))))

            name = "read and encode to dense rows"
        result = common.compare(ours, reference, parsed.repeats)
    common.close("predict", parsed.events, result, reference=name, cores=1, columns=columns)


if __name__ == "__main__":
    main()
