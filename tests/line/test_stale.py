"""What changes between two passes, two runs, or an interrupt and what takes it up."""

import json
import logging
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
from mlaas4hep_dask.errors import DataError, EncodeError, UnreadableFileError

ANALYSIS = """
import os

from cuts import passes


def select(events):
    return events[passes(events.Jet_pt, events.MET)]


def by_environment(events):
    return events[events.MET > float(os.environ.get("STALE_CUT", "0"))]


def scaled(events):
    events["MET"] = events.MET * float(os.environ.get("STALE_SCALE", "1"))
    return events
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


def test_values_that_change_between_the_passes_are_an_error(keys, tmp_path, client):
    keys["function"] = {"callable": "analysis.py:scaled"}
    dataset = Dataset(Config.from_mapping(keys, base=tmp_path), client)
    lazy = dataset.to_dask()
    try:
        # As another processor, which rounds otherwise.
        client.run(lambda: os.environ.update(STALE_SCALE="1.000001"))
        assert len(client.compute(lazy.x).result()) == dataset.specs().num_events
        client.run(lambda: os.environ.update(STALE_SCALE="3"))
        expected = (
            r"\d+ values of branch 'MET' are outside .* run again with --set specs.cache=null"
        )
        with pytest.raises(DataError, match=expected):
            client.compute(lazy.x).result()
    finally:
        client.run(lambda: os.environ.pop("STALE_SCALE"))


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


def cut(path):
    path.write_bytes(path.read_bytes()[:-2_000])


def replace_by_another(path):
    shutil.copy(path.with_name("s1.root"), path)


@pytest.mark.parametrize("harm", [Path.unlink, cut, replace_by_another])
def test_a_file_that_is_another_one_in_pass_2_is_lost_as_a_deleted_one(
    keys, tmp_path, client, harm
):
    del keys["function"]
    dataset = Dataset(Config.from_mapping({**keys, "on_bad_file": "skip"}), client)
    arrays = dataset.to_dask()
    harm(tmp_path / "s0.root")
    x, w = (future.result() for future in client.compute([arrays.x, arrays.w]))
    assert len(x) == len(w) == 800
    assert np.array_equal(np.flatnonzero(w == 0), np.arange(400))
    lost = dataset.lost()
    assert [entry.skipped.file for entry in lost] == [str(tmp_path / "s0.root")] * len(lost)
    assert sum(entry.num_events for entry in lost) == 400


def test_without_skip_a_file_that_is_another_one_ends_the_run(keys, tmp_path, client):
    del keys["function"]
    arrays = Dataset(Config.from_mapping(keys), client).to_dask()
    replace_by_another(tmp_path / "s0.root")
    with pytest.raises(UnreadableFileError, match="has changed since it was planned"):
        client.compute(arrays.x).result()


def test_a_cache_that_cannot_be_written_is_told_of_once(keys, tmp_path, client, caplog):
    del keys["function"]
    (tmp_path / "cache").mkdir()
    for number in range(256):  # where the folders of the entries would be
        (tmp_path / f"cache/{number:02x}").touch()
    for number in range(4):
        shutil.copy(tmp_path / "s0.root", tmp_path / f"s0_{number}.root")
    keys["samples"][0]["files"] = str(tmp_path / "s0*.root")
    dataset = Dataset(Config.from_mapping(keys), client)
    with caplog.at_level(logging.WARNING):
        assert dataset.specs().num_events == 2_400
    told = [record.message for record in caplog.records if "not kept" in record.message]
    assert told == [f"specs of 6 files are not kept in {tmp_path / 'cache'}: File exists"]
    (note,) = dataset.plan().notes
    assert note.endswith("its events may count twice; likewise 3 more")


def test_a_normalisation_that_fails_names_its_line(keys, tmp_path, client):
    del keys["function"]
    (tmp_path / "normalise.py").write_text(
        "from helper import third\n\n\ndef scaled(specs):\n    return third(specs)\n"
    )
    (tmp_path / "helper.py").write_text("def third(specs):\n    return specs.no_such, 1\n")
    keys["encode"] = {"normalisation": "normalise.py:scaled"}
    dataset = Dataset(Config.from_mapping(keys, base=tmp_path), client)
    with pytest.raises(EncodeError, match=r"failed in line 2 of helper.py for branch"):
        dataset.encoding()
