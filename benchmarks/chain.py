"""The whole run as a command: ROOT files in, specs, 5 epochs, bundle and report out.

The reference is the least that a notebook could spend: bare uproot reads the files once, and a
plain loop of torch's own parts learns from dense rows that somebody else has made, in memory, with
all libraries imported long ago. A second one is the same as a script, a command like ours, which
imports uproot and torch first. The published pipeline (Kuznetsov, Giommi and Bonacorsi 2021),
measured on a machine with 2 cores, took 111 s for 200,000 events of this shape, 5 epochs, batches
of 100 and the same network, 83 % of it in the transformation of events.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np
import plain
import torch
from train import encoded_block

from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.reader import read
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all

PUBLISHED_EVENTS = 200_000
PUBLISHED_SECONDS = 111.0


def rows_in_memory(files: common.Files) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Dense rows and labels of the training and the validation events."""
    specs = merge_all(measure(read(p, files.branches), sample=p.sample) for p in files.partitions)
    encoding = Encoding.from_specs(specs)
    blocks = [encoded_block(files, partition, encoding) for partition in files.partitions]
    splits = []
    for split in (0, 1):
        chosen = [(block, np.flatnonzero(block.split == split)) for block in blocks]
        x = np.concatenate([block.encoded.dense(rows) for block, rows in chosen])
        y = np.concatenate([block.y[rows] for block, rows in chosen])
        splits.append((torch.from_numpy(x), torch.from_numpy(y)))
    return splits


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        epochs={"type": int, "default": 5, "help": "epochs"},
        batch_size={"type": int, "default": 100, "help": "global batch"},
        # A batch of 100 takes a millisecond: dividing it between two ranks gains nothing.
        ranks={"type": int, "default": 1, "help": "training ranks"},
    )
    files = common.planned_files(parsed)
    training, validation = rows_in_memory(files)
    settings = {"epochs": parsed.epochs, "batch_size": parsed.batch_size}
    summaries: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        sections = common.published(**settings, ranks=parsed.ranks)
        file = common.write_config(Path(folder, "chain.yaml"), files.paths, **sections)

        def whole_command() -> None:
            output = Path(folder, f"run-{len(summaries)}")
            command = ["-m", "mlaas4hep_dask.run", str(file), "--output", str(output)]
            done = subprocess.run([sys.executable, *command], capture_output=True, check=False)
            if done.returncode:
                sys.exit(done.stdout.decode() + done.stderr.decode())
            summaries.append(json.loads((output / "metrics.json").read_text()))

        def read_and_plain_loop() -> None:
            common.uproot_iterate(files, "isal")
            network = plain.network(training[0].shape[1])
            plain.learn(network, *training, **settings, validation=validation)

        rows = Path(folder, "rows.npz")
        names = [branch.name for branch in files.branches]
        arrays = (tensor.numpy() for tensor in (*training, *validation))
        np.savez(rows, names=names, **dict(zip(("x", "y", "vx", "vy"), arrays, strict=True)))

        def script() -> None:
            words = [rows, parsed.epochs, parsed.batch_size, *files.paths]
            subprocess.run([sys.executable, plain.__file__, *map(str, words)], check=True)

        references = {"in memory": read_and_plain_loop, "script": script}
        results = common.compare_with(whole_command, references, parsed.repeats)
    published_seconds = PUBLISHED_SECONDS * parsed.events / PUBLISHED_EVENTS
    result = results["in memory"]
    last = summaries[-1]
    common.close(
        "chain",
        parsed.events,
        result,
        reference="bare uproot reads the files, a plain torch loop learns from rows in memory",
        cores=2,
        ratios=common.ratios(results)["ratios"],  # processor time of this process tells nothing
        published_ratio=round(published_seconds / result.seconds, 2),
        stages={stage["stage"]: stage["seconds"] for stage in last["stages"]},
        epochs=[epoch["seconds"] for epoch in last["epochs"]],
        ranks=parsed.ranks,
    )


if __name__ == "__main__":
    main()
