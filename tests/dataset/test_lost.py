import json
import logging
import signal
from functools import partial

import numpy as np
import pytest
from servers import http_server

from mlaas4hep_dask import journal
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.console import Reporter
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.errors import DataError, TrainingError, UnreadableFileError
from mlaas4hep_dask.run import fit
from mlaas4hep_dask.run.console import RunConsole

pytestmark = pytest.mark.cluster


@pytest.fixture
def server(cms_files):
    """A server of the tutorial's files, and what ends it."""
    with http_server(cms_files[0].parent) as (process, base):

        def end():
            process.kill()
            process.wait(timeout=20)

        yield base, end


def config_of(cms_files, base, **more):
    keys = {
        "name": "losses",
        "tree": "events",
        "samples": [
            {"name": "local", "label": 1, "files": str(cms_files[0])},
            {"name": "kept", "label": 0, "files": str(cms_files[1])},
            {"name": "remote", "label": 0, "files": f"{base}/{cms_files[3].name}"},
        ],
        "branches": {"include": ["NJet", "MET_px", "Jet_Px", "Jet_btag"]},
        "select": "NJet >= 1",
        "partition": {"max_events": 1500},
        "training": {"epochs": 2, "batch_size": 500},
        "reading": {"attempts": 2},
        "on_bad_file": "skip",
    }
    return Config.from_mapping({**keys, **more})


@pytest.mark.timeout(120)
def test_a_file_that_breaks_in_pass_2_is_reported_and_its_events_weigh_nothing(
    cms_files, server, client
):
    base, end = server
    dataset = Dataset(config_of(cms_files, base), client)
    arrays = dataset.to_dask()
    end()
    x, missing, y, w, ids, split = (array.compute() for array in arrays)
    remote = [sum(c) for sample, c in dataset.split_counts() if sample == "remote"]
    num_lost = sum(remote)
    assert 0 < num_lost < 2_421
    assert [entry.num_events for entry in dataset.lost()] == remote
    assert all(base in entry.skipped.reason for entry in dataset.lost())
    assert dataset.skipped() == ()
    assert len(x) == len(y) == len(ids) == len(w) == len(split)
    assert np.array_equal(np.flatnonzero(w == 0), np.arange(len(w) - num_lost, len(w)))
    assert missing[-num_lost:].all()
    assert not x[-num_lost:].any()
    assert sum(dataset.read_counts().retries.values()) >= len(remote)


@pytest.mark.timeout(120)
def test_without_skip_a_file_that_breaks_in_pass_2_is_an_error(cms_files, server, client):
    base, end = server
    dataset = Dataset(config_of(cms_files, base, on_bad_file="error"), client)
    arrays = dataset.to_dask()
    end()
    with pytest.raises(UnreadableFileError, match=cms_files[3].name):
        arrays.w.compute()


class Ends(Reporter):
    """Calls a function when the specs pass is done."""

    def __init__(self, end, *, after="specs"):
        super().__init__()
        self._end = end
        self._after = after

    def hear(self, record):
        super().hear(record)
        if isinstance(record, journal.StageEnd) and record.stage == self._after:
            self._end()


@pytest.mark.timeout(240)
def test_training_goes_on_with_the_events_that_are_left(
    cms_files, server, client, tmp_path, caplog, capsys
):
    base, end = server
    dataset = Dataset(config_of(cms_files, base), client)
    with caplog.at_level(logging.WARNING, "mlaas4hep_dask.run"):
        result = fit(dataset, output=tmp_path / "run", reporter=Ends(end))
    warned = [record for record in caplog.messages if "sample remote: none of its" in record]
    assert len(warned) == 1  # though there are two epochs
    counts = json.loads((tmp_path / "run" / "metrics.json").read_text())["counts"]
    assert counts["skipped"] == []
    assert counts["events_lost"] == sum(entry["num_events"] for entry in counts["lost"]) > 0
    assert {entry["sample"] for entry in counts["lost"]} == {"remote"}
    assert list(counts["retries"]) == [f"{base}/{cms_files[3].name}"]
    assert any("could not be read in training" in note for note in counts["notes"])
    warnings = [note for note in counts["notes"] if note.startswith("WARNING")]
    (warning,) = [note for note in warnings if "could be read" in note]
    assert f"of sample remote could be read in training ({counts['events_lost']:,} ev" in warning
    assert result.summary["test"]["auc"] > 0.5
    records = journal.read(tmp_path / "run")
    lost = [
        (each.file, each.entry_start, each.num_events) for each in records.of(journal.LostRange)
    ]
    keys = ("file", "entry_start", "num_events")
    assert sorted(lost) == sorted(tuple(entry[key] for key in keys) for entry in counts["lost"])
    assert {each.stage for each in records.of(journal.LostRange)} == {"train"}
    retries = records.of(journal.Retries)
    assert {each.file for each in retries} == set(counts["retries"])
    assert sum(each.attempts for each in retries) == sum(counts["retries"].values())
    RunConsole().table(result.summary)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "lost in training" in line]
    assert f" {counts['events_lost']:,} " in row
    report = result.report.read_text()
    assert "could not be read in training" in report
    assert "Retries" in report


@pytest.mark.timeout(120)
def test_a_server_that_ends_once_training_has_costs_nothing(cms_files, server, client, tmp_path):
    base, end = server
    config = config_of(cms_files, base, on_bad_file="error")
    dataset = Dataset(config, client)
    result = fit(dataset, output=tmp_path / "run", reporter=Ends(end, after="train"))
    assert result.summary["counts"]["retries"] == {}
    assert result.bundle.manifest["example"]["NJet"] >= 1
    assert result.report.exists()


@pytest.mark.timeout(120)
def test_a_run_of_which_nothing_can_be_read_any_more_names_the_file(
    cms_files, server, client, tmp_path
):
    base, end = server
    remote = {"name": "remote", "files": f"{base}/{cms_files[3].name}"}
    target = {"kind": "regression", "branch": "MET_py"}
    dataset = Dataset(config_of(cms_files, base, samples=[remote], target=target), client)
    with pytest.raises(DataError, match="can be read any more: ") as error:
        fit(dataset, output=tmp_path / "run", reporter=Ends(end))
    assert error.value.file == remote["files"]


TASKS = {
    "a label": ({}, "class 'remote'"),
    "a class from a branch": (
        {"target": {"branch": "where(MET_py > 0, 0, 1)", "classes": ["up", "down"]}},
        "class 'up'",
    ),
    "a regression": ({"target": {"kind": "regression", "branch": "MET_py"}}, "the data set"),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("task", TASKS)
def test_a_class_of_which_nothing_is_left_in_training_ends_the_run(
    cms_files, server, client, tmp_path, task
):
    base, end = server
    change, named = TASKS[task]
    remote = {"name": "remote", "label": 0, "files": f"{base}/{cms_files[3].name}"}
    samples = [{"name": "local", "label": 1, "files": str(cms_files[0])}, remote]
    if change:
        del remote["label"]
        samples = [remote]
    dataset = Dataset(config_of(cms_files, base, samples=samples, **change), client)
    # Without any sample that can be read, the trial before training would end the run.
    after = "trial" if change else "specs"
    with pytest.raises(TrainingError, match=f"no training event of {named} could be read") as error:
        fit(dataset, output=tmp_path / "run", reporter=Ends(end, after=after))
    num_lost = sum(sum(c) for sample, c in dataset.split_counts() if sample == "remote")
    assert f"{num_lost:,} events of remote are lost" in error.value.message
    assert error.value.file == remote["files"]
    assert not (tmp_path / "run" / "bundle").exists()


class Stops(Ends):
    """Ends the server after the specs pass, and the run after its first epoch."""

    def say(self, text):
        super().say(text)
        if text.startswith("epoch 1/"):
            raise KeyboardInterrupt


@pytest.mark.timeout(180)
def test_a_run_that_is_taken_up_again_reports_what_it_had_lost_before(cms_files, client, tmp_path):
    with http_server(cms_files[0].parent) as (process, base):
        config = config_of(cms_files, base, reading={"attempts": 1, "timeout": 1.0})
        with pytest.raises(KeyboardInterrupt):
            fit(
                Dataset(config, client),
                output=tmp_path / "run",
                reporter=Stops(partial(process.send_signal, signal.SIGSTOP)),
            )
        process.send_signal(signal.SIGCONT)
        dataset = Dataset(config, client)
        result = fit(dataset, output=tmp_path / "run")
    counts = result.summary["counts"]
    remote = [sum(c) for sample, c in dataset.split_counts() if sample == "remote"]
    assert counts["events_lost"] == sum(remote) > 0
    assert [entry["num_events"] for entry in counts["lost"]] == remote
    assert len(result.summary["epochs"]) == 2
    assert not (tmp_path / "run.1").exists()
    records = journal.read(tmp_path / "run")
    assert [each.status for each in records.of(journal.End)] == ["interrupted", "complete"]
    assert [each.num_events for each in records.of(journal.LostRange)] == remote


def test_what_uproot_reads_is_counted_by_branch(edge_cases, client):
    file = str(edge_cases / "nano_dimuon_rntuple.root")
    samples = [
        {"name": "a", "label": 1, "files": file},
        {"name": "b", "label": 0, "files": str(edge_cases / "nano_dy.root")},
    ]
    config = Config.from_mapping(
        {"samples": samples, "branches": {"include": ["MET_pt"]}, "partition": {"max_events": 10}}
    )
    counts = Dataset(config, client)
    assert counts.specs().num_events == 80
    assert counts.read_counts().as_json() == {"retries": {}, "read_by_uproot": {"MET_pt": 4}}
