"""ROOT to shuffled torch batches on one core, against the loaders of others and bare uproot.

Each loader is a process of its own; they take turns, an epoch each, over the same files, branches,
widths and batch size. Prints one JSON line per comparison. Peers come from
``python benchmarks/peers/install.py FOLDER``; --venvs names the folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import common
import data

HERE = Path(__file__).parent / "peers"
LOADERS = {
    "ours": ("ours.py", None),
    "uproot": ("uproot_padding.py", None),
    "DataLoader": ("torch_dataloader.py", None),
    "RDataLoader": ("rdataloader.py", "ROOT"),
    "weaver-core": ("weaver_core.py", "weaver-core"),
    "f9columnar": ("f9columnar_padding.py", "f9columnar"),
}
REFERENCES = {
    "uproot": "uproot.iterate and vectorised padding",
    "DataLoader": "torch's DataLoader over events that uproot reads and awkward pads",
    "RDataLoader": "ROOT 6.40's RDataLoader, as many batches in memory as a cluster has",
    "weaver-core": "weaver-core 0.5.3, one file at a time",
    "f9columnar": "f9columnar 0.9.0, padding, one cluster at a time",
}


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        venvs={"type": Path, "default": None, "help": "folder of the peers' environments"},
        branches={"choices": ("small", "large"), "default": "large", "help": "branch set"},
        batch_size={"type": int, "default": 1024, "help": "events per batch"},
        width={"type": int, "default": 10, "help": "objects per collection and event"},
    )
    paths = data.generate(parsed.data, events=parsed.events, compression=parsed.compression)
    collections = data.COLLECTIONS if parsed.branches == "large" else ("Jet",)
    request = {
        "core": min(os.sched_getaffinity(0)),
        "tree": "Events",
        "files": {
            kind: [str(path) for path in paths if path.name.startswith(kind)]
            for kind in ("signal", "background")
        },
        "flat": [f"flat_{i:02d}" for i in range(data.NUM_FLAT)],
        "jagged": {
            name: [f"{name}_v{i:02d}" for i in range(data.BRANCHES_PER_COLLECTION)]
            for name in collections
        },
        "width": parsed.width,
        "batch_size": parsed.batch_size,
        "cluster_events": data.CLUSTER_EVENTS,
    }
    loaders = {}
    for name, (script, folder) in LOADERS.items():
        python = Path(sys.executable)
        if folder is not None:
            if parsed.venvs is None:
                continue
            python = parsed.venvs / folder / "bin" / "python"
            if not python.exists():
                sys.exit(f"{python} is missing; python benchmarks/peers/install.py makes it")
        loaders[name] = Loader(python, HERE / script, request)
    times: dict[str, list[dict[str, Any]]] = {name: [] for name in loaders}
    try:
        for turn in range(parsed.repeats + 1):
            for name, loader in loaders.items():
                found = loader.epoch()
                if turn:
                    times[name].append(found)
    finally:
        for loader in loaders.values():
            loader.close()
    for name, found in times.items():
        if name == "ours":
            continue
        spent = [
            [(each["seconds"], each["cpu_seconds"]) for each in epochs]
            for epochs in (times["ours"], found)
        ]
        result = common.comparison(*spent)
        common.close(
            "peers",
            parsed.events,
            result,
            reference=REFERENCES[name],
            cores=1,
            cpu_ratio=round(result.cpu_ratio or 0.0, 4),
            peer=name,
            compression=parsed.compression,
            branches=parsed.branches,
            batch_size=parsed.batch_size,
            epoch_events={"ours": times["ours"][-1]["events"], name: found[-1]["events"]},
        )


class Loader:
    """A loader in a process of its own."""

    def __init__(self, python: Path, script: Path, request: dict[str, Any]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [python, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._ask(json.dumps(request))

    def epoch(self) -> dict[str, Any]:
        """What one epoch took."""
        return self._ask("epoch")

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            sys.exit(f"{self._process.args!r} ended with {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    main()
