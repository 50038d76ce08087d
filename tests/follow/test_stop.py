"""What a run has left is ended and removed, on a batch system in a folder."""

import json
import socket

import pytest
from click.testing import CliRunner
from queue_in_folder import commands_in, jobs

from mlaas4hep_dask.follow.cli import stop
from mlaas4hep_dask.follow.jobs import jobs_of
from mlaas4hep_dask.journal import Journal, Run
from mlaas4hep_dask.journal.read import JOURNAL

pytestmark = pytest.mark.slow
PAUSE = 2_000_000_000  # nanoseconds


@pytest.fixture
def place(tmp_path, monkeypatch):
    return commands_in(tmp_path, monkeypatch)


@pytest.fixture
def run(tmp_path):
    """A run whose process is gone, and that has two jobs on record."""
    folder = tmp_path / "run"
    journal = Journal()
    with journal.kept(folder / JOURNAL):
        journal.add(Run("t", "0.1.0", 2**30, socket.gethostname(), None, "another"))
    cluster = tmp_path / "run.jobs" / "20260101-000000-ab12"
    cluster.mkdir(parents=True)
    driver = {"host": socket.gethostname(), "pid": 2**30, "system": "slurm", "run": "ab12"}
    (cluster / "driver.json").write_text(json.dumps(driver) + "\n")
    with (cluster / "jobs.jsonl").open("w") as file:
        for number in (1, 2):
            worker = f"readers-ab12-{number}"
            record = {"event": "submitted", "group": "readers", "worker": worker, "job": number}
            file.write(json.dumps(record) + "\n")
    return folder


def test_a_job_with_an_id_that_was_given_again_is_not_ended(place, run):
    (place / "job-1").write_text("RUNNING|None|mlaas4hep-readers-ab12-1")
    (place / "job-2").write_text("RUNNING|None|of somebody else")
    assert [job.id for job in jobs_of(run).left] == ["1"]
    done = CliRunner().invoke(stop, [str(run)])
    assert "ending 1 jobs that it left in the queue: 1\n" in done.output
    assert jobs(place) == {"of somebody else"}
    assert (place / "cancelled").read_text() == "1\n"
