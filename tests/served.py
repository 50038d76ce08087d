"""A small bundle, events for it, and a server of it in a process of its own."""

import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import awkward as ak
import numpy as np
import torch

from mlaas4hep_dask.bundle import write_bundle
from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.export import to_torchscript
from mlaas4hep_dask.specs.measure import measure

NUM_EVENTS = 1000


def make_array(num_events=NUM_EVENTS, *, seed=1):
    rng = np.random.default_rng(seed)
    num_jets = rng.integers(0, 6, num_events)
    pt = rng.exponential(40, num_jets.sum()).astype(np.float32)
    pt[::50] = np.nan
    eta = rng.normal(size=num_jets.sum()).astype(np.float32)
    return ak.Array(
        {
            "HLT_Jet": rng.random(num_events) < 0.5,
            "MET_pt": rng.exponential(30, num_events).astype(np.float32),
            "PV_npvs": rng.integers(0, 60, num_events, dtype=np.int32),
            "mass": rng.normal(125, 10, num_events),
            "Jet_eta": ak.unflatten(eta, num_jets),
            "Jet_pt": ak.unflatten(pt, num_jets),
        }
    )


def make_bundle(path, *, name="higgs", seed=0, overflows=False):
    events = Events.from_awkward(make_array())
    specs = measure(events, sample="signal")
    options = {"normalisation": "minmax", "width": 4}
    encoding = Encoding.from_specs(specs, **options)
    num_columns = encoding.layout.num_columns
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(num_columns, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1)
    ).eval()
    if overflows:  # of two hidden units that the output subtracts from each other
        network = torch.nn.Sequential(torch.nn.Linear(num_columns, 2), torch.nn.Linear(2, 1)).eval()
        torch.nn.init.constant_(network[0].weight, 1e4)
        network[1].weight.data = torch.tensor([[1.0, -1.0]])
    write_bundle(
        path,
        name=name,
        model=to_torchscript(network, encoding),
        specs=specs,
        encode=options,
        metrics={"auc": 0.8},
        data={},
        card="# higgs\n",
    )
    return network


def as_json(array):
    """Events as a client sends them: null for NaN."""
    return [
        {
            name: [None if x != x else x for x in value] if isinstance(value, list) else value
            for name, value in event.items()
        }
        for event in ak.to_list(array)
    ]


class Served:
    def __init__(self, process, log):
        self.process = process
        self.first_line = process.stdout.readline()
        self.curl = process.stdout.readline()
        found = re.search(r"http://\S+:\d+", self.first_line)
        assert found, self.first_line + log.read_text(encoding="utf-8")
        self.url = found[0]
        host, port = self.url.removeprefix("http://").split(":")
        self.address = (host, int(port))
        self.predict = f"{self.url}/v1/models/higgs/predict"


@contextmanager
def serving(*arguments):
    command = [sys.executable, "-W", "error", "-m", "mlaas4hep_dask.serve", "--port", "0"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("w", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        try:
            yield Served(process, log)
        finally:
            process.terminate()
            process.communicate(timeout=60)
            said = log.read_text(encoding="utf-8")
    assert process.returncode == 0
    assert "Traceback" not in said, said
