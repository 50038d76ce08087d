"""On a cluster with readers and trainers, trainers neither plan nor read nor encode."""

import os
import signal
from contextlib import contextmanager

import pytest
from distributed import Client, Nanny, Scheduler, SchedulerPlugin, SpecCluster, get_worker
from paths import TUTORIAL

from mlaas4hep_dask.config import load
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.predict.request import check_request
from mlaas4hep_dask.predict.scoring import predict_files
from mlaas4hep_dask.run.stages import fit, model_of
from mlaas4hep_dask.run.training import Trainer
from mlaas4hep_dask.waiting import ClusterHandle, Patience
from mlaas4hep_dask.waiting.groups import groups_of

pytestmark = pytest.mark.timeout(280)


class Places(SchedulerPlugin):
    """On which workers, by their names, the tasks of each kind have run."""

    name = "places"

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.by_kind = {}

    def transition(self, key, start, finish, *_, **facts):
        if (start, finish) == ("processing", "memory"):
            kind = self.scheduler.tasks[key].prefix.name
            name = self.scheduler.workers[facts["worker"]].name
            self.by_kind.setdefault(kind, set()).add(name)


def worker_of(name, folder):
    options = {"nthreads": 1, "local_directory": str(folder), "name": name, "dashboard": False}
    return {"cls": Nanny, "options": options}


@contextmanager
def named_workers(*names, folder):
    """A cluster of worker processes with names, its client, and where its tasks have run."""
    workers = {name: worker_of(name, folder) for name in names}
    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": options}
    with SpecCluster(workers=workers, scheduler=scheduler) as cluster, Client(cluster) as client:
        places = Places(cluster.scheduler)
        cluster.scheduler.add_plugin(places)
        client.wait_for_workers(len(names), timeout=100)
        yield cluster, client, places.by_kind


@pytest.fixture(scope="module")
def two_groups(tmp_path_factory):
    names = ("trainers-0", "readers-0", "readers-1")
    with named_workers(*names, folder=tmp_path_factory.mktemp("workers")) as (_, client, by_kind):
        yield client, by_kind


KINDS = ("plan_one", "measure", "merge", "block", "examples_of", "distributions", "score_one")


@pytest.mark.ddp
@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_no_reading_task_of_a_run_runs_on_a_trainer(tmp_path, two_groups, cache):
    client, by_kind = two_groups
    by_kind.clear()
    overrides = ["training.epochs=1", "training.ranks=1", "partition.max_events=500"]
    config = load(TUTORIAL / "dataset.yaml", [*overrides, "specs.cache=null", f"cache={cache}"])
    result = fit(Dataset(config, client), output=tmp_path / "run")
    files = [str(TUTORIAL / "data" / "cms_heptutorial_ww.root")]
    request = check_request(result.bundle, files, tmp_path / "scores.parquet")
    predict_files(request, tmp_path / "scores.parquet", client=client)
    readers = {kind: on for kind, on in by_kind.items() if kind.startswith(KINDS)}
    kinds = {next(name for name in KINDS if kind.startswith(name)) for kind in readers}
    assert {"measure", "block", "examples_of", "distributions"} <= kinds
    assert set.union(*readers.values()) == {"readers-0", "readers-1"}
    ranks = [on for kind, on in by_kind.items() if "rank" in kind]
    assert set.union(*ranks) == {"trainers-0"}


def losses_of(client, cache, after_first=lambda: None):
    """By epoch the losses of a training on one trainer, which never starts again."""
    overrides = ["training.epochs=2", "training.ranks=1", "partition.max_events=2000"]
    config = load(TUTORIAL / "dataset.yaml", [*overrides, f"cache={cache}"])
    trainer = Trainer(Dataset(config, client), model_of(config))
    losses = []
    for epoch in trainer.epochs():
        losses.append([epoch.record[split]["loss"] for split in ("train", "validation")])
        if len(losses) == 1:
            after_first()
    assert trainer.restarts == 0
    return losses


@pytest.fixture(scope="module")
def undisturbed(two_groups):
    client, _ = two_groups
    return losses_of(client, "memory")


@pytest.mark.ddp
@pytest.mark.parametrize("cache", ["memory", "none"])
def test_training_goes_on_when_all_readers_end_at_once(two_groups, undisturbed, cache):
    client, _ = two_groups

    def end_readers():
        readers = ClusterHandle(client).alive("readers")
        for pid in client.run(os.getpid, workers=list(readers)).values():
            os.kill(pid, signal.SIGKILL)

    assert losses_of(client, cache, end_readers) == undisturbed


def where():
    return get_worker().name


def test_a_reader_that_comes_later_gets_the_tasks_that_waited_for_one(tmp_path):
    with named_workers("trainers-0", "readers-0", folder=tmp_path) as (cluster, client, _):
        handle = ClusterHandle(client, Patience(no_worker=1.0))
        first = handle.submit(where, group="readers", pure=False)
        assert handle.result(first, "a task", group="readers") == "readers-0"
        cluster.sync(cluster.workers["readers-0"].close)
        waiting = [handle.submit(where, group="readers", pure=False) for _ in range(3)]
        with pytest.raises(
            ClusterError, match=r"waiting for 1 worker of 'readers' \(0 of 1 here\)"
        ):
            handle.gather(waiting, "three tasks", group="readers")
        cluster.worker_spec["readers-1"] = worker_of("readers-1", tmp_path)
        cluster.sync(cluster._correct_state)
        handle.wait_for_workers(1, "a reader", group="readers", seconds=60)
        assert handle.gather(waiting, "three tasks", group="readers") == ["readers-1"] * 3
        other = handle.submit(where, group="trainers", pure=False)
        assert handle.result(other, "a task") == "trainers-0"


def test_a_cluster_of_one_group_gets_plain_tasks(client):
    handle = ClusterHandle(client)
    address = next(iter(handle.alive()))
    for group in ("readers", "trainers"):
        near = handle.submit(where, group=group, near=address, pure=False)
        assert handle.result(near, "a task") == handle.alive()[address]["name"]
        assert not client.run_on_scheduler(restricted, key=near.key)


def restricted(dask_scheduler, key):
    return bool(dask_scheduler.tasks[key].resource_restrictions)


def test_a_name_tells_the_groups_of_a_worker():
    assert groups_of("readers-3") == ("readers",)
    assert groups_of("trainers-gpu-0") == ("trainers",)
    assert groups_of(0) == groups_of("node17") == groups_of("trainer") == ("readers", "trainers")
