"""What the first events of each sample tell before a cluster is started."""

import json
import subprocess
import sys

import awkward as ak
import numpy as np
import pytest
import uproot
from servers import http_server

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.errors import DataError, FunctionError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.inputs.prepare import HEAD_EVENTS
from mlaas4hep_dask.run.cli import main

NUM_EVENTS = 1_500
TARGET = {"branch": "flavour", "classes": ["light", "heavy"]}


def write(path, *, bad=(), **more):
    """A tree whose label is 2, and whose weight is NaN, at the entries ``bad``."""
    counts = np.arange(NUM_EVENTS) % 3
    flavour = (np.arange(NUM_EVENTS) % 2).astype("int32")
    flavour[list(bad)] = 2
    pt = ak.unflatten(np.arange(1.0, counts.sum() + 1), counts)
    columns = {
        "x": np.arange(NUM_EVENTS, dtype="float64"),
        "flavour": flavour,
        "w": np.where(flavour == 2, np.nan, 1.0),
        "Jet": ak.zip({"pt": pt}),
        **more,
    }
    with uproot.recreate(path) as out:
        kinds = {name: ak.type(ak.Array(values)).content for name, values in columns.items()}
        out.mktree("t", kinds).extend(columns)
    return str(path)


@pytest.fixture
def keys(tmp_path):
    files = [write(tmp_path / "a.root"), write(tmp_path / "b.root", bad=[7, 9])]
    return {
        "tree": "t",
        "samples": [{"name": name, "files": file} for name, file in zip("ab", files, strict=True)],
        "branches": {"include": ["x"]},
        "specs": {"cache": None},
    }


def check(keys, **more):
    return preflight(description_of(Config.from_mapping({**keys, **more})))


def labelled(keys):
    """The same data with labels of samples."""
    samples = [{**sample, "label": n} for n, sample in enumerate(keys["samples"])]
    return {**keys, "samples": samples}


def test_a_label_of_no_class_is_found_in_the_second_sample_too(keys):
    with pytest.raises(
        DataError, match=r"b\.root: entry 7: target.branch 'flavour' is 2"
    ) as caught:
        check(keys, target=TARGET)
    assert caught.value.entry == 7
    assert "(2 such events" in str(caught.value)


def test_the_first_object_of_an_event_without_any_is_no_target(keys):
    target = {"branch": "Jet_pt[:, 0]", "kind": "regression"}
    with pytest.raises(DataError, match=r"a\.root: entry 0: .*'Jet_pt\[:, 0\]' is nan, expected a"):
        check(keys, target=target)
    check(keys, target=target, select="count(Jet_pt) > 0")


def test_a_weight_is_finite_for_events_that_are_not_selected_if_their_sum_normalises(keys):
    keys = labelled(keys)
    check(keys, weight="w", select="flavour < 2")
    keys["samples"] = [{**sample, "cross_section": 2.0} for sample in keys["samples"]]
    with pytest.raises(DataError, match=r"b\.root: entry 7: weight 'w' is nan, expected a finite"):
        check(keys, weight="w", select="flavour < 2")


def test_a_label_of_an_event_that_is_not_selected_does_not_matter(keys):
    check(keys, target=TARGET, select="flavour < 2")


def test_a_selection_that_leaves_none_of_the_first_events_is_no_error(keys):
    check(keys, target=TARGET, select=f"x >= {HEAD_EVENTS}")


def test_events_beyond_the_limit_are_not_tried(keys):
    check(keys, target=TARGET, max_events=7)


def test_what_lies_beyond_the_first_events_is_found_by_the_workers(keys, tmp_path, client):
    write(tmp_path / "b.root", bad=[HEAD_EVENTS + 3])
    config = Config.from_mapping({**keys, "target": TARGET})
    dataset = Dataset(config, client, preflight(description_of(config)))
    with pytest.raises(DataError, match=rf"b\.root: entry {HEAD_EVENTS + 3}: .* is 2, expected a"):
        dataset.specs()


def test_a_function_is_tried_on_samples_with_other_branches(keys, tmp_path):
    (tmp_path / "analysis.py").write_text(
        "def truth(events):\n    events['good'] = events.flavour > 0\n"
        "    return events if 'generated' in events.fields else events.nothing\n"
    )
    write(tmp_path / "a.root", generated=np.zeros(NUM_EVENTS))
    keys = {
        **labelled(keys),
        "branches": {"include": ["good"]},
        "function": {"callable": f"{tmp_path}/analysis.py:truth", "events": "base"},
    }
    with pytest.raises(FunctionError, match=r"in line 3 of .*b\.root.* no field named 'nothing'"):
        check(keys)
    write(tmp_path / "b.root", generated=np.zeros(NUM_EVENTS))
    check(keys)


def test_files_without_events_are_passed_over(keys, tmp_path):
    (tmp_path / "analysis.py").write_text("def same(events):\n    return events\n")
    with uproot.recreate(tmp_path / "a.root") as out:
        out.mktree("t", {"x": "float64", "flavour": "int32"})
    with uproot.recreate(tmp_path / "b.root") as out:
        out.mktree("t", {"x": "float64", "flavour": "int32"})
    check(keys, target=TARGET)
    check(keys, target=TARGET, function={"callable": f"{tmp_path}/analysis.py:same"})


@pytest.mark.server
def test_remote_files_are_left_to_the_workers(keys, tmp_path):
    with http_server(tmp_path) as (_, base):
        for sample in keys["samples"]:
            sample["files"] = f"{base}/{sample['name']}.root"
        check(keys, target=TARGET)


@pytest.mark.slow
def test_the_command_ends_before_a_cluster_is_started(keys, tmp_path, capsys):
    file = tmp_path / "dataset.yaml"
    file.write_text(Config.from_mapping({**keys, "target": TARGET}).to_yaml(absolute=True))
    for options in ([], ["--check"]):
        assert main([str(file), "--output", str(tmp_path / "run"), *options]) == 2
        told = capsys.readouterr()
        assert "error: " in told.err
        assert "b.root: entry 7: target.branch 'flavour' is 2" in told.err
        assert "dashboard" not in told.out


@pytest.mark.slow
def test_no_compiler_is_started_for_it(keys):
    # numba's first call takes from a fifth of a second to one, which the start of a run would wait.
    code = (
        "import sys, json\n"
        "from mlaas4hep_dask.config import Config\n"
        "from mlaas4hep_dask.dataset.description import description_of\n"
        "from mlaas4hep_dask.inputs.preflight import preflight\n"
        "from numba.core import entrypoints\n"
        "preflight(description_of(Config.from_mapping(json.loads(sys.argv[1]))))\n"
        "assert not entrypoints._already_initialized\n"
    )
    more = {"target": {**TARGET, "branch": "where(flavour < 2, flavour, 0)"}}
    more |= {"objects": {"Jet": "Jet_pt > 10"}, "select": "count(Jet_pt) > 0", "weight": "x"}
    subprocess.run([sys.executable, "-c", code, json.dumps({**keys, **more})], check=True)
