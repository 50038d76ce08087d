"""Files in buckets of an S3 server."""

import json
import signal
import socket
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
from paths import TESTS
from servers import OTHERS, http_server, metrics_of_a_run, needs_servers, started
from test_remote_tables import require_equal
from test_tables import made_columns, partitions_of, write
from test_xrootd import whole

from mlaas4hep_dask.errors import DataError, MissingExtraError, UnreadableFileError
from mlaas4hep_dask.reader import Access, Pace, access, counting, plan_file, read

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]
TABLES = ["a.parquet", "a.csv", "a.csv.gz", "a.jsonl.zst"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cms_files):
    made = tmp_path_factory.mktemp("objects")
    for name in TABLES:
        write(made / name, made_columns())
    for file in cms_files:
        (made / file.name).symlink_to(file)
    return made


@contextmanager
def s3_server(folder):
    """The process of a server that holds the files of a folder, and how to reach it."""
    import s3fs

    with started(OTHERS, TESTS / "s3_server.py") as (process, url):
        options = options_of(url)
        fs = s3fs.S3FileSystem(**options, skip_instance_cache=True)
        fs.mkdir("bucket")
        for path in folder.iterdir():
            fs.pipe(f"bucket/{path.name}", path.read_bytes())
        yield process, fs, {"s3": options}


def options_of(url):
    return {"endpoint_url": url, "key": "someone", "secret": "secret"}


@pytest.fixture(scope="module")
def server(folder):
    with s3_server(folder) as (_, fs, options):
        yield fs, options


@needs_servers
def test_a_root_file_in_a_bucket_equals_the_local_one(server, cms_files, cms_plans):
    _, options = server
    local = cms_plans[0]
    with counting() as counts:
        there = plan_file(
            f"s3://bucket/{cms_files[0].name}", "events", "s", Access(options=options)
        )
        assert (there.uuid, there.branches) == (local.uuid, local.branches)
        branches = list(local.branches.values())
        require_equal(read(whole(there), branches), read(whole(local), branches))
    assert not counts.retries


@needs_servers
@pytest.mark.parametrize("name", TABLES)
def test_a_table_in_a_bucket_equals_the_local_one(server, folder, name):
    _, options = server
    local = plan_file(str(folder / name), "Events", "s")
    there = plan_file(f"s3://bucket/{name}", "Events", "s", Access(options=options))
    assert (there.uuid, there.branches) == (local.uuid, local.branches)
    branches = list(local.branches.values())
    for limits in ({}, {"max_events": 701}):
        for part, own in zip(
            partitions_of(there, **limits), partitions_of(local, **limits), strict=True
        ):
            require_equal(read(part, branches), read(own, branches))


@needs_servers
@pytest.mark.parametrize("where", ["bucket/absent.root", "absent/a.root", "bucket/absent.csv"])
def test_an_object_that_does_not_exist_is_named_at_once(server, where):
    _, options = server
    with counting() as counts, pytest.raises(UnreadableFileError, match=where):
        plan_file(f"s3://{where}", "events", "s", Access(options=options))
    assert not counts.retries


@needs_servers
@pytest.mark.parametrize("name", ["cms_heptutorial_single_top.root", "a.parquet", "a.csv.gz"])
def test_a_server_that_dies_in_the_middle_of_an_object_is_an_error_not_a_loss(folder, hasty, name):
    with s3_server(folder) as (process, _, options):
        how = replace(hasty, options=options, attempts=2, timeout=10)
        plan = plan_file(f"s3://bucket/{name}", "events", "s", how)
        process.send_signal(signal.SIGUSR1)
        with counting() as counts, pytest.raises(UnreadableFileError, match="after 2 attempts"):
            read(whole(plan), list(plan.branches.values()))
        assert counts.retries == {plan.file: 1}
        assert process.wait(timeout=20) == -signal.SIGKILL


@needs_servers
def test_another_server_takes_over_from_a_bucket(folder, hasty, cms_files, cms_plans):
    name = cms_files[0].name
    with s3_server(folder) as (process, _, options), http_server(folder) as (_, other):
        how = replace(hasty, options=options, timeout=10)
        plan = plan_file(f"s3://bucket/{name}|{other}/{name}", "events", "s", how)
        process.send_signal(signal.SIGUSR1)
        branches = list(plan.branches.values())
        with counting() as counts:
            there = read(whole(plan), branches)
        assert counts.retries == {plan.file: 1}
        require_equal(there, read(whole(cms_plans[0]), branches))


@needs_servers
def test_an_object_that_changes_in_place_is_noticed(server, cms_files):
    fs, options = server
    content = bytearray(cms_files[0].read_bytes())
    fs.pipe("bucket/changes.root", bytes(content))
    asking = Access(options=options, pace=Pace(fresh=0.0))
    plan = plan_file("s3://bucket/changes.root", "events", "s", asking)
    read(whole(plan), [plan.branches["NJet"]])
    content[2_000] ^= 1
    fs.pipe("bucket/changes.root", bytes(content))
    with pytest.raises(DataError, match="has changed since it was planned"):
        read(whole(plan), [plan.branches["NJet"]])


@needs_servers
def test_the_whole_line_runs_on_objects(server, cms_files, cms_plans, tmp_path):
    _, options = server
    names = [file.name for file in cms_files]
    (tmp_path / "dataset.yaml").write_text(
        "tree: events\n"
        "samples:\n"
        f"  - {{name: single_top, label: 1, files: 's3://bucket/{names[0]}'}}\n"
        "  - name: diboson\n"
        "    label: 0\n"
        f"    files: {json.dumps([f's3://bucket/{name}' for name in names[1:]])}\n"
        "branches: {exclude: ['MC*', EventWeight]}\n"
        f"reading: {{options: {json.dumps(options)}}}\n"
        "training: {epochs: 1}\n"
    )
    counts = metrics_of_a_run(tmp_path)["counts"]
    assert counts["events_read"] == sum(plan.num_entries for plan in cms_plans)
    assert (counts["events_skipped"], counts["retries"]) == (0, {})


@pytest.mark.parametrize("name", ["a.root", "a.parquet", "a.csv"])
def test_a_server_of_objects_that_never_answers_is_given_up(hasty, name):
    pytest.importorskip("s3fs", reason="pip install 'mlaas4hep_dask[s3]'")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        options = {"s3": options_of(f"http://127.0.0.1:{listening.getsockname()[1]}")}
        how = replace(hasty, options=options, timeout=0.5, attempts=2)
        with counting() as counts, pytest.raises(UnreadableFileError, match="after 2 attempts"):
            plan_file(f"s3://bucket/{name}", "Events", "s", how)
        assert sum(counts.retries.values()) == 1


def test_without_s3fs_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as if not installed
    access.require_scheme.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'mlaas4hep_dask\[s3\]'"):
        plan_file("s3://bucket/a.root", "Events", "s")


@needs_servers
def test_options_of_the_client_are_kept(server):
    _, options = server
    own = {"s3": {**options["s3"], "config_kwargs": {"max_pool_connections": 3}}}
    made = Access(options=own, timeout=7).storage_options("s3://bucket/a.root")
    assert made["config_kwargs"]["max_pool_connections"] == 3
    assert made["config_kwargs"]["read_timeout"] == 7
    assert own["s3"]["config_kwargs"] == {"max_pool_connections": 3}
