"""Parquet, CSV and JSON lines on servers."""

import signal
from dataclasses import replace

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import HTTP_AND_XROOTD, http_server, metrics_of_a_run, needs_xrootd, xrootd_server
from test_tables import FILES, NUM_EVENTS, made_columns, partitions_of, write

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.reader import Access, Pace, counting, plan_file, read

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One table in every format."""
    made = tmp_path_factory.mktemp("tables")
    made.chmod(0o755)
    for name in FILES:
        write(made / name, made_columns())
    return made


@pytest.fixture(scope="module", params=HTTP_AND_XROOTD)
def url(request, folder):
    with request.param(folder) as (_, base):
        yield base


def require_equal(there, here):
    assert there.num_events == here.num_events
    assert list(there.contents) == list(here.contents)
    for name, content in here.contents.items():
        assert there.contents[name].dtype == content.dtype
        np.testing.assert_array_equal(there.contents[name], content)
    for name, offsets in here.offsets.items():
        np.testing.assert_array_equal(there.offsets[name], offsets)


@pytest.mark.parametrize("name", FILES)
def test_a_remote_table_equals_the_local_one(url, folder, name):
    access = Access(pace=Pace(text_bytes=1 << 14))  # so that a file has several pieces
    local = plan_file(str(folder / name), "Events", "s", access)
    with counting() as counts:
        remote = plan_file(f"{url}/{name}", "Events", "s", access)
        assert (remote.uuid, remote.num_entries) == (local.uuid, NUM_EVENTS)
        assert (remote.branches, remote.clusters) == (local.branches, local.clusters)
        branches = list(local.branches.values())
        for limits in ({}, {"max_events": 701}):
            for there, here in zip(
                partitions_of(remote, **limits), partitions_of(local, **limits), strict=True
            ):
                require_equal(read(there, branches), read(here, branches))
    assert not counts.retries


@pytest.mark.parametrize("name", FILES)
def test_a_server_that_dies_in_the_middle_of_a_table_is_an_error_not_a_loss(folder, hasty, name):
    with http_server(folder) as (process, base):
        plan = plan_file(f"{base}/{name}", "Events", "s", replace(hasty, attempts=2, timeout=10))
        process.send_signal(signal.SIGUSR1)
        (part,) = partitions_of(plan)
        with counting() as counts, pytest.raises(UnreadableFileError, match="after 2 attempts"):
            read(part, list(plan.branches.values()))
        assert counts.retries == {plan.file: 1}
        assert process.wait(timeout=20) == -signal.SIGKILL


@pytest.mark.parametrize("name", FILES)
def test_a_replica_takes_over_in_the_middle_of_a_table(folder, hasty, name):
    with http_server(folder) as (process, base), http_server(folder) as (_, other):
        plan = plan_file(f"{base}/{name}|{other}/{name}", "Events", "s", replace(hasty, timeout=10))
        process.send_signal(signal.SIGUSR1)
        (part,) = partitions_of(plan)
        branches = list(plan.branches.values())
        with counting() as counts:
            there = read(part, branches)
        assert counts.retries == {plan.file: 1}
        (local,) = partitions_of(plan_file(str(folder / name), "Events", "s"))
        require_equal(there, read(local, branches))


def test_a_row_group_may_take_longer_than_the_time_out_if_its_pieces_do_not(tmp_path):
    numbers = np.random.default_rng(3).random((10, 60_000))
    columns = {f"x{i}": values for i, values in enumerate(numbers)}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
    with http_server(tmp_path, "2e6") as (_, base):  # 4.8 MB: 2.4 s
        access = Access(attempts=1, timeout=1.2, pace=Pace(answer_bytes=1 << 17))
        plan = plan_file(f"{base}/a.parquet", "Events", "s", access)
        (part,) = partitions_of(plan)
        found = read(part, list(plan.branches.values())).contents
        for name, values in columns.items():
            np.testing.assert_array_equal(found[name], values)


@needs_xrootd
@pytest.mark.parametrize(
    ("name", "number"), [("a.parquet", signal.SIGKILL), ("a.csv.zst", signal.SIGSTOP)]
)
def test_an_xrootd_server_that_dies_or_stops_is_an_error_not_a_hang(folder, hasty, name, number):
    with xrootd_server(folder) as (server, base):
        plan = plan_file(f"{base}/{name}", "Events", "s", replace(hasty, attempts=2, timeout=3))
        first, *_, last = partitions_of(plan, max_events=1_000)
        branches = list(plan.branches.values())
        assert read(first, branches).num_events == len(first)
        server.send(number)
        with counting() as counts, pytest.raises(UnreadableFileError, match="after 2 attempts"):
            read(last, branches)
        assert counts.retries == {plan.file: 1}


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz"])
def test_what_a_dead_server_takes_away_is_counted_if_asked(folder, name, client, tmp_path):
    here = [tmp_path / f"{run}-{name}" for run in (1, 2)]
    for run, path in enumerate(here):
        write(path, made_columns() | {"run": np.full(NUM_EVENTS, run)})
    with http_server(folder) as (process, base):
        samples = [
            {"name": "here", "label": 1, "files": str(here[0])},
            {"name": "there", "label": 0, "files": [f"{base}/{name}", str(here[1])]},
        ]
        keys = {
            "samples": samples,
            "partition": {"max_events": 1_000},
            "reading": {"attempts": 2, "timeout": 10},
            "on_bad_file": "skip",
            "specs": {"cache": None},
        }
        dataset = Dataset(Config.from_mapping(keys), client)
        dataset.plan()
        process.send_signal(signal.SIGUSR1)
        read_events = dataset.specs().samples["there"].num_read
        lost = dataset.skipped()
        assert {entry.file for entry in lost} == {f"{base}/{name}"}
        num_lost = sum(entry.entry_stop - entry.entry_start for entry in lost)
        assert num_lost == 2 * NUM_EVENTS - read_events > 0
        assert dataset.specs().samples["here"].num_read == NUM_EVENTS


@needs_xrootd
def test_the_whole_line_runs_on_tables_of_two_servers(tmp_path):
    rng = np.random.default_rng(7)
    data = tmp_path / "data"
    data.mkdir()
    for name, mean in (("signal.parquet", 2.0), ("background.jsonl.gz", 0.0)):
        counts = rng.integers(0, 4, 2_000)
        jets = ak.unflatten(rng.exponential(30, counts.sum()), counts)
        write(data / name, {"MET": rng.normal(mean, 1, 2_000), "Jet_pt": jets})
    with http_server(data) as (_, near), xrootd_server(data) as (_, far):
        (tmp_path / "dataset.yaml").write_text(
            "samples:\n"
            f"  - {{name: signal, label: 1, files: '{near}/signal.parquet'}}\n"
            f"  - {{name: background, label: 0, files: '{far}/background.jsonl.gz'}}\n"
            "training: {epochs: 2, batch_size: 100}\n"
        )
        metrics = metrics_of_a_run(tmp_path)
    counts = metrics["counts"]
    assert counts["events_read"] == counts["events_selected"] == 4_000
    assert (counts["events_skipped"], counts["retries"]) == (0, {})
    assert metrics["test"]["auc"] > 0.8
