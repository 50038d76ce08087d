"""Workers that die or stand still in any pass cost time, but no event and no digit."""

import io
import json
import os
import shutil
import signal
import threading
import time
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mlaas4hep_dask.bundle import open_bundle, write_bundle
from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.cluster.settings import SETTINGS
from mlaas4hep_dask.config import Cluster, Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.predict.request import check_request
from mlaas4hep_dask.predict.scoring import predict_files
from mlaas4hep_dask.run.stages import fit
from mlaas4hep_dask.waiting import workers_of
from mlaas4hep_dask.waiting.shared import PREFIX

pytestmark = pytest.mark.timeout(280)
CODE = """
import time

import torch


def slow(events):
    time.sleep(0.1)
    return events


def linear(num_columns):
    return torch.nn.Linear(num_columns, 1)
"""
# How the keys of the tasks begin, at which workers are when one of them is disturbed.
PASSES = {
    "pass 1": "('measure-",
    "pass 2": "('block-",
    "training": "rank-",
    "predict": "score_partition-",
}


class Slow(torch.nn.Module):
    def __init__(self, steps):
        super().__init__()
        self.steps: int = steps

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return raw

    @torch.jit.export
    def score_encoded(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        rows = torch.ones(500, 400)  # products of matrices take ten times as long with some BLAS
        for _ in range(self.steps if x.shape[0] > 100 else 1):  # not the model's first trial
            rows = torch.sin(rows)
        return torch.sigmoid(x.sum(dim=1) + rows[0, 0])


def config_of(folder, code, cms_files):
    single_top, *diboson = map(str, cms_files)
    code.write_text(CODE)
    return Config.from_mapping(
        {
            "tree": "events",
            "output": str(folder / "run"),
            "samples": [
                {"name": "single_top", "label": 1, "files": single_top},
                {"name": "diboson", "label": 0, "files": diboson},
            ],
            "branches": {"include": ["MET_*", "Muon_P*", "NMuon"]},
            "function": {"callable": f"{code}:slow"},
            "partition": {"max_events": 1_000},
            "specs": {"cache": None},
            "model": {"callable": f"{code}:linear"},
            "training": {"epochs": 40, "batch_size": 500, "ranks": 2},
        }
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cms_files, client):
    """The folder of a run, and of scores."""
    folder = tmp_path_factory.mktemp("undisturbed")
    fit(Dataset(config_of(folder, folder / "code.py", cms_files), client))
    trained = open_bundle(folder / "run" / "bundle")
    network = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is our contract
        torch.jit.save(torch.jit.script(Slow(200).eval()), network)
    write_bundle(
        folder / "bundle",
        name="slow",
        model=network.getvalue(),
        specs=trained.specs,
        encode=trained.manifest["encode"],
        metrics={},
        data={"tree": "events"},
        card="a test",
        objective=trained.objective,
    )
    return folder


def learned(folder):
    """What does not depend on clocks."""
    epochs = json.loads((folder / "run" / "metrics.json").read_text())["epochs"]
    splits = ("train", "validation", "test")
    return [{name: epoch[name] for name in splits if name in epoch} for epoch in epochs]


def measured(folder):
    specs = json.loads((folder / "run" / "specs.json").read_text())
    return {name: specs[name] for name in specs if name != "provenance"}


class Disturbance(threading.Thread):
    """Sends a signal to a worker at work; to one that holds what tasks share, if any does."""

    def __init__(self, client, begin, number, folder):
        super().__init__()
        self.client, self.begin, self.number = client, begin, number
        self.needs = folder / "run" / "checkpoints" / "epochs.json" if begin == "rank-" else folder
        self.hit = ""
        self.is_over = False

    def run(self):
        while not self.is_over and not self.hit:
            time.sleep(0.02)  # between looks at the tasks
            at_work = {
                worker
                for worker, keys in self.client.processing().items()
                if any(str(key).startswith(self.begin) for key in keys)
            }
            holders = {
                worker
                for key, workers in self.client.who_has().items()
                if str(key).startswith(PREFIX)
                for worker in workers
            }
            if at_work and self.needs.exists():  # ranks have met
                self.hit = min(holders & at_work or holders or at_work)
                pid = workers_of(self.client).processes.pid(self.hit)
                os.kill(pid, self.number)


SIGNALS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}


def always(*pairs):
    """Parameters of a test: these pairs of a pass and of how a worker is lost, others nightly."""
    return pytest.mark.parametrize(
        ("where", "disturb"),
        [
            pytest.param(where, how, marks=() if (where, how) in pairs else pytest.mark.nightly)
            for where in {where: None for where, _ in pairs}
            for how in SIGNALS
        ],
        indirect=["disturb"],
    )


@pytest.fixture
def disturb(request, monkeypatch, tmp_path):
    """A cluster that soon gives up a silent worker, and what disturbs it."""
    monkeypatch.setitem(SETTINGS, "distributed.scheduler.worker-ttl", "6s")
    with connect(Cluster(workers=2), ranks=2) as client:
        threads = []

        def started(begin):
            threads.append(Disturbance(client, begin, SIGNALS[request.param], tmp_path))
            threads[-1].start()
            return threads[-1]

        yield client, started
        for thread in threads:
            thread.is_over = True
            thread.join()


@always(("pass 2", "stopped"), ("training", "killed"), ("pass 1", None))
def test_a_run_that_loses_the_worker_with_what_all_share_gives_the_same(
    where, disturb, undisturbed, tmp_path, cms_files
):
    client, started = disturb
    disturbance = started(PASSES[where])
    fit(Dataset(config_of(tmp_path, undisturbed / "code.py", cms_files), client))
    assert disturbance.hit
    assert measured(tmp_path) == measured(undisturbed)
    assert learned(tmp_path) == learned(undisturbed)


@always(("predict", "stopped"))
def test_scoring_that_loses_the_worker_with_what_all_share_gives_the_same(
    where, disturb, undisturbed, tmp_path, cms_files
):
    client, started = disturb
    files = [shutil.copy(file, tmp_path / f"{n}-{file.name}") for n in "abc" for file in cms_files]
    outputs = [tmp_path / "disturbed.parquet", tmp_path / "calm.parquet"]
    for output in outputs:
        disturbance = None if output is outputs[1] else started(PASSES[where])
        bundle = open_bundle(undisturbed / "bundle")
        request = check_request(bundle, [str(file) for file in files], output)
        predict_files(request, output, client=client)
        assert disturbance is None or disturbance.hit
    disturbed, calm = (pq.read_table(output) for output in outputs)
    assert disturbed.drop_columns("score").equals(calm.drop_columns("score"))
    # Equal to the bit with PyTorch's own BLAS; a plain one rounds by where memory happens to lie.
    np.testing.assert_array_max_ulp(disturbed["score"].to_numpy(), calm["score"].to_numpy(), 1)
    assert calm.num_rows == 3 * 16_052
