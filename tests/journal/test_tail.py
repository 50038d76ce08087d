from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.journal import End, Journal, Message, Progress, Run, Stage, StageEnd, Tail, read
from mlaas4hep_dask.journal.read import JOURNAL
from mlaas4hep_dask.run.work import work_on

CONFIG = Config.from_mapping(
    {
        "tree": "events",
        "samples": [
            {"name": "a", "label": 1, "files": "a.root"},
            {"name": "b", "label": 0, "files": "b.root"},
        ],
    }
)
RUN = Run("t", "0.1.0", 7, "login", None, "boot/1")
RECORDS = [RUN, Stage("specs", 9), Progress("specs", 4, 9, 1.0), Message("ü"), End("complete")]


def told(entries):
    return [each.record for each in entries]


@given(st.lists(st.integers(min_value=0, max_value=700), max_size=8))
def test_a_journal_that_grows_byte_by_byte_gives_every_record_once(tmp_path_factory, places):
    folder = tmp_path_factory.mktemp("tail")
    journal = Journal()
    with journal.kept(folder / "whole"):
        for record in RECORDS[:-1]:
            journal.add(record)
    whole = (folder / "whole").read_bytes()
    tail, found = Tail(folder), []
    for place in [*sorted(places), len(whole)]:
        (folder / JOURNAL).open("ab").close()
        written = (folder / JOURNAL).stat().st_size
        with (folder / JOURNAL).open("ab") as file:
            file.write(whole[written:place])
        found += told(tail.new())
        assert found == RECORDS[: len(found)]
    assert found == RECORDS
    assert tail.new() == []


@given(st.sets(st.integers(min_value=0, max_value=6)))
def test_a_run_is_followed_from_its_start_into_its_journal_and_a_new_folder(
    tmp_path_factory, asked
):
    folder = tmp_path_factory.mktemp("tail") / "run"
    with work_on(CONFIG, output=folder) as earlier:
        earlier.begin({"model": "a"})
        earlier.settle({"columns": "a"})
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints/epochs.json").write_text("{}")
        earlier.folder._drop_lock()  # as a process that is killed
        tail, found = Tail(folder), []
        with work_on(CONFIG, output=folder) as work:
            for number in range(7):
                if number == 2:
                    work.begin({"model": "a"})
                elif number == 4:
                    assert not work.settle({"columns": "b"})  # the folder is moved aside
                else:
                    work.journal.add(Message(str(number)))
                if number in asked:
                    found += told(tail.new())
            work.complete()
        found += told(tail.new())
    begun = [place for place, record in enumerate(found) if isinstance(record, Run)][-1]
    of_this = [each for each in found[begun:] if getattr(each, "status", "") != "moved"]
    assert of_this == list(read(folder))


def test_a_line_that_was_cut_is_left_out_and_what_follows_is_told(tmp_path):
    path = tmp_path / JOURNAL
    journal = Journal()
    tail = Tail(tmp_path)
    assert tail.new() == []
    with journal.kept(path):
        journal.add(RUN)
    assert told(tail.new()) == [RUN, End("complete")]
    with path.open("ab") as file:
        file.write(b'{"version": 1, "ti')
    assert tail.new() == []
    again = Journal()
    with again.kept(path):
        again.add(StageEnd("specs", 4, 1.0))
    assert told(tail.new()) == [StageEnd("specs", 4, 1.0), End("complete")]
