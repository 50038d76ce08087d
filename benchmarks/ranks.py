"""Two ranks that learn together, against two that know nothing of each other.

Ours is one command: two workers read, encode and train as ranks, which average their gradients in
every step. The reference is two commands at once, with one worker and one rank each, half of the
files and half of the batch: as much work, and nobody waits for anybody. What counts is the training
stage, in which blocks are read too; of the reference that of the slower command.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import data

RANKS = 2


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        epochs={"type": int, "default": 5, "help": "epochs"},
        batch_size={"type": int, "default": 1024, "help": "events per step and rank"},
    )
    paths = data.generate(parsed.data, events=parsed.events, compression=parsed.compression)
    summaries: list[dict[str, Any]] = []
    seconds: dict[str, list[float]] = {"together": [], "alone": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def learn(parts: Sequence[list[Path]], ranks: int) -> float:
            """Seconds of the training stage of the slowest of some commands at once."""
            outputs = [folder / f"run-{len(summaries)}-{number}" for number in range(len(parts))]
            commands = []
            for output, part in zip(outputs, parts, strict=True):
                sections = common.published(
                    epochs=parsed.epochs, batch_size=parsed.batch_size * ranks, ranks=ranks
                )
                config = output.with_suffix(".yaml")
                common.write_config(config, part, **sections, cluster={"workers": ranks})
                words = ["-m", "mlaas4hep_dask.run", str(config), "--output", str(output)]
                pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
                commands.append(subprocess.Popen([sys.executable, *words], **pipes))
            for command in commands:
                text, _ = command.communicate()
                if command.returncode:
                    sys.exit(text.decode())
            done = [json.loads((output / "metrics.json").read_text()) for output in outputs]
            summaries.extend(done)
            return max(
                stage["seconds"]
                for summary in done
                for stage in summary["stages"]
                if stage["stage"] == "train"
            )

        halves = [paths[number::RANKS] for number in range(RANKS)]
        for turn in range(parsed.repeats + 1):
            for way in sorted(seconds, reverse=bool(turn % 2)):
                spent = learn([paths], RANKS) if way == "together" else learn(halves, 1)
                if turn:
                    seconds[way].append(spent)
    pairs = {way: [(each, each) for each in spent] for way, spent in seconds.items()}
    common.close(
        "ranks",
        parsed.events * parsed.epochs,
        common.comparison(pairs["together"], pairs["alone"]),
        reference="two ranks of half the files each, at once and unsynchronised",
        cores=RANKS,
        batch_size_per_rank=parsed.batch_size,
        together=seconds["together"],
        alone=seconds["alone"],
    )


if __name__ == "__main__":
    main()
