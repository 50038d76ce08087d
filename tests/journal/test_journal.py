import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.command import exit_status
from mlaas4hep_dask.command.ends import Terminated
from mlaas4hep_dask.console import Console, Reporter, is_said
from mlaas4hep_dask.errors import ConfigError, RecordError, WriteError
from mlaas4hep_dask.journal import (
    Caution,
    Death,
    End,
    Epoch,
    Journal,
    LostRange,
    Message,
    Note,
    Other,
    Progress,
    Retries,
    Run,
    Samples,
    Stage,
    StageEnd,
    birth_of,
    read,
    text,
)
from mlaas4hep_dask.journal.read import JOURNAL
from mlaas4hep_dask.journal.records import from_json, to_json

METRICS = {
    "epoch": 1,
    "seconds": 2.0,
    "events_per_second": 1234.0,
    "train": {"loss": 0.5, "auc": 0.75},
    "validation": {"loss": 0.6, "auc": None},
}
RECORDS = [
    Run(
        "single-top", "0.1.0", 77, "login", "python -m mlaas4hep_dask.run dataset.yaml", "b/12", "h"
    ),
    Stage("specs", 3_000),
    Progress("specs", 1_000, 3_000, 2.5),
    StageEnd("specs", 3_000, 4.0),
    StageEnd("train", 500, 4.0, is_complete=False),
    Samples("specs", {"QCD": {"read": 3_000, "selected": 500}}),
    Epoch(1, 5, METRICS, "auc", "AUC"),
    Message("specs of 3,000 events measured now"),
    Note("two files have one UUID"),
    Caution("the network is flat"),
    Caution("no answer within 30 s", "mlaas4hep_dask.waiting"),
    LostRange("specs", "QCD", "root://a/b.root", "Events", 100, 200, "truncated", 90),
    LostRange("plan", "QCD", "b.root", "Events", 0, None, "not found"),
    Retries("specs", "root://a/b.root", 2),
    Death("tcp://127.0.0.1:4000", is_expected=False),
    End("failed", "branch 'x' is missing"),
]
TEXTS = st.text(st.characters(), max_size=8)  # lone surrogates too, as in names that are no UTF-8


def journal_of(folder, *records):
    journal = Journal()
    with journal.kept(folder / JOURNAL):
        for record in records:
            journal.add(record)
    return folder / JOURNAL


def test_every_kind_of_record_is_read_as_it_was_written(tmp_path):
    path = journal_of(tmp_path, *RECORDS)
    records = read(path)
    assert list(records) == [*RECORDS, End("complete")]
    assert list(read(tmp_path)) == list(records)  # of the run directory
    assert records.cut == ()
    times = [entry.time for entry in records.entries]
    assert times == sorted(times)
    assert all(time.tzinfo is not None for time in times)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["version"] for line in lines} == {1}
    assert [line["kind"] for line in lines][:4] == ["run", "stage", "progress", "stage_end"]
    assert len({type(record) for record in RECORDS}) == len({line["kind"] for line in lines}) == 13


@given(
    st.lists(
        st.builds(Message, TEXTS)
        | st.builds(LostRange, *[TEXTS] * 4, st.integers(), st.none() | st.integers(), TEXTS)
    )
)
def test_any_text_survives_its_line(records):
    lines = [json.dumps(to_json(record)) for record in records]
    assert [from_json(json.loads(line)) for line in lines] == records
    assert not any("\n" in line for line in lines)


@given(st.integers(min_value=0, max_value=10_000))
def test_a_journal_cut_anywhere_gives_its_whole_lines_and_says_so(tmp_path_factory, place):
    path = journal_of(tmp_path_factory.mktemp("cut"), *RECORDS)
    whole = path.read_bytes()
    place = min(place, len(whole))
    path.write_bytes(whole[:place])
    records, num_whole = read(path), whole[:place].count(b"\n")
    rest = whole[:place].rpartition(b"\n")[2]
    is_record = rest + b"\n" == whole.splitlines(keepends=True)[num_whole : num_whole + 1][:1]
    assert len(records) >= num_whole
    assert list(records)[:num_whole] == [*RECORDS, End("complete")][:num_whole]
    if rest and not is_record and len(records) == num_whole:
        assert records.cut == (num_whole + 1,)
        assert f"line {num_whole + 1}, cut" in records.to_text()


def test_a_journal_that_was_cut_is_continued_on_a_line_of_its_own(tmp_path):
    path = journal_of(tmp_path, Message("first"))
    with path.open("ab") as file:
        file.write(b'{"version": 1, "time": "2026-01-0')
    again = journal_of(tmp_path, Message("second"))
    assert again == path
    records = read(path)
    assert [each.text for each in records.of(Message)] == ["first", "second"]
    assert records.cut == (3,)
    assert records.status == "complete"


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_all_that_it_has_told(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from mlaas4hep_dask.journal import Journal, Message
journal = Journal()
with journal.kept(Path({str(tmp_path / JOURNAL)!r})):
    for number in range(1000):
        journal.add(Message(str(number)))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    records = read(tmp_path)
    assert [each.text for each in records.of(Message)] == [str(n) for n in range(1000)]
    assert (records.cut, records.status) == ((), "running")


def test_a_journal_is_read_while_threads_write_to_it(tmp_path):
    journal = Journal()
    with journal.kept(tmp_path / JOURNAL):
        threads = [
            threading.Thread(
                target=lambda name=name: [journal.add(Message(f"{name} {n}")) for n in range(500)]
            )
            for name in "abc"
        ]
        for thread in threads:
            thread.start()
        seen = 0
        while any(thread.is_alive() for thread in threads):
            records = read(tmp_path)
            assert records.cut in ((), (len(records) + 1,))
            assert len(records) >= seen
            seen = len(records)
        for thread in threads:
            thread.join()
    told = [each.text for each in read(tmp_path).of(Message)]
    assert len(told) == 1500
    for name in "abc":
        assert [line for line in told if line[0] == name] == [f"{name} {n}" for n in range(500)]


def test_a_kind_or_key_of_a_later_version_is_kept_or_left_out_and_a_later_version_is_named(
    tmp_path,
):
    path = journal_of(tmp_path, Message("a"))
    head = '"version": 1, "time": "2026-01-01T00:00:00+00:00"'
    with path.open("a") as file:
        file.write(f'{{{head}, "kind": "energy", "joule": 3}}\n')
        file.write(f'{{{head}, "kind": "message", "text": "b", "colour": "red"}}\n')
        file.write(f'{{{head}, "kind": "message"}}\n[1]\n\n')
    records = read(path)
    assert list(records)[2:] == [Other("energy", {"joule": 3}), Message("b")]
    assert records.cut == (5, 6)
    assert "energy" in text(Other("energy", {"joule": 3}))
    with path.open("a") as file:
        file.write('{"version": 2, "kind": "message", "text": "c"}\n')
    with pytest.raises(RecordError, match="line 8: the record is of version 2") as error:
        read(path)
    assert pickle.loads(pickle.dumps(error.value)).file == str(path)  # noqa: S301  # our own
    with pytest.raises(RecordError, match="expected the journal of a run"):
        read(tmp_path / "none")


def test_records_from_before_there_is_a_file_are_in_it_with_their_times(tmp_path):
    heard = []
    journal = Journal(heard.append)
    with journal.stage("plan") as planning:
        planning.events = 12
    with journal.kept(tmp_path / JOURNAL):
        assert len(read(tmp_path)) == 2
        journal.move(tmp_path / "new" / JOURNAL, "model changed")
        journal.add(Message("goes on"))
    assert list(read(tmp_path))[2:] == [End("moved", "model changed")]
    plan = [Stage("plan", 0), StageEnd("plan", 12, journal.stages[0].seconds)]
    assert list(read(tmp_path / "new")) == [*plan, Message("goes on"), End("complete")]
    assert heard == [*plan, Message("goes on"), End("complete")]
    assert read(tmp_path).entries[:2] == read(tmp_path / "new").entries[:2]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (ValueError("a\nb"), End("failed", "a")),
        (KeyboardInterrupt(), End("interrupted", "KeyboardInterrupt")),
    ],
)
def test_what_breaks_off_a_stage_ends_the_journal(tmp_path, error, end):
    journal = Journal()

    def work():
        with journal.kept(tmp_path / JOURNAL), journal.stage("train", 100) as advance:
            advance(40)
            raise error

    with pytest.raises(type(error)):
        work()
    *_, broken, last = read(tmp_path)
    assert (broken.stage, broken.events, broken.is_complete, last) == ("train", 40, False, end)
    assert journal.stages == []
    assert read(tmp_path).status == end.status


def test_progress_is_heard_always_and_written_seldom(tmp_path):
    heard = []
    journal = Journal(heard.append)
    with journal.kept(tmp_path / JOURNAL), journal.stage("train", 10_000) as advance:
        for _ in range(10_000):
            advance(1)
        progress = [each for each in heard if isinstance(each, Progress)]
        assert [each.events for each in progress] == list(range(1, 10_001))
        assert len(read(tmp_path).of(Progress)) <= progress[-1].seconds + 1


def test_the_end_of_a_command_has_its_exit_status_and_is_told_once(tmp_path):
    journal = Journal()
    with pytest.raises(ConfigError), journal.kept(tmp_path / JOURNAL, exit_status):
        raise ConfigError("wrong")
    assert list(read(tmp_path)) == [End("failed", "wrong", 2)]
    with pytest.raises(KeyboardInterrupt), Journal().kept(tmp_path / JOURNAL, exit_status):
        raise Terminated
    assert read(tmp_path).of(End)[-1].exit_status == 143
    journal = Journal()

    def close():
        journal.end(End("complete", exit_status=0))
        raise KeyboardInterrupt  # while a cluster is closed

    with pytest.raises(KeyboardInterrupt), journal.kept(tmp_path / "done", exit_status):
        close()
    assert list(read(tmp_path / "done")) == [End("complete", exit_status=0)]


def test_a_journal_shows_that_its_process_lives_while_there_is_nothing_to_tell(tmp_path):
    path = tmp_path / JOURNAL
    with Journal().kept(path, beat=0.01):
        for _ in range(2):
            os.utime(path, (0, 0))
            while path.stat().st_mtime == 0:  # polls for the sign of life
                time.sleep(0.005)
        assert path.read_bytes() == b""
    assert not [each for each in threading.enumerate() if each.name == "journal"]


@pytest.mark.slow
def test_a_process_is_told_from_another_of_its_number():
    with subprocess.Popen(["sleep", "100"]) as process:
        birth = birth_of(process.pid)
        assert birth
        assert birth == birth_of(process.pid) != birth_of(os.getpid())
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, nobody took it
        assert birth_of(process.pid) == ""
    assert birth_of(process.pid) == ""


def test_an_epoch_that_was_trained_twice_counts_once(tmp_path):
    epochs = [
        Epoch(n, 3, {**METRICS, "seconds": s}, "auc", "AUC") for n, s in [(1, 1), (2, 2), (2, 3)]
    ]
    journal_of(tmp_path, *epochs)
    assert [each.metrics["seconds"] for each in read(tmp_path).epochs] == [1, 3]


def test_a_disk_that_is_full_is_an_error_that_names_the_journal(tmp_path):
    (tmp_path / JOURNAL).symlink_to("/dev/full")
    with (
        pytest.raises(WriteError, match=r"journal.jsonl cannot be written \(No space left"),
        Journal().kept(tmp_path / JOURNAL),
    ):
        pass


def test_the_console_prints_what_a_journal_tells(tmp_path):
    with (tmp_path / "out").open("w+") as out:
        journal = Journal(Console(out).hear)
        for record in RECORDS:
            journal.add(record)
        out.seek(0)
        lines = out.read().splitlines()
    assert lines == [text(record) for record in RECORDS if is_said(record)]
    assert lines == [
        "specs: 3,000 events in 4.00 s (750 events/s)",
        "epoch 1/5, train loss 0.5000 AUC 0.7500, validation loss 0.6000 AUC none, 1,234 events/s",
        "specs of 3,000 events measured now",
        "WARNING: the network is flat",
    ]


def test_a_journal_that_was_read_prints_the_lines_of_the_live_one(tmp_path):
    class Lines(Reporter):
        def __init__(self):
            self.lines = []

        def say(self, text):
            self.lines.append(text)

    live, later = Lines(), Lines()
    journal = Journal(live.hear)
    with journal.kept(tmp_path / JOURNAL):
        for record in RECORDS:
            journal.add(record)
    for record in read(tmp_path):
        later.hear(record)
    assert later.lines == live.lines != []


def test_a_notebook_shows_every_record_as_text(tmp_path):
    journal_of(tmp_path, *RECORDS, Message("<script>"))
    page = read(tmp_path)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    for part in (
        "run single-top, process 77 on login",
        "specs: 1,000 of 3,000 events, 2 s",
        "train: broken off after 4.00 s, 500 events",
        "lost in specs: root://a/b.root, entries 100-200, 90 selected events (truncated)",
        "skipped: b.root (not found)",
        "specs: 2 attempts to read root://a/b.root failed",
        "worker tcp://127.0.0.1:4000 died",
    ):
        assert part in page
