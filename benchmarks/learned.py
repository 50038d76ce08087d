"""What a run learns by default, against XGBoost and the published network on the same events.

The command runs a dataset.yaml with nothing but samples (and, of the CMS open data, the branches
that would give the label away), and once more with the published network and its training. XGBoost
has 300 trees of depth 4 and rate 0.1, on the same training events in rows that nobody scaled. All
are measured on the test events of the same split; repeats have other orders and initial weights.
``ratio`` is the published training's time over the default's: it is to be at least 0.2.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import uproot
import yaml
from encoding_sets import heavy_tails
from numpy.typing import NDArray

from mlaas4hep_dask import Dataset, connect

SHIPPED = Path(__file__).parents[1] / "workflows" / "heptutorial"
NUM_TREES = 300
TREES = {"objective": "binary:logistic", "max_depth": 4, "learning_rate": 0.1, "nthread": 1}
LACKING = "no XGBoost is installed to compare with: pip install xgboost-cpu"


def shipped(folder: Path, num_events: int) -> Path:  # noqa: ARG001  # all of the files
    """A dataset.yaml of the CMS open data, with nothing but its samples and what is no input."""
    document = yaml.safe_load((SHIPPED / "dataset.yaml").read_text(encoding="utf-8"))
    for sample in document["samples"]:
        files = sample["files"]
        named = [files] if isinstance(files, str) else files
        sample["files"] = [str(SHIPPED / name) for name in named]
    kept = {key: document[key] for key in ("name", "tree", "samples", "branches")}
    return _written(folder / "heptutorial.yaml", kept)


def generated(folder: Path, num_events: int) -> Path:
    """A dataset.yaml of two files with power-law momenta, a mass peak and absurd values."""
    made = heavy_tails(num_events, 0)
    samples = []
    for label, name in enumerate(("background", "signal")):
        events = made.events[made.labels == label]
        columns = {field: events[field].to_numpy() for field in events.fields}
        with uproot.recreate(folder / f"{name}.root") as file:
            file.mktree("Events", {field: values.dtype for field, values in columns.items()})
            file["Events"].extend(columns)
        samples.append({"name": name, "label": label, "files": f"{name}.root"})
    return _written(folder / "heavy-tails.yaml", {"name": "heavy-tails", "samples": samples})


SETS: dict[str, Callable[[Path, int], Path]] = {"heptutorial": shipped, "heavy-tails": generated}


def _written(file: Path, document: dict[str, Any]) -> Path:
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return file


def learned(config: Path, output: Path, seed: int, options: list[str]) -> tuple[float, float]:
    """Test AUC and the seconds of the training, of a run of the command."""
    seeds = [f"seed.order={seed}", f"seed.weights={seed}"]
    words = [word for setting in (*seeds, *options) for word in ("--set", setting)]
    command = [sys.executable, "-m", "mlaas4hep_dask.run", str(config), "--output", str(output)]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    (seconds,) = (stage["seconds"] for stage in metrics["stages"] if stage["stage"] == "train")
    return metrics["test"]["auc"], seconds


def rows_of(config: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int8]]:
    """Unscaled rows, NaN where nothing is, their labels and their split."""
    with connect(workers=1) as cluster:
        unscaled = ["encode.normalisation=none"]
        arrays = Dataset.from_yaml(config, cluster, overrides=unscaled).to_dask()
        lazy = [arrays.x, arrays.missing, arrays.y, arrays.split]
        x, missing, y, split = cluster.client.gather(cluster.client.compute(lazy))
    return np.where(missing, np.float32(np.nan), x), y, split


def area_of(scores: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """The probability that an event of signal scores higher than one of background."""
    _, places = np.unique(scores, return_inverse=True)
    signal, background = (np.bincount(places[y == k], minlength=len(y)) for k in (1, 0))
    below = np.cumsum(background) - background / 2
    return float((signal * below).sum() / signal.sum() / background.sum())


def trees(config: Path) -> float | None:
    """Test AUC of XGBoost; None where it is not installed."""
    try:
        from xgboost import DMatrix, train
    except ImportError:
        return None
    x, y, split = rows_of(config)
    forest = train(TREES, DMatrix(x[split == 0], y[split == 0]), num_boost_round=NUM_TREES)
    return area_of(forest.predict(DMatrix(x[split == 2])), y[split == 2])


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        sets={"nargs": "+", "choices": tuple(SETS), "default": list(SETS), "help": "of data"},
    )
    published = common.as_options(common.PUBLISHED)
    areas: dict[str, dict[str, float | None]] = {}
    times: dict[str, dict[str, float]] = {}
    print("| data | default | published | XGBoost | seconds of training, default and published |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for data, make in SETS.items():
            if data not in parsed.sets:
                continue
            config = make(folder, parsed.events)
            found: dict[str, list[tuple[float, float]]] = {"default": [], "published": []}
            for seed in range(parsed.repeats):
                for what, options in (("default", []), ("published", published)):
                    output = folder / f"{data}-{what}-{seed}"
                    found[what].append(learned(config, output, seed, options))
            area = {what: statistics.mean(a for a, _ in runs) for what, runs in found.items()}
            times[data] = {what: statistics.median(t for _, t in r) for what, r in found.items()}
            areas[data] = {**area, "xgboost": trees(config)}
            cells = ["none" if a is None else f"{a:.4f}" for a in areas[data].values()]
            seconds = " and ".join(f"{t:.1f}" for t in times[data].values())
            print(f"| {data} | {' | '.join(cells)} | {seconds} |", flush=True)
    if any(each["xgboost"] is None for each in areas.values()):
        print(LACKING)
    ours, theirs = (sum(each[what] for each in times.values()) for what in ("default", "published"))
    common.close(
        "learned",
        parsed.events,
        common.Comparison(ours, theirs, theirs / ours),
        reference="the published network, five epochs of batches of 100 with Adam",
        cores=2,
        repeats=parsed.repeats,
        auc=areas,
        training_seconds=times,
        default_minus_xgboost={
            data: None if each["xgboost"] is None else round(each["default"] - each["xgboost"], 4)  # type: ignore[operator]
            for data, each in areas.items()
        },
    )


if __name__ == "__main__":
    main()
