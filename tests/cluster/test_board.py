"""The board of the dashboard's page: what is told, folded into tables."""

from mlaas4hep_dask.cluster.page.board import MAX_LINES, MAX_RUNS, Board, RunBoard
from mlaas4hep_dask.journal import (
    Death,
    End,
    Epoch,
    LostRange,
    Progress,
    Retries,
    Run,
    Samples,
    Stage,
    StageEnd,
)
from mlaas4hep_dask.journal.records import to_json

RUN = Run("demo", "1.0", 17, "login", None, "")


def told(*records, run="one"):
    facts = [{"time": float(number), **to_json(each)} for number, each in enumerate(records)]
    return {"run": run, "records": facts}


def board_of(*records):
    board = Board()
    board.hear(told(*records))
    return board


def job(board, event, worker, **facts):
    board.hear({"run": "", "records": [{"time": 0.0, "event": event, "worker": worker, **facts}]})


def test_the_rate_is_that_of_the_time_since_the_last_word():
    steps = [Progress("specs", 100, 1000, 1.0), Progress("specs", 400, 1000, 2.0)]
    run = board_of(RUN, Stage("specs", 1000), *steps).latest
    assert [rate for _, _, rate in run.rates] == [100.0, 300.0]
    assert run.stages["specs"].rate == 300.0
    assert run.stages["specs"].total == 1000


def test_a_stage_that_is_over_has_its_mean_rate():
    row = board_of(Stage("specs", 1000), StageEnd("specs", 1000, 4.0)).latest.stages["specs"]
    assert (row.events, row.rate, row.is_over) == (1000, 250.0, True)


def test_a_stage_of_a_new_attempt_begins_at_nothing():
    records = [Stage("train", 10), Progress("train", 8, 10, 4.0), Stage("train", 10)]
    row = board_of(*records, Progress("train", 1, 10, 1.0)).latest.stages["train"]
    assert (row.events, row.rate) == (1, 1.0)


def test_samples_have_what_the_plan_and_the_workers_tell():
    board = board_of(RUN, Samples("plan", {"tt": {"files": 2, "events": 100}}))
    for events in (30, 20):
        board.hear_of_sample({"stage": "specs", "sample": "tt", "events": events})
    board.hear_of_sample({"stage": "blocks", "sample": "tt", "events": 5})
    assert board.latest.samples == {"tt": {"files": 2, "events": 100}}
    assert (board.done["specs"]["tt"], board.done["blocks"]["tt"]) == (50, 5)


def test_a_new_run_begins_to_count_its_samples_anew():
    board = board_of(RUN)
    board.hear_of_sample({"stage": "specs", "sample": "tt", "events": 30})
    board.hear(told(RUN, run="two"))
    assert board.done["specs"]["tt"] == 0


def test_every_epoch_tells_how_long_each_rank_waited():
    metrics = {"seconds": 2.0, "data_wait": [0.5, 0.25]}
    run = board_of(Epoch(1, 2, metrics, "auc", "AUC"), Epoch(2, 2, {}, "auc", "AUC")).latest
    assert list(run.waits) == [(1, 0, 0.5, 2.0), (1, 1, 0.25, 2.0)]


def test_bad_files_attempts_and_deaths_are_counted():
    lost = LostRange("specs", "tt", "a.root", "Events", 0, 10, "truncated")
    attempts = [Retries("specs", "a.root", 2), Retries("train", "a.root", 1)]
    run = board_of(RUN, lost, *attempts, Death("tcp://1", False), Death("tcp://2", True)).latest
    assert list(run.lost_ranges) == [lost]
    assert run.retries == {"a.root": 3}
    assert "1 workers died" in run.state()


def test_the_state_is_the_stage_at_work_and_then_the_end():
    run = board_of(RUN, Stage("plan", 0)).latest
    assert run.state() == "demo, process 17 on login: stage plan"
    run.hear({"time": 1.0, **to_json(End("failed", "no such file"))})
    assert "no such file" in run.state()


def test_jobs_are_counted_by_state_with_the_most_frequent_reason():
    board = Board()
    for number, reason in enumerate(["Priority", "Resources", "Resources"]):
        worker = f"readers-{number}"
        job(board, "submitted", worker, group="readers", job=str(number))
        job(board, "told", worker, job=str(number), state="pending", text=f"{reason}\nmore")
    job(board, "told", "readers-1", job="1", state="connected", text="is here")
    job(board, "refused", "trainers-0", group="trainers", text="no such account")
    assert board.jobs_by_state() == [
        ("readers", "connected", 1, "is here"),
        ("readers", "pending", 2, "Priority"),
        ("trainers", "refused", 1, "no such account"),
    ]


def test_a_job_that_was_lost_stays_lost_when_it_is_cancelled():
    board = Board()
    job(board, "submitted", "readers-0", group="readers", job="1")
    job(board, "told", "readers-0", job="1", state="lost", text="killed for memory")
    job(board, "cancelled", "readers-0", job="1")
    assert board.jobs_by_state() == [("readers", "lost", 1, "killed for memory")]


def test_jobs_that_are_over_make_room_and_those_at_work_stay():
    board = Board()
    for number in range(2 * MAX_LINES):
        job(board, "told", f"readers-{number}", state="connected", text="is here")
    for number in range(2 * MAX_LINES):
        job(board, "told", f"trainers-{number}", state="lost", text="its node failed")
    assert board.jobs_by_state() == [
        ("readers", "connected", 2 * MAX_LINES, "is here"),
        ("trainers", "lost", MAX_LINES, "its node failed"),
    ]
    assert f"trainers-{2 * MAX_LINES - 1}" in board.jobs


def test_that_no_more_jobs_are_submitted_has_its_reason():
    board = Board()
    board.hear({"run": "", "records": [{"event": "gave up", "text": "20 jobs were lost"}]})
    assert board.trouble == "20 jobs were lost"
    assert board.jobs == {}


def test_kinds_that_a_later_version_tells_are_passed_over():
    run = RunBoard()
    run.hear({"time": 0.0, "kind": "from the future", "what": 1})
    assert run == RunBoard()


def test_the_last_runs_are_kept_and_the_one_that_told_last_is_shown():
    board = Board()
    for number in range(MAX_RUNS + 3):
        board.hear(told(RUN, run=f"run {number}"))
    assert len(board.runs) == MAX_RUNS
    board.hear(told(Stage("plan", 0), run=f"run {MAX_RUNS + 1}"))
    assert list(board.latest.stages) == ["plan"]
