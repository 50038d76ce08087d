import html
import re

import pytest

from mlaas4hep_dask.journal import (
    Caution,
    Death,
    Epoch,
    Journal,
    LostRange,
    Message,
    Note,
    Retries,
    Run,
)
from mlaas4hep_dask.journal.read import JOURNAL
from mlaas4hep_dask.report import render

METRICS = {"seconds": 1.0, "events_per_second": 10.0, "train": {"loss": 0.5, "score": 0.75}}


def text_of(page):
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


def write(folder, *, fails=None):
    journal = Journal()
    with journal.kept(folder / JOURNAL):
        journal.add(Run("<top>", "0.1.0", 7, "login", "mlaas4hep run top.yaml"))
        with journal.stage("specs", 900):
            journal.add(LostRange("specs", "QCD", "bad.root", "Events", 0, None, "no such file"))
        journal.add(Retries("specs", "root://a/b.root", 2))
        journal.add(Retries("train", "root://a/b.root", 1))
        journal.add(Note("two files have one UUID"))
        journal.add(Caution("the network is flat"))
        journal.add(Death("tcp://127.0.0.1:4000", is_expected=False))
        for number in (1, 2):
            journal.add(Epoch(number, 3, {"epoch": number, **METRICS}, "score", "my score"))
        if fails is not None:
            raise fails
        journal.add(Message("last words"))


@pytest.mark.parametrize(
    ("fails", "fate"),
    [
        (
            ValueError("branch 'x' is\ngone"),
            "The run has failed: branch 'x' is Its last record, of",
        ),
        (KeyboardInterrupt(), "The run was interrupted; the same command takes it up again."),
    ],
)
def test_the_report_of_a_run_that_broke_off_is_made_of_its_journal(tmp_path, fails, fate):
    with pytest.raises(type(fails)):
        write(tmp_path, fails=fails)
    page = render(tmp_path)
    text = text_of(page)
    assert fate in text
    assert "mlaas4hep run top.yaml" in text
    assert "<top>" in text
    assert "<top>" not in page
    assert "my score of each split after each epoch" in text
    assert re.search(r"specs 900 \d", text)
    assert "bad.root" in text
    assert re.search(r"root://a/b\.root 3", text)
    for note in ("two files have one UUID", "WARNING: the network is flat", ":4000 died"):
        assert note in text
    assert "Not recorded." in text


def test_a_run_at_work_shows_its_last_record(tmp_path):
    journal = Journal()
    with journal.kept(tmp_path / JOURNAL):
        journal.add(Message("waiting for 2 workers"))
        assert re.search(r"has not ended.* UTC: waiting for 2 workers", render(tmp_path))


def test_a_stage_without_events_has_no_rate(tmp_path):
    journal = Journal()
    with journal.kept(tmp_path / JOURNAL), journal.stage("export"):
        pass
    row = re.search(r"export (\S+) (\S+) (\S+) ", text_of(render(tmp_path)))
    assert (row[1], row[3]) == ("\N{EN DASH}", "\N{EN DASH}")
