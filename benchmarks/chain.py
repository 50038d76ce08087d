"""The whole run as a command: ROOT files in, specs, 5 epochs, bundle and report out.

The reference is the published pipeline (Kuznetsov, Giommi and Bonacorsi 2021), measured on a
machine with 2 cores: 111 s for 200,000 events of this shape, 5 epochs, batches of 100 and the
same network, 83 % of it in the transformation of events.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import data

REFERENCE_EVENTS = 200_000
REFERENCE_SECONDS = 111.0


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        epochs={"type": int, "default": 5, "help": "epochs"},
        batch_size={"type": int, "default": 100, "help": "global batch"},
        # A batch of 100 takes a millisecond: dividing it between two ranks gains nothing.
        ranks={"type": int, "default": 1, "help": "training ranks"},
    )
    paths = data.generate(parsed.data, events=parsed.events, compression=parsed.compression)
    config = {
        "name": "chain",
        "samples": [
            {
                "name": kind,
                "label": label,
                "files": [str(path) for path in paths if path.name.startswith(kind)],
            }
            for kind, label in (("signal", 1), ("background", 0))
        ],
        "branches": {"include": common.INPUTS},
        "training": {
            "epochs": parsed.epochs,
            "batch_size": parsed.batch_size,
            "ranks": parsed.ranks,
        },
    }
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dataset.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        for number in range(parsed.repeats + 1):
            output = Path(folder) / f"run-{number}"
            began = time.perf_counter()
            command = ["-m", "mlaas4hep_dask.run", str(file), "--output", str(output)]
            command += ["--set", "specs.cache=null"]  # every run reads the events
            with (Path(folder) / "log").open("w") as log:
                done = subprocess.run([sys.executable, *command], stdout=log, check=False)
            seconds = time.perf_counter() - began
            if done.returncode:
                sys.exit((Path(folder) / "log").read_text())
            summary = json.loads((output / "metrics.json").read_text())
            runs.append((seconds, summary))
            print(f"run {number}: {seconds:.2f} s{'' if number else ' (not counted)'}")
    counted = sorted(runs[1:], key=lambda run: run[0])
    seconds, summary = counted[len(counted) // 2]
    reference_seconds = REFERENCE_SECONDS * parsed.events / REFERENCE_EVENTS
    common.close(
        "chain",
        parsed.events,
        common.Comparison(seconds, reference_seconds, reference_seconds / seconds),
        reference="the published pipeline, 111 s for 200,000 events on 2 cores",
        cores=2,
        stages={stage["stage"]: stage["seconds"] for stage in summary["stages"]},
        epochs=[epoch["seconds"] for epoch in summary["epochs"]],
        ranks=parsed.ranks,
    )


if __name__ == "__main__":
    main()
