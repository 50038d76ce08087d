"""The main job, small: a whole run by the command, to be the same wherever it computes."""

import json
import subprocess
import sys

from paths import TUTORIAL

DATA = TUTORIAL / "data"
SIGNAL, BACKGROUND = "cms_heptutorial_single_top.root", "cms_heptutorial_ww.root"


def write_config(folder, *, where=DATA, ranks=2):
    """Write dataset.yaml, of two files below a folder or a URL."""
    config = {
        "name": "t",
        "tree": "events",
        "samples": [
            {"name": "st", "label": 1, "files": f"{where}/{SIGNAL}"},
            {"name": "ww", "label": 0, "files": f"{where}/{BACKGROUND}"},
        ],
        "branches": {"include": ["MET_*", "NJet", "Jet_*"]},
        "specs": {"cache": None},
        "training": {"epochs": 2, "ranks": ranks},
    }
    (folder / "dataset.yaml").write_text(json.dumps(config))  # JSON is YAML


def command(place):
    """The command line of a run in the current folder; results are in its folder ``run``."""
    return [
        *(sys.executable, "-m", "mlaas4hep_dask.run", "dataset.yaml"),
        *("--cluster", place, "--output", "run"),
    ]


def run(folder, place, *options, timeout=240):
    """The finished process of a run, which must not fail, with what it has printed."""
    done = subprocess.run(
        [*command(place), *options], cwd=folder, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def results(folder):
    """What a run must find wherever it computes: specs apart from provenance, loss and AUC."""
    specs = json.loads((folder / "run" / "specs.json").read_text())
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    test = {name: metrics["test"][name] for name in ("num_events", "loss", "auc")}
    del specs["provenance"]
    return {"specs": specs, "num_epochs": len(metrics["epochs"]), **test}
