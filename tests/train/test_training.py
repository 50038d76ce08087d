import asyncio
import io
import logging
import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
import torch
from distributed import SchedulerPlugin
from services.processes import wait_until

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config import Cluster, Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.encode.split import split_of
from mlaas4hep_dask.errors import ClusterError, DataError, ModelError, TrainingError
from mlaas4hep_dask.gang import KeptBlocks, diskcache
from mlaas4hep_dask.gang import source as source_module
from mlaas4hep_dask.gang.keeping import Shares
from mlaas4hep_dask.gang.members import run_members
from mlaas4hep_dask.gang.standings import HANGS
from mlaas4hep_dask.run.facts import facts_before, facts_of_training
from mlaas4hep_dask.run.importing import begin_ranks
from mlaas4hep_dask.run.method import method_of
from mlaas4hep_dask.run.outcome import Checkpoint
from mlaas4hep_dask.run.stages import model_of
from mlaas4hep_dask.run.training import Trainer
from mlaas4hep_dask.train.meeting import interface_of
from mlaas4hep_dask.train.network import Dropout
from mlaas4hep_dask.train.shards import SHARDS
from mlaas4hep_dask.waiting import ClusterHandle, LostWorkerError, processes
from mlaas4hep_dask.waiting.handle import BOARDS
from mlaas4hep_dask.waiting.waits import wait_for_workers
from mlaas4hep_dask.waiting.workers import living
from mlaas4hep_dask.waiting.workers import workers_of as facts_of

pytestmark = pytest.mark.ddp

CACHES = ("memory", "disk", "none")
NETWORKS = """
import torch

class WithMissing(torch.nn.Module):
    def __init__(self, num_columns):
        super().__init__()
        self.inner = torch.nn.Linear(2 * num_columns, 1)

    def forward(self, x, missing):
        return self.inner(torch.cat([x, missing.float()], dim=1))

def with_missing(num_columns):
    return WithMissing(num_columns)

def linear(num_columns):
    return torch.nn.Linear(num_columns, 1)

def dropping(num_columns):
    return torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Linear(num_columns, 1))

class Summing(torch.nn.Module):
    def __init__(self, num_columns):
        super().__init__()
        self.linear = torch.nn.Linear(num_columns, 1)
        self.register_buffer("total", torch.zeros(num_columns, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training:
            self.total = self.total + x.sum(0)
            self.steps = self.steps + 1
        return self.linear(x)

def summing(num_columns):
    return Summing(num_columns)

def normed(num_columns):
    first = torch.nn.Linear(num_columns, 4)
    return torch.nn.Sequential(first, torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))

def chancy(num_columns):
    layers = torch.nn.Linear(num_columns, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5)
    return torch.nn.Sequential(*layers, torch.nn.Linear(8, 1))

def take_memory():
    import time
    held = []
    while len(held) < 400:
        held.append(b"x" * 5_000_000)
        time.sleep(0.02)  # the nanny looks now and then

class Greedy(torch.nn.Module):
    def __init__(self, num_columns):
        super().__init__()
        self.linear = torch.nn.Linear(num_columns, 1)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.steps += 1
            if self.steps > 20:  # later than the trial before training
                take_memory()
        return self.linear(x)

def greedy(num_columns):
    return Greedy(num_columns)

class Broken(torch.nn.Module):
    def forward(self, x):
        return x[:, :2]

def broken(num_columns):
    return Broken()
"""


@pytest.fixture
def keys(cms_files, tmp_path):
    single_top, *diboson = map(str, cms_files)
    (tmp_path / "networks.py").write_text(NETWORKS)
    return {
        "tree": "events",
        "samples": [
            {"name": "single_top", "label": 1, "files": single_top},
            {"name": "diboson", "label": 0, "files": diboson},
        ],
        "branches": {"exclude": ["MC*", "EventWeight"]},
        "partition": {"max_events": 2_000},
        "model": {"callable": f"{tmp_path}/networks.py:linear"},
        "training": {
            "epochs": 2,
            "batch_size": 200,
            "ranks": 2,
            "learning_rate": 0.001,
            "optimiser": {"callable": "Adam", "kwargs": {"fused": True}},
            "scheduler": None,
        },
    }


A_FEW_BLOCKS = 2**20  # bytes of a window


def train(keys, client, *, options=None, hand_over=lambda _: None, **training):
    config = Config.from_mapping({**keys, "training": {**keys["training"], **training}})
    trainer = Trainer(Dataset(config, client), model_of(config), **(options or {}))
    return trainer, list(trainer.epochs(keep=hand_over))


def measured(epochs):
    """The parts of the records that do not depend on the clock."""
    return [{name: epoch.record[name] for name in ("train", "validation")} for epoch in epochs]


def test_the_same_seed_gives_the_same_metrics(keys, client):
    trainer, first = train(keys, client)
    _, second = train(keys, client)
    assert measured(first) == measured(second)
    assert first[-1].state == second[-1].state
    # Another network of an ensemble, on the same events in the same order.
    other, third = train({**keys, "seed": {"weights": 1}}, client)
    assert measured(third) != measured(first)
    assert other._assignments == trainer._assignments
    assert other._plan.token == trainer._plan.token
    assert other._dataset.specs().branches == trainer._dataset.specs().branches


def test_every_event_counts_once_in_every_epoch(keys, client):
    trainer, epochs = train(keys, client)
    first, last = measured(epochs)
    assert {name: split["num_events"] for name, split in first.items()} == {
        name: last[name]["num_events"] for name in ("train", "validation")
    }
    assert first["train"]["num_events"] == trainer.num_events
    splits = trainer.outcome.record
    names = ("train", "validation", "test")
    assert sum(splits[name]["num_events"] for name in names) == 16_052


def run_facts(trainer):
    """What a run is known by that may be taken up."""
    dataset = trainer._dataset
    config = dataset.config
    before = facts_before(dataset, model_of(config), method_of(config))
    return before, facts_of_training(dataset, trainer)


def test_one_rank_and_two_ranks_learn_the_same(keys, client):
    # The batches hold the same events, and without dropout the gradients are those of the whole
    # batch, however it is divided. Sums of single precision are formed in another order, which
    # changes the last of 24 bits (6e-8) in each of 100 steps.
    options = {"window_bytes": A_FEW_BLOCKS}
    one, first = train(keys, client, options=options, ranks=1)
    ways = []
    more = {"hand_over": ways.append, "checkpoint_minutes": 1e-9}  # after every window
    two, second = train(keys, client, options=options, ranks=2, **more)
    assert one._assignments.train.num_windows > 2
    for a, b in zip(measured(first), measured(second), strict=True):
        for split in ("train", "validation"):
            assert a[split]["num_events"] == b[split]["num_events"]
        for value in ("loss", "auc"):
            assert a["validation"][value] == pytest.approx(b["validation"][value], rel=1e-5)
        assert a["train"]["learning_loss"] == pytest.approx(b["train"]["learning_loss"], rel=1e-5)
    assert two.outcome.test["loss"] == pytest.approx(one.outcome.test["loss"], rel=1e-5)
    # One goes on with what two have begun, in the middle of the second epoch.
    assert run_facts(one) == run_facts(two)
    again = Trainer(one._dataset, model_of(one._dataset.config), **options)
    (last,) = again.epochs(second[:1], under_way=ways[-1])
    assert ways[-1].epoch == 2
    assert last.record["train"]["num_events"] == again.num_events
    expected = first[1].record["train"]["learning_loss"]
    assert last.record["train"]["learning_loss"] == pytest.approx(expected, rel=1e-5)
    assert again.outcome.test["loss"] == pytest.approx(one.outcome.test["loss"], rel=1e-5)


def test_two_ranks_add_up_gradients_before_they_average_them(keys, client):
    _, halves = train(keys, client, epochs=1, batch_size=100, accumulate=2)
    _, whole = train(keys, client, epochs=1, batch_size=200)
    _, alone = train(keys, client, epochs=1, batch_size=100)
    losses = [epochs[0].record["train"]["learning_loss"] for epochs in (halves, whole, alone)]
    # An event at the edge of a batch may be in the next one.
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[2] != pytest.approx(losses[1], rel=1e-2)


def test_chunks_are_gone_through_one_after_the_other(keys, client):
    training = {"strategy": "chunked", "chunk_events": 3_000, "epochs": 2}
    trainer, epochs = train(keys, client, **training)
    sizes = [epoch.record["train"]["num_events"] for epoch in epochs]
    assert len(sizes) == 4
    assert sum(sizes) == trainer.num_events
    assert max(sizes) < 1.02 * min(sizes)
    config = Config.from_mapping({**keys, "training": {**keys["training"], **training}})
    again = Trainer(Dataset(config, client), model_of(config))
    assert measured(epochs[2:]) == measured(again.epochs(epochs[:2]))


HOOKS = """
class Last:
    def on_epoch_end(self, context):
        if context.rank == 1:
            context.stop()

class Broken:
    def on_step(self, context):
        if context.rank == 1 and context.step == 3:
            raise KeyError("no such plot")
"""


def test_a_hook_of_any_rank_ends_the_training_and_its_error_too(keys, client, tmp_path):
    (tmp_path / "hooks.py").write_text(HOOKS)
    trainer, epochs = train(keys, client, hooks=[f"{tmp_path}/hooks.py:Last"])
    assert [epoch.record.get("stopped") for epoch in epochs] == [True]
    assert trainer.outcome.epoch == 1
    words = r"hooks\[0\] \S*hooks.py:Broken' failed in on_step in line 10 of hooks.py \(KeyError"
    with pytest.raises(ModelError, match=words):
        train(keys, client, hooks=[f"{tmp_path}/hooks.py:Broken"])


def test_a_network_that_asks_for_the_missing_mask_gets_it(keys, client, tmp_path):
    keys["model"] = {"callable": f"{tmp_path}/networks.py:with_missing"}
    trainer, _ = train(keys, client, epochs=1)
    assert trainer.outcome.test["auc"] > 0.6


def test_a_network_of_the_wrong_shape_is_named(keys, client, tmp_path):
    keys["model"] = {"callable": f"{tmp_path}/networks.py:broken"}
    with pytest.raises(ModelError, match=r"networks\.py:broken' gives \(3, 2\) for 3 events"):
        train(keys, client)


def test_a_network_that_fails_on_a_batch_is_named(keys, client, tmp_path):
    keys["model"] = {"callable": f"{tmp_path}/networks.py:normed"}
    with pytest.raises(ModelError, match=r"on a batch of 1 event .*more than 1 value"):
        train(keys, client, batch_size=2)


def test_a_loss_that_is_not_finite_stops_the_training(keys, client):
    with pytest.raises(TrainingError, match="loss is not finite"):
        train(keys, client, learning_rate=1e38, optimiser=None)


def test_more_ranks_than_workers_is_an_error(keys, client):
    with pytest.raises(ClusterError, match=r"ranks is 3: 3 workers needed, .* has 2"):
        train(keys, client, options={"timeout": 0.5}, ranks=3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_no_worker_has_is_told_before_any_event_is_read(keys, client):
    words = rf"training\.device is cuda, .*PyTorch {re.escape(torch.__version__)} was built without"
    config = Config.from_mapping({**keys, "training": {**keys["training"], "device": "cuda"}})
    with pytest.raises(ClusterError, match=words):
        begin_ranks(Dataset(config, client), model_of(config), method_of(config))
    with pytest.raises(TrainingError, match=words) as caught:  # where workers come later
        train(keys, client, device="cuda")
    assert "rank 0's worker tcp://" in str(caught.value)


@pytest.mark.parametrize(
    ("memory_share", "disk_share", "expected"),
    [(0.4, 0.5, "memory"), (0.0, 0.5, "disk"), (0.0, 0.0, "none")],
)
def test_blocks_stay_where_there_is_room(keys, client, memory_share, disk_share, expected):
    shares = Shares(memory_share, disk_share)
    trainer, _ = train(keys, client, options={"shares": shares}, epochs=1)
    assert trainer.cache == expected


def test_metrics_do_not_depend_on_where_blocks_stay(keys, client):
    records = [measured(train({**keys, "cache": cache}, client)[1]) for cache in CACHES]
    assert records[0] == records[1] == records[2]


@pytest.mark.parametrize("cache", CACHES)
def test_files_are_read_again_only_if_blocks_stay_nowhere(keys, client, cache, tmp_path):
    for sample in keys["samples"]:
        files = [sample["files"]] if isinstance(sample["files"], str) else sample["files"]
        sample["files"] = [shutil.copy(file, tmp_path) for file in files]
    config = Config.from_mapping({**keys, "cache": cache})
    options = {"window_bytes": A_FEW_BLOCKS, "round_bytes": A_FEW_BLOCKS}
    trainer = Trainer(Dataset(config, client), model_of(config), **options)
    epochs = trainer.epochs()
    next(epochs)
    if cache == "disk":
        assert sum(client.run(num_blocks_on_disk).values()) >= 9  # 16,052 events, 2,000 each
    for sample in keys["samples"]:
        for file in sample["files"]:
            Path(file).write_bytes(b"gone")
    if cache == "none":
        with pytest.raises(DataError):
            next(epochs)
    else:
        assert next(epochs).record["train"]["num_events"] > 9_000
        epochs.close()
    assert sum(client.run(num_blocks_on_disk).values()) == 0


def halve_blocks_on_disk(dask_worker):
    files = list(diskcache.folder(dask_worker).glob("*-*"))
    for file in files:
        os.truncate(file, file.stat().st_size // 2)
    return len(files)


def test_blocks_on_disk_that_were_cut_short_are_made_again(keys, client):
    keys["cache"] = "disk"
    _, undisturbed = train(keys, client, options={"window_bytes": A_FEW_BLOCKS})
    config = Config.from_mapping(keys)
    trainer = Trainer(Dataset(config, client), model_of(config), window_bytes=A_FEW_BLOCKS)
    epochs = trainer.epochs()
    found = [next(epochs)]
    assert sum(client.run(halve_blocks_on_disk).values()) >= 9
    found += epochs
    assert trainer.restarts == 0  # a bus error would end a worker
    assert measured(found) == measured(undisturbed)


class BlocksMade(SchedulerPlugin):
    """Counts the tasks that have read a partition and made its block."""

    name = "blocks-made"

    def __init__(self):
        self.numbers = []

    def transition(self, key, start, finish, *_others, **_more):
        if finish == "memory" and start == "processing" and key[0].startswith("block-"):
            self.numbers.append(key[1])

    def taken(self):
        """The blocks made since the last call."""
        numbers, self.numbers = self.numbers, []
        return numbers


@pytest.mark.parametrize("form", ["rows", "images"])
@pytest.mark.parametrize(
    ("memory_share", "reads"), [(0.4, [1, 1, 1]), (0.0, [2, 2, 2])], ids=["room", "no room"]
)
def test_without_a_cache_an_epoch_reads_a_partition_once_if_held_out_events_fit(
    keys, client, form, memory_share, reads
):
    keys |= {"cache": "none", "partition": {"max_events": 500}}
    keys["training"] |= {"epochs": 3, "ranks": 1}
    rows_of_a_window = 1_600
    row_bytes = 4 * 101
    if form == "images":
        keys["image"] = {
            "axes": {"Jet_Px": {"cells": 8}, "Jet_Py": {"cells": 8}},
            "channels": [{"value": "Jet_btag"}],
            "flat": ["MET_px"],
        }
        keys["model"] = {"kwargs": {"filters": [2], "hidden": 4}}
        row_bytes = 4 * 2 * 8 * 8
    window = {"window_bytes": row_bytes * rows_of_a_window, "round_bytes": 2**17}
    config = Config.from_mapping(keys)
    shares = Shares(memory=memory_share)
    trainer = Trainer(Dataset(config, client), model_of(config), shares=shares, **window)
    num_blocks = len(trainer._plan.partitions)
    assert num_blocks > 30
    made = BlocksMade()
    scheduler = client.cluster.scheduler
    scheduler.add_plugin(made)
    records, found = [], []
    try:
        for epoch in trainer.epochs():
            found.append(Counter(made.taken()))
            records.append(epoch)
    finally:
        scheduler.remove_plugin(made.name)
    for times, counts in zip(reads, found, strict=True):
        # A pass need not read the blocks that the last windows of the one before have left.
        # One that is cut between shards may be read for each.
        most = num_blocks * times + SHARDS * len(keys["samples"])
        assert num_blocks * (times - 1) < counts.total() <= most
        assert max(counts.values()) <= times + 1
    assert trainer.rounds > 5
    _, epochs = train({**keys, "cache": "disk"}, client, options={**window, "shares": shares})
    assert measured(records) == measured(epochs)


def test_a_rank_with_room_is_sent_every_block_once(keys, client):
    keys["training"]["ranks"] = 1  # the other worker makes some of the blocks
    config = Config.from_mapping(keys)
    kept, rounds = {}, {}
    for share in (0.4, 1e-9):
        shares = Shares(memory=share)
        trainer = Trainer(Dataset(config, client), model_of(config), shares=shares)
        epochs = trainer.epochs()
        first = next(epochs)
        kept[share] = sum(client.run(num_blocks_of_sources).values())
        rounds[share] = trainer.rounds
        epochs.close()
        assert first.record["train"]["num_events"] == trainer.num_events
    assert kept[0.4] == len(trainer._plan.partitions)
    assert rounds[0.4] == 1 < rounds[1e-9] < len(trainer._plan.partitions) + 1


def num_blocks_of_sources():
    return sum(len(source._blocks) for source in source_module._sources.values())


def num_blocks_on_disk(dask_worker):
    return len(list(diskcache.folder(dask_worker).glob("*-*")))


def kill_a_worker_in(client, condition):
    """Kill the second worker's process once the condition holds; the thread that does it."""

    def kill():
        while not condition():
            time.sleep(0.01)  # polls the training in the other thread
        pid = client.run(os.getpid, workers=sorted(client.scheduler_info()["workers"])[1:2])
        os.kill(next(iter(pid.values())), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.timeout(180)
def test_training_goes_on_from_the_last_checkpoint_when_a_worker_dies(keys, client, caplog):
    keys["training"]["epochs"] = 4
    _, undisturbed = train(keys, client)
    with connect(Cluster(workers=2), ranks=2) as own:
        config = Config.from_mapping(keys)
        trainer = Trainer(Dataset(config, own), model_of(config))
        epochs = []
        thread = kill_a_worker_in(own, lambda: len(epochs) == 1)
        with caplog.at_level(logging.WARNING, "mlaas4hep_dask"):
            for epoch in trainer.epochs():
                epochs.append(epoch)
                if len(epochs) == 1:
                    thread.join()  # so that the death falls into the second epoch's start
        assert trainer.restarts >= 1
    told = [text for text in caplog.messages if text.startswith("starting epoch")]
    assert told
    assert all("worker tcp://" in text for text in told)  # and not what others saw of its death
    assert [epoch.record["epoch"] for epoch in epochs] == [1, 2, 3, 4]
    assert measured(epochs) == measured(undisturbed)


@pytest.mark.timeout(250)
def test_an_epoch_goes_on_where_it_was_when_a_rank_is_killed(keys, client, tmp_path):
    keys["model"] = {"callable": f"{tmp_path}/networks.py:chancy"}
    options = {"window_bytes": A_FEW_BLOCKS}
    undisturbed, whole = train(keys, client, options=options, checkpoint_minutes=None)
    keys["training"]["checkpoint_minutes"] = 1e-9  # after every window
    ways = []
    with connect(Cluster(workers=2), ranks=2) as own:
        config = Config.from_mapping(keys)
        trainer = Trainer(Dataset(config, own), model_of(config), **options)

        def keep(way):
            ways.append((way.epoch, way.window))
            if len(ways) == 2:
                (pid,) = own.run(os.getpid, workers=list(trainer._gang.workers)[1:]).values()
                os.kill(pid, signal.SIGKILL)

        epochs = list(trainer.epochs(keep=keep))
    num_windows = trainer._assignments.train.num_windows
    assert num_windows > 3
    assert trainer.restarts == 1
    # No window comes twice.
    assert ways == [(epoch, window) for epoch in (1, 2) for window in range(1, num_windows)]
    assert measured(epochs) == measured(whole)
    assert trainer.outcome.test == undisturbed.outcome.test


@pytest.mark.timeout(250)
@pytest.mark.parametrize(
    "memory_share",
    [pytest.param(0.4, id="memory", marks=pytest.mark.nightly), pytest.param(0.0, id="disk")],
)
def test_blocks_in_a_folder_outlast_all_workers_and_the_run(keys, client, tmp_path, memory_share):
    keys["training"]["epochs"] = 3
    folder = tmp_path / "shared" / "blocks"
    by_run = memory_share > 0  # as with jobs of a batch system, else as the user says
    config = Config.from_mapping({**keys, "cache": "auto" if by_run else str(folder)})
    options = {"window_bytes": A_FEW_BLOCKS, "shares": Shares(memory=memory_share)}
    _, undisturbed = train(keys, client, options=options)
    with connect(Cluster(workers=2), ranks=2) as own:
        facts_of(own).are_jobs_with_files = by_run
        options["results"] = folder
        dataset = Dataset(config, own)
        trainer = Trainer(dataset, model_of(config), **options)
        epochs = trainer.epochs()
        found = [next(epochs)]
        assert trainer.cache == ("memory" if memory_share else "disk")
        pattern = "*/*" if by_run else "*/*/*"  # a run has a folder of its own in what a user names
        written = {file: file.stat().st_mtime_ns for file in folder.glob(pattern)}
        assert len(written) == len(trainer._plan.partitions)
        for pid in own.run(os.getpid).values():  # as jobs that reach their walltime
            os.kill(pid, signal.SIGKILL)
        found.append(next(epochs))
        epochs.close()  # as by an interrupt
        trainer = Trainer(dataset, model_of(config), **options)
        epochs = trainer.epochs(found)
        found.append(next(epochs))
        assert {file: file.stat().st_mtime_ns for file in folder.glob(pattern)} == written
        assert not list(epochs)
    assert measured(found) == measured(undisturbed)
    assert not any(folder.iterdir())


def test_blocks_that_others_could_have_written_are_not_used(keys, client, tmp_path):
    keys["cache"] = str(tmp_path)
    config = Config.from_mapping(keys)
    trainer = Trainer(Dataset(config, client), model_of(config))
    folder = diskcache.folder_of(keys["cache"], trainer._plan.token)
    folder.mkdir()
    folder.chmod(0o777)
    files = {folder / f"{trainer._plan.token}-{number}": b"anything" for number in range(9)}
    for file, content in files.items():
        file.write_bytes(content)
    epochs = trainer.epochs()
    first = next(epochs)
    assert {file: file.read_bytes() for file in folder.iterdir()} == files
    epochs.close()
    assert measured([first]) == measured(train({**keys, "cache": "none"}, client)[1])[:1]


def test_a_folder_that_cannot_be_written_costs_time_alone(keys, client):
    trainer, epochs = train({**keys, "cache": "/proc/nothing/blocks"}, client, epochs=1)
    assert trainer.cache == "memory"
    assert measured(epochs) == measured(train({**keys, "cache": "none"}, client, epochs=1)[1])


@pytest.mark.timeout(250)
def test_only_deaths_without_an_epoch_in_between_count(keys):
    keys["training"] |= {"epochs": 4, "max_restarts": 1}
    with connect(Cluster(workers=3), ranks=2) as own:
        config = Config.from_mapping(keys)
        trainer = Trainer(Dataset(config, own), model_of(config))
        numbers = []
        for epoch in trainer.epochs():
            numbers.append(epoch.record["epoch"])
            if len(numbers) < 4:  # a rank's worker is lost in each of three epochs
                (pid,) = own.run(os.getpid, workers=list(trainer._gang.workers)[-1:]).values()
                os.kill(pid, signal.SIGKILL)
        assert numbers == [1, 2, 3, 4]
        assert trainer.restarts == 3


async def end_in_time(dask_worker):
    """What a worker does that was given a lifetime, which here is over at once."""
    dask_worker.lifetime = 0.1
    asyncio.get_running_loop().call_later(
        0.1,
        lambda: asyncio.ensure_future(
            dask_worker.close_gracefully(restart=True, reason="worker-lifetime-reached")
        ),
    )


def workers_of(client):
    return client.scheduler_info(n_workers=-1)["workers"]


@pytest.mark.timeout(250)
def test_ends_of_lifetimes_and_those_that_are_asked_for_are_not_counted_as_deaths(keys, client):
    keys["training"] |= {"epochs": 3, "max_restarts": 0}
    _, undisturbed = train(keys, client)
    config = Config.from_mapping(keys)
    with connect(Cluster(workers=2), ranks=2) as own:
        trainer = Trainer(Dataset(config, own), model_of(config))
        epochs = []
        for epoch in trainer.epochs():
            epochs.append(epoch)
            lost = list(trainer._gang.workers)[:1]
            if len(epochs) == 1:
                own.run(end_in_time, workers=lost)
            elif len(epochs) == 2:  # as a batch system does with a job at its walltime
                os.kill(own.run(os.getpid, workers=lost)[lost[0]], signal.SIGTERM)
            else:
                break
            wait_until(lambda lost=lost: lost[0] not in workers_of(own), "it has left")
        assert trainer.restarts == 2
    assert measured(epochs) == measured(undisturbed)


@pytest.mark.timeout(180)
def test_training_gives_up_after_the_allowed_number_of_deaths(keys):
    keys["training"]["max_restarts"] = 0
    with connect(Cluster(workers=2), ranks=2) as own:
        config = Config.from_mapping(keys)
        trainer = Trainer(Dataset(config, own), model_of(config))
        epochs = trainer.epochs()
        next(epochs)
        kill_a_worker_in(own, lambda: True).join()
        with pytest.raises(
            TrainingError, match=r"died 1 time.* worker tcp://\S+ was ended by SIGKILL"
        ):
            next(epochs)


@pytest.mark.timeout(180)
def test_a_rank_that_was_ended_for_memory_says_so(keys, tmp_path):
    keys["training"] |= {"max_restarts": 0, "ranks": 1}
    keys["model"] = {"callable": f"{tmp_path}/networks.py:greedy"}
    with connect(Cluster(workers=2, memory_limit="900MB"), ranks=1) as own:
        config = Config.from_mapping(keys)
        trainer = Trainer(Dataset(config, own), model_of(config))
        with pytest.raises(
            TrainingError, match=r"ended for memory: it used \d+ MB of its limit of 900 MB"
        ):
            next(trainer.epochs())


@pytest.mark.timeout(180)
def test_a_worker_that_leaves_while_ranks_import_torch_costs_no_more_than_a_word(keys, caplog):
    with connect(Cluster(workers=2), ranks=2) as own:
        dataset = Dataset(Config.from_mapping(keys), own)
        pid, _ = own.run(os.getpid).values()

        def kill():
            while "import_rank" not in str(own.processing()):
                time.sleep(0.01)  # polls the cluster
            os.kill(pid, signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        with caplog.at_level(logging.WARNING, "mlaas4hep_dask"):
            begin_ranks(
                dataset, model_of(dataset.config), method_of(dataset.config)
            )  # waits for both
        thread.join()
        assert "ranks import torch: worker tcp://" in caplog.text
        wait_for_workers(own, 2, "the next", seconds=100)


def _listening():
    """Where this process listens."""
    found = psutil.Process().net_connections("tcp")
    return [tuple(each.laddr) for each in found if each.status == psutil.CONN_LISTEN]


def _mapped():
    """Memory that this process shares with others: files of the system that it maps."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if line.count(" ") > 4 and "/" in line}
    return sorted(path for path in paths if path.startswith(("/dev/shm/", "/memfd:")))


def test_ranks_meet_at_the_address_of_the_worker_alone(keys, client):
    config = Config.from_mapping(keys)
    trainer = Trainer(Dataset(config, client), model_of(config))
    epochs = trainer.epochs()
    next(epochs)
    places = [place for found in client.run(_listening).values() for place in found]
    assert {host for host, _ in places} == {"127.0.0.1"}
    for shared in client.run(_mapped).values():
        assert [path for path in shared if path.startswith("/memfd:")]  # the gradients
        named = [path for path in shared if path.startswith("/dev/shm/")]
        assert all("/sem." in path for path in named)  # locks of Python, without data
    epochs.close()
    left = [place for found in client.run(_listening).values() for place in found]
    assert len(left) == len(places) - 2  # one of gloo's for each rank, and none of a store
    metadata = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.task_metadata)
    assert not any(metadata[BOARDS].values())


@pytest.mark.parametrize("content", ["other", "no optimiser", "text"])
def test_a_checkpoint_of_another_network_or_version_is_refused(keys, client, content):
    config = Config.from_mapping(keys)
    trainer = Trainer(Dataset(config, client), model_of(config))
    buffer = io.BytesIO()
    state = {"network": {}} if content == "other" else {"epoch": 1}
    torch.save("text" if content == "text" else state, buffer)
    with pytest.raises(TrainingError, match=r"checkpoint is not one of this network .*--output"):
        next(trainer.epochs([Checkpoint({"epoch": 1}, buffer.getvalue())]))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "no-such-host.invalid"])
def test_gloo_takes_the_interface_of_the_address(host):
    assert interface_of(host) == (None if "invalid" in host else "lo")


def _die_or_wait(source, board, progress, number):
    del source, board, progress
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait(60)


@pytest.mark.timeout(120)
def test_a_gang_ends_when_one_member_dies(keys):
    with connect(Cluster(workers=2), ranks=2) as own:
        blocks = KeptBlocks.of(Dataset(Config.from_mapping(keys), own).blocks())
        workers = processes(living(own))
        with pytest.raises(LostWorkerError, match=r"a test: worker \S+ was ended by SIGKILL"):
            run_members(
                ClusterHandle(own),
                _die_or_wait,
                [(0,), (1,)],
                workers=workers,
                blocks=blocks,
                what="a test",
            )


def _hang(source, board, progress, number):
    del source, progress
    if number == 1:
        facts = {"waits_for": "work", "place": "line 3 of loss.py", "slowest": 0.0}
        board.tell({"rank": 1, "pid": os.getpid(), "seconds": HANGS + 1, **facts})
    threading.Event().wait(5)


def test_a_gang_ends_when_one_member_hangs(keys, client):
    blocks = KeptBlocks.of(Dataset(Config.from_mapping(keys), client).blocks())
    workers = processes(living(client))
    words = (
        rf"a test: worker {list(workers)[1]} \(.*, pid \d+\) has .* line 3 of loss.py, for 1801 s"
    )
    with pytest.raises(TrainingError, match=words) as caught:
        run_members(
            ClusterHandle(client),
            _hang,
            [(0,), (1,)],
            workers=workers,
            blocks=blocks,
            what="a test",
        )
    assert caught.value.ranks == [1]


def _fail(source, board, progress, number):
    del source, board, progress
    if number == 1:
        raise TrainingError("member 1 cannot go on", rank=1)
    return np.zeros(1)


def test_a_gang_raises_the_error_of_its_member(keys, client):
    blocks = KeptBlocks.of(Dataset(Config.from_mapping(keys), client).blocks())
    workers = processes(living(client))
    with pytest.raises(TrainingError, match="member 1 cannot go on"):
        run_members(
            ClusterHandle(client),
            _fail,
            [(0,), (1,)],
            workers=workers,
            blocks=blocks,
            what="a test",
        )


def test_dropout_keeps_the_mean_in_training_and_everything_outside():
    dropout = Dropout(0.3)
    x = torch.ones(1_000, 100, requires_grad=True)
    torch.manual_seed(0)
    y = dropout(x)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    dropped = (y == 0).double().mean().item()
    assert abs(dropped - 0.3) < 5 * (0.3 * 0.7 / y.numel()) ** 0.5
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())
    dropout.eval()
    assert dropout(x) is x
    with pytest.raises(ValueError, match="dropout 1"):
        Dropout(1.0)


def test_the_best_epoch_is_kept_and_training_ends_early(keys, client):
    # With steps as large as these the loss soon rises.
    settings = {"epochs": 30, "learning_rate": 0.3, "early_stopping": 2}
    trainer, epochs = train(keys, client, **settings)
    losses = [epoch.record["validation"]["loss"] for epoch in epochs]
    best = losses.index(min(losses))
    assert len(losses) - (best + 1) == 2 < 30 - len(losses)
    assert trainer.outcome.epoch == best + 1
    assert trainer.outcome.state == epochs[best].state
    assert trainer.outcome.record["validation"] == epochs[best].record["validation"]
    again, _ = train(keys, client, **{**settings, "epochs": best + 1})
    assert again.outcome.test == trainer.outcome.test  # measured with that epoch's network
    last, _ = train(keys, client, **settings, keep="last")
    assert last.outcome.epoch == len(losses)
    assert last.outcome.test != trainer.outcome.test


def test_training_events_are_measured_as_validation_events_are(keys, client, tmp_path):
    keys["model"] = {"callable": f"{tmp_path}/networks.py:dropping"}
    _, epochs = train(keys, client, epochs=1)
    split = epochs[0].record["train"]
    assert 2_000 < split["num_measured"] < split["num_events"]
    # Dropout of all inputs leaves nothing to tell classes by; measured without it, there is.
    assert split["learning_loss"] > split["loss"] + 0.05


def test_a_schedule_and_a_mean_go_on_as_if_nothing_had_happened(keys, client):
    method = {
        "optimiser": {"callable": "AdamW", "kwargs": {"weight_decay": 0.1}},
        "scheduler": "OneCycleLR",
        "clip_norm": 1.0,
        "ema": 0.99,
        "learning_rate": 0.01,
    }
    undisturbed, whole = train(keys, client, epochs=3, **method)
    config = Config.from_mapping({**keys, "training": {**keys["training"], "epochs": 3, **method}})
    again = Trainer(Dataset(config, client), model_of(config))
    assert measured(again.epochs(whole[:1])) == measured(whole[1:])
    assert again.outcome.test == undisturbed.outcome.test
    rates = [epoch.record["train"]["learning_rate"] for epoch in whole]
    assert rates[0] > rates[1] > rates[2]  # its largest is in the first third


def test_buffers_know_the_events_of_all_ranks(keys, client, tmp_path):
    keys["model"] = {"callable": f"{tmp_path}/networks.py:summing"}
    trainer, epochs = train(keys, client, epochs=1)
    network = torch.load(io.BytesIO(epochs[0].state), weights_only=True)["network"]
    arrays = trainer._dataset.to_dask()
    x, ids = dask.compute(arrays.x, arrays.id)
    config = trainer._dataset.config
    split = split_of(ids, config.split.fractions, seed=config.seed.split)
    expected = x[split == 0].sum(axis=0, dtype=np.float64)
    assert np.allclose(2 * network["total"].numpy(), expected, rtol=1e-5, atol=1e-2)
    assert network["steps"] > 40
