"""What changes between two passes, two runs, or an interrupt and what takes it up."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.errors import DataError

ANALYSIS = """
import os

from cuts import passes


def select(events):
    return events[passes(events.Jet_pt, events.MET)]


def by_environment(events):
    return events[events.MET > float(os.environ.get("STALE_CUT", "0"))]
"""
CUTS = """
import awkward as ak

LIMIT = {limit}


def passes(jets, met):
    return ak.sum(jets, axis=1) > LIMIT
"""


@pytest.fixture
def keys(tmp_path):
    """Two samples of 400 events; the folder has the function and its helper."""
    random = np.random.default_rng(5)
    samples = []
    for label in (0, 1):
        counts = random.integers(0, 5, 400)
        file = tmp_path / f"s{label}.root"
        with uproot.recreate(file) as out:
            jets = ak.unflatten(random.exponential(30 + 10 * label, counts.sum()), counts)
            out.mktree("Events", {"Jet_pt": "var * float32", "MET": "float32"})
            out["Events"].extend({"Jet_pt": jets, "MET": random.exponential(20, 400)})
        samples.append({"name": f"s{label}", "label": label, "files": str(file)})
    (tmp_path / "analysis.py").write_text(ANALYSIS)
    (tmp_path / "cuts.py").write_text(CUTS.format(limit=10))
    return {
        "samples": samples,
        "function": {"callable": "analysis.py:select"},
        "branches": {"include": ["Jet_pt", "MET"]},
        "partition": {"max_events": 150},
        "specs": {"cache": str(tmp_path / "cache")},
    }


def num_expected(tmp_path, limit):
    parts = [uproot.open(tmp_path / f"s{label}.root")["Events"].arrays() for label in (0, 1)]
    return sum(int(ak.sum(ak.sum(part.Jet_pt, axis=1) > limit)) for part in parts)


def test_a_changed_helper_is_run_by_workers_that_know_the_earlier_one(keys, tmp_path, client):
    for limit in (10, 60, 10, 100):
        (tmp_path / "cuts.py").write_text(CUTS.format(limit=limit))
        dataset = Dataset(Config.from_mapping(keys, base=tmp_path), client)
        expected = num_expected(tmp_path, limit)
        assert dataset.specs().num_events == expected
        lazy = dataset.to_dask()
        assert client.compute(lazy.x).result().shape[0] == expected
    assert dataset.num_cached() == 0
    (tmp_path / "cuts.py").write_text(CUTS.format(limit=10))
    assert (again := Dataset(Config.from_mapping(keys, base=tmp_path), client)).specs()
    assert again.num_cached() == 800  # the specs of the code as it was are there still


def test_a_data_set_runs_the_code_that_it_began_with(keys, tmp_path, client):
    dataset = Dataset(Config.from_mapping(keys, base=tmp_path), client)
    dataset.plan()
    (tmp_path / "cuts.py").write_text(CUTS.format(limit=100))
    assert dataset.specs().num_events == num_expected(tmp_path, 10)
    other = Dataset(Config.from_mapping(keys, base=tmp_path), client)
    assert other.specs().num_events == num_expected(tmp_path, 100)  # not from the cache


def test_a_selection_that_changes_between_the_passes_is_an_error_with_both_numbers(
    keys, tmp_path, client
):
    keys["function"] = {"callable": "analysis.py:by_environment"}
    dataset = Dataset(Config.from_mapping(keys, base=tmp_path), client)
    lazy = dataset.to_dask()
    try:
        client.run(lambda: os.environ.update(STALE_CUT="30"))
        with pytest.raises(DataError, match=r"pass selected .* now they are") as found:
            client.compute(lazy.x).result()
    finally:
        client.run(lambda: os.environ.pop("STALE_CUT"))
    error = found.value
    file = uproot.open(error.file)["Events"].arrays(["MET"])[slice(*error.entries)]
    assert sum(error.counted) == int(ak.sum(file.MET > 0))
    assert sum(error.found) == int(ak.sum(file.MET > 30))


NORMALISE = """
from constants import SCALE


def scaled(specs):
    return specs.min, SCALE
"""


def run(*arguments, cwd):
    command = [sys.executable, "-m", "mlaas4hep_dask.run", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.timeout(280)
def test_an_interrupted_run_is_not_taken_up_under_another_normalisation(keys, tmp_path):
    import yaml

    (tmp_path / "normalise.py").write_text(NORMALISE)
    (tmp_path / "constants.py").write_text("SCALE = 0.01\n")
    keys["encode"] = {"normalisation": "normalise.py:scaled"}
    keys["training"] = {"epochs": 1}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(keys))
    done = run("dataset.yaml", "--output", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    state = json.loads((tmp_path / "out/run.json").read_text())
    for limit in ("0.01", "0.02"):
        (tmp_path / "out/run.json").write_text(json.dumps({**state, "status": "running"}))
        (tmp_path / "constants.py").write_text(f"SCALE = {limit}\n")
        done = run("dataset.yaml", "--output", "out", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        taken_up = "taking up the run" in done.stdout
        assert taken_up == (limit == "0.01")
    assert "normalisation normalise.py:scaled: module constants changed" in done.stdout
    manifest = json.loads((tmp_path / "out/bundle/manifest.json").read_text())
    assert all(
        rule["scale"] == 0.02
        for entry in manifest["encode"]["normalisation"]
        for rule in entry.values()
    )
    assert Path(tmp_path / "out.1").is_dir()
    shutil.rmtree(tmp_path / "out.1")
