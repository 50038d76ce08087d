"""The page on the dashboard of real schedulers, as a browser gets it."""

import json
import logging
import re
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
from bokeh.document import Document
from paths import TUTORIAL

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.cluster.page import PATH, Teller, add_page, performance_report
from mlaas4hep_dask.cluster.page.document import TABLES, make_document
from mlaas4hep_dask.cluster.page.plugin import Page
from mlaas4hep_dask.config import Cluster, load
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.journal import LostRange, Run
from mlaas4hep_dask.run.stages import fit
from mlaas4hep_dask.waiting.topics import SAMPLES

pytestmark = pytest.mark.cluster

SCHEDULER = "from distributed.cli.dask_scheduler import main; main()"
WITHOUT_BOKEH = f"import sys; sys.modules['bokeh'] = None; {SCHEDULER}"


@contextmanager
def running(code, folder, *options):
    """The address of a scheduler in a process of its own, with a worker in another one."""
    host = ["--host", "127.0.0.1"]
    command = [sys.executable, "-c", code, *host, "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as scheduler:
        try:
            lines = iter(scheduler.stderr.readline, "")
            address = next(line.split()[-1] for line in lines if "Scheduler at:" in line)
            command = [sys.executable, "-m", "distributed.cli.dask_worker", address, *host]
            command += ["--no-dashboard", "--nthreads", "1", "--local-directory", str(folder)]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as worker:
                try:
                    yield address
                finally:
                    worker.terminate()
        finally:
            scheduler.terminate()


def url_of(client):
    port = client.scheduler_info()["services"]["dashboard"]
    return f"http://127.0.0.1:{port}/{PATH}"


def drawn(dask_scheduler):
    """By name: the columns of all tables, and the line above, as a browser is given them."""
    document = Document()
    make_document(dask_scheduler.plugins[Page.name].board, dask_scheduler, {}, document)
    data = {name: dict(document.get_model_by_name(name).data) for name in (*TABLES, "rates")}
    return data, document.get_model_by_name("head").text


def tables_of(client):
    """By name: the rows of the tables, and the line above; the page has them too."""
    assert httpx.get(url_of(client)).status_code == 200
    data, head = client.run_on_scheduler(drawn)
    return {name: list(zip(*each.values(), strict=True)) for name, each in data.items()}, head


@pytest.fixture(scope="module")
def trained(client, tmp_path_factory):
    """A run of the tutorial on a cluster, and what the page shows of it."""
    output = tmp_path_factory.mktemp("page") / "run"
    config = load(TUTORIAL / "dataset.yaml", ["training.epochs=2", "specs.cache=null"])
    told = []
    client.subscribe_topic(SAMPLES, lambda event: told.append(event[1]))
    result = fit(Dataset(config, client), output=output)
    client.unsubscribe_topic(SAMPLES)
    return result, *tables_of(client), told


def test_the_page_shows_the_stages_of_a_run(trained):
    result, rows, head, _ = trained
    stages = {name: (events, of) for name, events, of, *_ in rows["stages"]}
    assert list(stages) == ["start", "plan", "specs", "trial", "train", "export"]
    assert stages["specs"][0] == "16,052"
    assert result.summary["name"] in head
    assert "complete" in head


def test_the_page_shows_how_much_of_each_sample_both_passes_went_through(trained):
    result, rows, _, _ = trained
    shown = {name: (events, first, second) for name, _, events, first, second, _ in rows["samples"]}
    for sample in result.summary["samples"]:
        number = f"{sample['num_read']:,}"
        assert shown[sample["name"]] == (number, number, number)


def test_workers_tell_the_scheduler_of_each_partition_and_sample(trained):
    result, _, _, told = trained
    for sample in result.summary["samples"]:
        own = [each for each in told if each["sample"] == sample["name"]]
        assert sum(each["events"] for each in own if each["stage"] == "specs") == sample["num_read"]


def test_the_page_shows_how_long_ranks_waited_for_data(trained):
    result, rows, _, _ = trained
    waits = [epoch["data_wait"] for epoch in result.summary["epochs"]]
    for epoch in result.summary["epochs"]:
        assert 0 <= min(epoch["data_wait"]) <= max(epoch["data_wait"]) <= epoch["seconds"]
    assert any(map(any, waits))
    shown = {(epoch, rank): seconds for epoch, rank, seconds, _ in rows["waits"]}
    assert shown == {
        (epoch, rank): f"{seconds:.3f} s"
        for epoch, ranks in enumerate(waits, 1)
        for rank, seconds in enumerate(ranks)
    }


def test_the_page_is_in_the_bar_of_the_dashboard(client):
    status = httpx.get(url_of(client).replace(PATH, "status"))
    assert f'href="{PATH}"' in status.text


def test_jobs_and_bad_files_stand_there_with_their_reasons_as_text(client):
    reason = "<script>alert(1)</script>"
    with Teller(client, "another run") as run, Teller(client) as jobs:
        run.hear(Run("<b>demo</b>", "1.0", 17, "login", None, ""))
        run.hear(LostRange("specs", "tt", "a.root", "Events", 0, 10, reason))
        jobs.tell({"event": "submitted", "group": "readers", "worker": "readers-0", "job": "7"})
        told = {"state": "pending", "text": "7 waits: Resources"}
        jobs.tell({"event": "told", "worker": "readers-0", "job": "7", **told})
    rows, head = tables_of(client)
    assert rows["jobs"] == [("readers", "pending", 1, "7 waits: Resources")]
    assert rows["lost_ranges"] == [("specs", "tt", "a.root", "0-10", "", reason)]
    assert "&lt;b&gt;demo" in head


def test_a_run_that_fails_tells_why(client):
    def work():
        with Teller(client, "a third run") as run:
            run.hear(Run("demo", "1.0", 17, "login", None, ""))
            raise OSError("no room left")

    with pytest.raises(OSError, match="no room"):
        work()
    assert "no room left" in tables_of(client)[1]


def test_what_workers_tell_before_the_first_record_of_a_run_is_kept(client):
    with Teller(client, "a fourth run") as run:
        client.log_event(SAMPLES, {"stage": "specs", "sample": "tt", "events": 7})
        run.hear(Run("demo", "1.0", 17, "login", None, ""))

    def done(dask_scheduler):
        return dask_scheduler.plugins[Page.name].board.done["specs"]["tt"]

    assert client.run_on_scheduler(done) == 7


def test_a_second_client_finds_the_page_that_is_there(client):
    before = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.plugins))
    add_page(client)
    after = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.plugins))
    assert before == after


def test_no_page_is_added_where_the_dashboard_was_turned_off(tmp_path, caplog):
    caplog.set_level(logging.WARNING)  # Dask silences handlers while a cluster lives
    with (
        running(SCHEDULER, tmp_path, "--no-dashboard", "--dashboard-address", "127.0.0.1:0") as at,
        connect(Cluster(address=at), ranks=1) as client,
    ):
        assert httpx.get(url_of(client)).status_code == 404
    assert not [each for each in caplog.records if each.name.startswith("mlaas4hep_dask.cluster")]


@pytest.mark.nightly
def test_a_run_goes_on_with_a_note_where_the_scheduler_has_no_bokeh(tmp_path):
    output = tmp_path / "run"
    with running(WITHOUT_BOKEH, tmp_path, "--dashboard-address", "127.0.0.1:0") as address:
        command = [sys.executable, "-m", "mlaas4hep_dask.run", str(TUTORIAL / "dataset.yaml")]
        command += ["--output", str(output), "--cluster", address, "--performance-report"]
        command += ["--set", "training.epochs=1", "--set", "training.ranks=1"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"no page /{PATH} on the dashboard" in done.stderr
    assert "there is no dask-report.html" in done.stderr
    assert json.loads((output / "metrics.json").read_text())["test"]["auc"] > 0.5
    assert not list(output.glob("*dask-report*"))


def test_the_performance_report_is_kept_as_a_whole(client, tmp_path):
    with performance_report(client, tmp_path / "dask-report.html"):
        client.submit(sum, [1, 2], pure=False).result()
    assert [each.name for each in tmp_path.iterdir()] == ["dask-report.html"]
    text = (tmp_path / "dask-report.html").read_text()
    assert "Dask Performance Report" in text
    assert not re.search(r"<script[^>]*\ssrc=", text)


def test_the_performance_report_is_kept_of_work_that_fails(client, tmp_path):
    with pytest.raises(ZeroDivisionError), performance_report(client, tmp_path / "report.html"):
        client.submit(lambda: 1 / 0).result()
    assert (tmp_path / "report.html").exists()
