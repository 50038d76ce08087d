"""Steps of the line that tests of several rooms take."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import awkward as ak
import httpx
import uproot
from distributed import SchedulerPlugin

from mlaas4hep_dask.bundle import open_bundle
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.predict.request import check_request
from mlaas4hep_dask.predict.scoring import predict_files
from mlaas4hep_dask.reader import plan_file, read
from mlaas4hep_dask.waiting import ClusterHandle, workers_of


def dataset_of(keys, client, **more):
    return Dataset(Config.from_mapping({**keys, **more}), client)


def rows_of(path, tree="events"):
    """The branches of an output, by name."""
    if path.suffix == ".parquet":
        array = ak.from_parquet(path)
        return {name: array[name] for name in array.fields}
    with uproot.open(path) as file:
        return {name: branch.array() for name, branch in file[tree].items()}


def predict(
    client, path, files, output, *, tree=None, patterns=(), skip=False, reading=None, **options
):
    request = check_request(
        open_bundle(path),
        [str(file) for file in files],
        output,
        tree=tree,
        patterns=patterns,
        skip=skip,
        overwrite=options.get("overwrite", False),
        reading=reading,
    )
    return predict_files(request, output, client=client, skip=skip, **options)


def some_events(bundle, file):
    plan = plan_file(str(file), "events", "any")
    names = [branch.name for branch in bundle.encoding.branches]
    limits = {"target_bytes": 1 << 40, "max_events": 200, "num_entries": plan.num_entries}
    return read(plan.planned(names).partitions(**limits)[1], [plan.branches[n] for n in names])


def served(bundle, events):
    """Answer of a real server process to some events."""
    command = [sys.executable, "-m", "mlaas4hep_dask.serve", str(bundle), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = next(
            found[0] for line in process.stdout if (found := re.findall(r"http://\S+", line))
        )
        payload = {"events": ak.to_list(events.to_awkward())}
        answer = httpx.post(url, json=payload, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
        process.stdout.close()


class Runs(SchedulerPlugin):
    """How often each task was done."""

    name = "runs"

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.done = Counter()

    def transition(self, key, start, finish, *_, **__):
        if (start, finish) == ("processing", "memory"):
            self.done[key] += 1

    def of(self, kind):
        """The tasks of a kind, and how often they were done."""
        return Counter({key: n for key, n in self.done.items() if kind in str(key)})

    def held(self, kind):
        """Those of which workers have the results."""
        tasks = self.scheduler.tasks.items()
        return {key for key, task in tasks if kind in str(key) and task.state == "memory"}


def kill_all(client):
    """End all workers of a local cluster, which starts them again."""
    for worker in ClusterHandle(client).alive():
        os.kill(workers_of(client).processes.pid(worker), signal.SIGKILL)


def await_that(condition, future):
    """Wait until a condition holds while something is under way."""
    while not condition():
        assert not future.done(), future.result()
        time.sleep(0.05)  # between looks
