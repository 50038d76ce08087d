import os
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mlaas4hep_dask.detached.head import HEAD, Head
from mlaas4hep_dask.errors import RecordError
from mlaas4hep_dask.follow.page import as_json, duration, page
from mlaas4hep_dask.follow.standing import SILENCE, look, pace_of
from mlaas4hep_dask.journal import (
    Caution,
    Death,
    End,
    Entry,
    Epoch,
    LostRange,
    Progress,
    Retries,
    Run,
    Samples,
    Stage,
    StageEnd,
    birth_of,
)
from mlaas4hep_dask.journal.journal import _line
from mlaas4hep_dask.journal.read import JOURNAL, STARTING

HERE = socket.gethostname()
BIRTH = birth_of(os.getpid())
OTHER = f"{BIRTH.partition('/')[0]}/1"  # a process of this boot that is no more
ALIVE = Run("t", "0.1.0", os.getpid(), HERE, "mlaas4hep run d.yaml", BIRTH)
GONE = Run("t", "0.1.0", os.getpid(), HERE, None, OTHER)
ELSEWHERE = Run("t", "0.1.0", os.getpid(), "login.example.org", None, "another boot/1")
NOW = datetime(2026, 11, 29, 12, 0, 0, tzinfo=UTC)


def written(folder, *records, name=JOURNAL, age=0.0):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"".join(map(_line, records)))
    then = time.time() - age
    os.utime(folder / name, (then, then))
    return folder


def aged(entries_of_folder, seconds):
    """The lines of a journal as if they had been written earlier."""
    path = entries_of_folder / JOURNAL
    then = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    lines = [line.split(", ", 2) for line in path.read_text().splitlines()]
    path.write_text("".join(f'{a}, "time": "{then}", {c}\n' for a, _, c in lines))
    os.utime(path, (time.time() - seconds,) * 2)


@pytest.mark.parametrize(
    ("records", "state"),
    [
        ([ALIVE], "running"),
        ([GONE], "killed"),  # another process has its number now
        ([ELSEWHERE], "running"),
        ([GONE, End("failed", "wrong", 2)], "failed"),
        ([GONE, End("interrupted"), ALIVE], "running"),
        ([ALIVE, End("complete", exit_status=0)], "complete"),
        ([GONE, End("moved", "model changed")], "moved"),
    ],
)
def test_a_run_stands_as_its_records_and_its_process_tell(tmp_path, records, state):
    standing = look(written(tmp_path, *records))
    assert standing.state == state
    assert standing.is_here == (state == "running" and records[-1] == ALIVE)
    assert as_json(standing, None)["state"] == state
    assert page(standing, None, NOW).startswith("t: ")


def test_a_run_elsewhere_of_which_nothing_is_heard_is_silent_until_it_is_heard_again(tmp_path):
    written(tmp_path, ELSEWHERE)
    aged(tmp_path, 2 * SILENCE)
    assert look(tmp_path).state == "silent"
    assert "the last sign of life is 20 min ago" in page(look(tmp_path), None, datetime.now(UTC))
    os.utime(tmp_path / JOURNAL)  # as its process does every minute
    assert look(tmp_path).state == "running"


def test_a_process_of_an_earlier_boot_was_killed_with_its_machine(tmp_path):
    before = Run("t", "0.1.0", 1, HERE, None, "earlier boot/1")
    written(tmp_path, before)
    aged(tmp_path, 2 * SILENCE)
    assert look(tmp_path).state == "killed"
    os.utime(tmp_path / JOURNAL)  # another machine of that name is at work
    assert look(tmp_path).state == "running"


def test_a_line_that_was_cut_when_the_process_was_killed_is_no_trouble(tmp_path):
    written(tmp_path, GONE, Stage("specs", 100))
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"version": 1, "time": "20')
    standing = look(tmp_path)
    assert standing.state == "killed"
    assert standing.pace.stage == "specs"


def test_a_start_that_failed_is_told_with_the_run_that_lies_there(tmp_path):
    written(tmp_path, GONE, End("complete"))
    written(tmp_path, GONE, End("failed", "no scheduler", 2), name=STARTING)
    standing = look(tmp_path)
    assert (standing.state, standing.earlier) == ("failed", "complete")
    assert "no scheduler" in page(standing, None, NOW)
    assert f"an earlier run lies in {tmp_path}: complete" in page(standing, None, NOW)


def test_a_start_of_a_run_that_was_interrupted_still_has_its_epochs(tmp_path):
    metrics = {"epoch": 1, "train": {"loss": 0.5, "auc": 0.7}}
    written(tmp_path, GONE, Epoch(1, 5, metrics, "auc", "AUC"), End("interrupted"))
    written(tmp_path, ALIVE, Stage("start", 0), name=STARTING)
    standing = look(tmp_path)
    assert (standing.state, standing.earlier) == ("running", "")
    assert len(standing.records.epochs) == 1
    assert standing.pace.stage == "start"


def test_a_folder_without_a_run_is_an_error_that_names_the_nearest(tmp_path):
    written(tmp_path / "single-top", ALIVE)
    with pytest.raises(RecordError, match=r"no such folder.*did you mean 'single-top'"):
        look(tmp_path / "single-tip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match=f"holds no {JOURNAL}"):
        look(tmp_path / "empty")


def entries(*records):
    return [Entry(NOW + timedelta(seconds=n), record) for n, record in enumerate(records)]


def test_the_end_of_a_stage_is_expected_from_its_rate_of_late():
    slow_then_fast = [Progress("train", 10, 1_000, 90.0), Progress("train", 210, 1_000, 110.0)]
    pace = pace_of(entries(Stage("train", 1_000), *slow_then_fast))
    assert pace.events_per_second == pytest.approx(10.0)
    assert pace.end == NOW + timedelta(seconds=2 + 79)
    assert pace_of(entries(Stage("plan", 0))).end is None
    assert pace_of(entries(Stage("train", 1), StageEnd("train", 1, 1.0))) is None
    broken = entries(Stage("train", 9), StageEnd("train", 4, 1.0, is_complete=False))
    assert pace_of(broken).stage == "train"


def test_a_page_has_one_screen_of_all_that_matters(tmp_path):
    losses = [
        LostRange("specs", "QCD", f"root://a/{n}.root", "Events", 0, 50, "truncated")
        for n in range(30)
    ]
    metrics = {"train": {"loss": 0.5, "auc": 0.75}, "events_per_second": 1234.0}
    epochs = [Epoch(n, 100, metrics, "auc", "AUC") for n in range(1, 51)]
    written(
        tmp_path,
        ALIVE,
        Stage("plan", 0),
        StageEnd("plan", 3_000, 2.0),
        Samples(
            "plan", {"ttH": {"files": 1, "events": 1_000}, "QCD": {"files": 2, "events": 2_000}}
        ),
        Samples("specs", {"ttH": {"read": 900, "selected": 90}}),
        *losses,
        Retries("specs", "root://a/0.root", 3),
        Death("tcp://10.0.0.1:4000", is_expected=False),
        *[Caution(f"waiting for {n} workers\nmore", "mlaas4hep_dask.waiting") for n in range(9)],
        *[Caution("the network is flat") for _ in range(40)],
        Stage("train", 5_000),
        *epochs,
        Progress("train", 2_500, 5_000, 10.0),
    )
    standing = look(tmp_path)
    lines = page(standing, None, datetime.now(UTC)).splitlines()
    assert len(lines) <= 40
    assert lines[1] == "  mlaas4hep run d.yaml"
    assert "  plan: 3,000 events in 2.00 s (1,500 events/s)" in lines
    (train,) = [line for line in lines if line.startswith("  train: 2,500 of 5,000 events (50 %)")]
    assert "250 events/s" in train
    assert "ends at about" in train
    rows = {tuple(line.split()) for line in lines}
    assert ("samples", "files", "events", "read", "selected") in rows
    assert ("ttH", "1", "1,000", "900", "90") in rows
    assert ("QCD", "2", "2,000") in rows
    assert "epochs (50, the last 5)" in lines
    assert "cautions (10, the last 5)" in lines
    assert lines[lines.index("cautions (10, the last 5)") + 5] == "  the network is flat"
    assert "lost (30, the last 5)" in lines
    assert "3 attempts to read failed, at 1 files" in lines
    assert "1 workers died" in lines
    told = as_json(standing, None)
    assert len(told["epochs"]) == 50
    assert len(told["lost"]) == 30
    assert told["samples"]["ttH"] == {"files": 1, "events": 1_000, "read": 900, "selected": 90}
    assert told["stage"]["events_per_second"] == pytest.approx(250.0)
    assert told["retries"] == {"root://a/0.root": 3}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (61, "1 min 1 s"), (3_600, "1 h"), (7_290, "2 h 1 min"), (90_000, "1 d 1 h")],
)
def test_a_time_is_told_in_its_two_largest_units(seconds, text):
    assert duration(seconds) == text


def begun(folder, *, birth, time, host=HERE):
    """What --detach writes."""
    beside = folder.with_name(f"{folder.name}.jobs") / "20260101-000000-head-a"
    beside.mkdir(parents=True)
    head = Head(beside.name, "local", str(os.getpid()), host, "/tmp/head.log", time, birth)
    head.write(beside / HEAD)
    assert Head.read(beside / HEAD) == head
    return head


def test_what_was_detached_is_queued_until_it_tells_something_and_killed_if_it_never_did(tmp_path):
    folder = written(tmp_path / "run", GONE, End("interrupted"))
    head = begun(folder, birth=BIRTH, time=time.time() + 1)
    standing = look(folder)
    assert (standing.state, standing.head, standing.run) == ("queued", head, None)
    text = page(standing, None, NOW)
    assert text == f"run: has not begun: process {os.getpid()} on {HERE}"
    assert as_json(standing, None)["head"]["job"] == str(os.getpid())
    (tmp_path / "run.jobs").rename(tmp_path / "earlier")
    begun(folder, birth=OTHER, time=time.time() + 1)
    assert look(folder).state == "killed"
    assert "ended before the run began; see /tmp/head.log" in page(look(folder), None, NOW)


def test_what_was_detached_earlier_says_nothing_of_a_later_process(tmp_path):
    folder = written(tmp_path / "run", ELSEWHERE)
    begun(folder, birth=OTHER, time=time.time() - 100)
    assert (look(folder).state, look(folder).head) == ("running", None)


def test_a_run_elsewhere_whose_job_has_ended_was_killed(tmp_path):
    folder = written(tmp_path / "run", replace(ELSEWHERE, head="20260101-000000-head-a"))
    begun(folder, birth=OTHER, time=time.time() - 100)
    assert look(folder).state == "killed"


def test_records_of_what_was_detached_that_are_cut_are_none(tmp_path):
    (tmp_path / HEAD).write_text('{"system": "slurm", "job"')
    assert Head.read(tmp_path / HEAD) is None
    assert Head.read(tmp_path / "none") is None
