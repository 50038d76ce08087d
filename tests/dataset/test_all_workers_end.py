"""All workers may end at once, in the middle of a pass: what was done is not done again."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from steps import Runs, await_that, dataset_of, kill_all

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config import Cluster
from mlaas4hep_dask.dataset.reduce import FAN_IN, TOGETHER
from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.waiting import ClusterHandle, Work
from mlaas4hep_dask.waiting.deaths import ROUNDS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
NUM_EVENTS = 16_052
FREE = 80  # partitions that are read before all workers end
CODE = """
import os
import time
from pathlib import Path

FOLDER = Path("{redlof}"[::-1])  # files that the code names are a part of it


def gated(events):
    while (FOLDER / "closed").exists():
        for number in range({free}):
            try:
                os.close(os.open(FOLDER / f"ticket-{{number}}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            return events
        time.sleep(0.02)
    return events
"""


@pytest.fixture(scope="module")
def cluster():
    """Two workers that are started again when they die."""
    with connect(Cluster(workers=2), ranks=1) as client:
        runs = Runs(client.cluster.scheduler)
        client.cluster.scheduler.add_plugin(runs)
        yield client, runs


def keys_of(folder, cms_files):
    (folder / "code").mkdir()
    (folder / "code" / "gate.py").write_text(CODE.format(redlof=str(folder)[::-1], free=FREE))
    single_top, *diboson = map(str, cms_files)
    return {
        "tree": "events",
        "samples": [
            {"name": "single_top", "label": 1, "files": single_top},
            {"name": "diboson", "label": 0, "files": diboson},
        ],
        "branches": {"include": ["MET_*", "Muon_P*", "NMuon"]},
        "function": {"callable": f"{folder}/code/gate.py:gated"},
        "partition": {"max_events": 100},
    }


@pytest.mark.parametrize("cache", [False, True])
def test_what_was_measured_when_all_workers_end_is_not_measured_again(
    tmp_path, cluster, cms_files, cache
):
    client, runs = cluster
    keys = keys_of(tmp_path, cms_files)
    undisturbed = dataset_of(keys, client, specs={"cache": None})
    expected = undisturbed.specs().to_json()
    (tmp_path / "closed").touch()
    dataset = dataset_of(keys, client, specs={"cache": str(tmp_path / "cache") if cache else None})
    dataset.plan()
    runs.done.clear()
    with ThreadPoolExecutor(1) as thread:
        measuring = thread.submit(dataset.specs)
        try:
            await_that(lambda: len(list(tmp_path.glob("ticket-*"))) == FREE, measuring)
            # Every result that is complete is taken.
            await_that(lambda: not runs.held("('merge-"), measuring)
            done, held = runs.of("('measure-"), runs.held("('measure-")
            kill_all(client)
        finally:
            (tmp_path / "closed").unlink()
        specs = measuring.result()
    assert len(done) > FREE // TOGETHER // 2
    assert len(held) < 2 * FAN_IN  # of groups of tasks of which some are not done
    again = {key for key, times in runs.of("('measure-").items() if times > 1}
    assert again <= held
    assert specs.to_json() == expected
    assert dataset.split_counts() == undisturbed.split_counts()
    if cache:
        kept = dataset_of(keys, client, specs={"cache": str(tmp_path / "cache")})
        assert kept.specs().to_json() == expected
        assert kept.num_cached() == NUM_EVENTS


def source_of(handle, function, each):
    """A source of one task for each argument."""
    left = iter(each)

    def source(_):
        return next(map(work_of, left), None)

    def work_of(argument):
        def send(_):
            return handle.submit(function, argument, pure=False)

        return Work(send, argument, place=lambda _: f"number {argument}")

    return source


def lose(argument):
    """End the worker as often as is said, or always; others take a while."""
    number, deaths, folder = argument
    for death in range(deaths):
        try:
            (Path(folder) / f"{number}-{death}").touch(exist_ok=False)
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return number


@pytest.fixture
def unforgiving(cluster):
    """The cluster, which gives a task up at the first death of a worker that had it."""
    client, _ = cluster
    scheduler = client.cluster.scheduler
    allowed, scheduler.allowed_failures = scheduler.allowed_failures, 0
    yield ClusterHandle(client)
    scheduler.allowed_failures = allowed


def test_a_task_that_loses_its_workers_is_tried_again_while_others_get_on(tmp_path, unforgiving):
    each = [(number, ROUNDS if number == 30 else 0, str(tmp_path)) for number in range(60)]
    taken = dict(unforgiving.taken(source_of(unforgiving, lose, each), "numbers"))
    assert sorted(taken.values()) == list(range(60))
    assert len(list(tmp_path.iterdir())) == ROUNDS


@pytest.mark.parametrize("num_others", [0, 200])
def test_a_task_that_ends_its_workers_ends_the_wait_with_what_it_is_of(
    tmp_path, unforgiving, num_others
):
    each = [(number, 100 if number == 20 else 0, str(tmp_path)) for number in range(num_others)]
    if not each:
        each = [(20, 100, str(tmp_path))]
    text = r"numbers: \d workers? died .*at task 'lose' of number \(20, 100, .*ended by SIGKILL"
    with pytest.raises(ClusterError, match=text):
        dict(unforgiving.taken(source_of(unforgiving, lose, each), "numbers"))
    num_deaths = len(list(tmp_path.iterdir()))
    assert num_deaths == (1 + ROUNDS if num_others else 1)
