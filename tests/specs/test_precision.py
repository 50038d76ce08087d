"""Whole numbers of more bits than rows or specs hold are told of."""

import numpy as np
import pytest
import uproot
import yaml

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.report.page import render_page
from mlaas4hep_dask.run.cli import main
from mlaas4hep_dask.run.specs_notes import specs_line, specs_notes
from mlaas4hep_dask.specs.cli import main as specs_main


@pytest.fixture
def keys(tmp_path):
    random = np.random.default_rng(1)
    samples = []
    for label in (0, 1):
        columns = {
            "met": random.exponential(30, 200).astype(np.float32),
            "flags": random.integers(0, 2**30, 200).astype(np.int32),
            "few": random.integers(0, 2**24, 200).astype(np.int32),
            "time_ns": random.integers(10**18, 2 * 10**18, 200),
            "big_id": (2**30 + random.integers(0, 1000, 200)).astype(np.float64),
            "always": np.full(200, 2**40),
            "energy": random.exponential(2.0**30, 200),
        }
        file = tmp_path / f"s{label}.root"
        with uproot.recreate(file) as out:
            out.mktree("Events", {name: values.dtype for name, values in columns.items()})
            out["Events"].extend(columns)
        samples.append({"name": f"s{label}", "label": label, "files": str(file)})
    return {"samples": samples, "specs": {"cache": None}}


SINGLE = "whole numbers beyond 2^24, of which rows of single precision keep the first 24 bits: "
DOUBLE = "whole numbers beyond 2^53, of which min, max and mean"
NAMES = "big_id, flags, time_ns; of a word of flags derive the bits"


def notes_of(dataset):
    encode = dataset.config.encode
    return specs_notes(
        dataset.specs(),
        path=dataset.config.specs.path,
        normalisation=encode.normalisation,
        out_of_range=encode.out_of_range,
    )


def test_check_tells_of_them_by_the_first_events(keys, tmp_path, capsys):
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(keys))
    assert main([str(tmp_path / "dataset.yaml"), "--check"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"note: the first events have {SINGLE}{NAMES}" in text
    assert f"note: the first events have {DOUBLE}" in text


def test_run_report_and_table_tell_of_them_by_the_specs(keys, tmp_path, client, capsys):
    dataset = Dataset(Config.from_mapping(keys), client)
    single, double = notes = notes_of(dataset)
    assert single.startswith(f"{SINGLE}{NAMES}")
    assert double.startswith(DOUBLE)
    assert double.endswith(": time_ns")
    assert single in specs_line(dataset.specs(), num_cached=0, path=None, notes=notes)
    page = render_page({}, dataset.specs(), {}, {})
    assert page.count("beyond 2^24") == 2
    assert page.count("beyond 2^53") == 1
    (tmp_path / "specs.json").write_text(dataset.specs().to_json())
    assert specs_main(["show", str(tmp_path / "specs.json")]) == 0
    assert f"{SINGLE}{NAMES}" in " ".join(capsys.readouterr().out.split())


def test_large_integers_that_differ_less_than_the_specs_hold_are_told_of(tmp_path, client, capsys):
    random = np.random.default_rng(2)
    samples = []
    for label in (0, 1):
        stamps = 17 * 10**17 + random.integers(0, 100, 300) + label
        columns = {"met": random.normal(size=300), "stamp": stamps, "always": np.full(300, 2**40)}
        file = tmp_path / f"s{label}.root"
        with uproot.recreate(file) as out:
            out.mktree("Events", columns)
            out["Events"].extend(columns)
        samples.append({"name": f"s{label}", "label": label, "files": str(file)})
    keys = {"samples": samples, "specs": {"cache": None}}
    (note,) = notes_of(Dataset(Config.from_mapping(keys), client))
    assert note.startswith("whole numbers beyond 2^53 that are one value in 53 bits")
    assert ": stamp; derive what tells them apart" in note
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(keys))
    assert main([str(tmp_path / "dataset.yaml"), "--check"]) == 0
    assert f"note: the first events have {note}" in " ".join(capsys.readouterr().out.split())
    derived = Dataset(Config.from_mapping({**keys, "derive": {"low": "(stamp & 65535)"}}), client)
    low = derived.specs().branches["low"]
    assert 99 <= low.max - low.min <= 100
