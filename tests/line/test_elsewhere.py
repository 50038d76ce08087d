"""Workers that were started elsewhere see no folder of the user's, and may lack what is here."""

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import elsewhere
import main_job
import pytest
from distributed import Client
from services.processes import wait_until

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config import Cluster
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.first_worker import FirstWorker
from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.reader import Access, reading_needs
from mlaas4hep_dask.usercode import Need, find_code
from mlaas4hep_dask.waiting import ClusterHandle

pytestmark = pytest.mark.timeout(280)

NETWORK = """
import torch
from layers import WIDTH

def build(columns):
    first = torch.nn.Linear(columns, WIDTH)
    return torch.nn.Sequential(first, torch.nn.ReLU(), torch.nn.Linear(WIDTH, 1))
"""
LOSS = """
from layers import SCALE
import torch

def own(outputs, targets):
    return SCALE * torch.nn.functional.binary_cross_entropy_with_logits(
        outputs, targets, reduction="none")
"""
CUTS = """
import limits

def select(events):
    return events[events.NJet >= limits.LEAST]
"""
LAYERS, LIMITS = "WIDTH = 8\nSCALE = 2.0\n", "LEAST = 1\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The address of a scheduler with two workers, which have an old version of one package."""
    folder = tmp_path_factory.mktemp("elsewhere")
    old = elsewhere.package(folder, "fancy", "1.1")
    with elsewhere.cluster(folder, paths=[old]) as address:
        yield address


def write(folder, keys, **modules):
    folder.mkdir(parents=True, exist_ok=True)
    main_job.write_config(folder)
    file = folder / "dataset.yaml"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return file


def run(file, place, *paths, cwd):
    command = [
        *(sys.executable, "-m", "mlaas4hep_dask.run", file, "--cluster", place),
        *("--set", "training.epochs=1", "--output", cwd / "run"),
    ]
    environment = elsewhere.environment(*paths)
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


def error_of(done):
    assert done.returncode == 2, done.stdout + done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize("form", ["network:build", "network.py:build"])
def test_code_beside_the_yaml_and_what_it_imports_reach_workers(form, place, tmp_path):
    keys = {
        "model": {"callable": form},
        "function": {"callable": form.replace("network", "cuts").replace("build", "select")},
    }
    folder, here = tmp_path / "analysis", tmp_path / "here"
    here.mkdir()
    file = write(folder, keys, network=NETWORK, cuts=CUTS, layers=LAYERS, limits=LIMITS, loss=LOSS)
    text = json.loads(file.read_text())
    text["training"]["loss"] = form.replace("network", "loss").replace("build", "own")
    file.write_text(json.dumps(text))
    done = run(file, place, cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((here / "run/metrics.json").read_text())
    assert metrics["test"]["auc"] > 0.5


@pytest.mark.parametrize(
    ("keys", "modules"),
    [
        (
            {"model": {"callable": "network.py:build"}},
            {"network": f"import absent\n{NETWORK}", "layers": LAYERS},
        ),
        (
            {"function": {"callable": "cuts.py:select"}},
            {"cuts": CUTS.replace("    return", "    import absent\n    return"), "limits": LIMITS},
        ),
    ],
    ids=["model at its top", "function inside"],
)
def test_a_package_that_workers_lack_is_told_before_specs(keys, modules, place, tmp_path):
    site = elsewhere.package(tmp_path, "absent", "3.2")
    file = write(tmp_path / "analysis", keys, **modules)
    done = run(file, place, site, cwd=tmp_path)
    error = error_of(done)
    (what,) = (key["callable"] for key in keys.values())
    assert f"{what!r} needs module 'absent', which worker tcp://127.0.0.1:" in error
    assert f"Python {sys.version.split()[0]}, {sys.executable}" in error
    assert "install it in the environment of the workers, here 3.2" in error
    assert "specs:" not in done.stdout
    assert not (tmp_path / "run" / "specs.json").exists()


HELD = """
import time
from pathlib import Path
from distributed import get_worker

def select(events):
    try:
        get_worker()
    except ValueError:  # the first events, where the run was started
        return events
    (Path(FOLDER) / "begun").touch()
    while not (Path(FOLDER) / "ended").exists():
        time.sleep(0.05)
    return events
"""


def test_what_trainers_will_lack_is_told_before_they_come_or_while_others_read(tmp_path):
    here = elsewhere.package(tmp_path / "here", "absent", "3.2")
    readers = elsewhere.package(tmp_path / "readers", "rare", "1.0")
    keys = {
        "model": {"callable": "network.py:build"},
        "function": {"callable": "held.py:select"},
        "training": {"ranks": 1},
    }
    texts = {"layers": LAYERS, "held": f"FOLDER = {str(tmp_path)!r}\n{HELD}"}
    file = write(tmp_path / "analysis", keys, network=f"import absent\n{NETWORK}", **texts)
    paths = [here, readers]
    with elsewhere.cluster(tmp_path / "workers", names=["readers-0"], paths=[readers]) as place:
        error = error_of(run(file, place, *paths, cwd=tmp_path))
        assert "'network.py:build' needs module 'absent', which worker tcp://127.0.0.1:" in error
        assert f"{sys.executable}; none of 'trainers' has come yet) does not have" in error
        assert not (tmp_path / "begun").exists()  # no event was read
        (file.parent / "network.py").write_text(f"import rare\n{NETWORK}")
        with ThreadPoolExecutor() as pool:
            running = pool.submit(run, file, place, *paths, cwd=tmp_path)
            wait_until((tmp_path / "begun").exists, "a reader reads", seconds=100)
            trainer = elsewhere.worker(place, tmp_path / "workers", "--name", "trainers-0")
            try:
                error = error_of(running.result())
            finally:
                (tmp_path / "ended").touch()
                trainer.terminate()
                trainer.wait(30)
    assert "'network.py:build' needs module 'rare', which worker tcp://127.0.0.1:" in error
    assert "'trainers'" not in error


def test_a_module_that_no_import_names_is_told_with_what_to_do(place, tmp_path):
    text = "import importlib\nhidden = importlib.import_module('neddih'[::-1])\n" + NETWORK
    keys = {"model": {"callable": "network.py:build"}}
    folder = tmp_path / "analysis"
    file = write(folder, keys, network=text, layers=LAYERS, hidden="")
    error = error_of(run(file, place, folder, cwd=tmp_path))
    assert "model 'network.py:build' needs module 'hidden', which worker tcp://" in error
    assert "put it beside dataset.yaml or on PYTHONPATH here and name it in an import" in error


def test_an_import_that_raises_on_a_worker_is_told_with_its_line(place, tmp_path):
    text = f"import os\nassert os.environ['HERE']\n{NETWORK}"
    keys = {"model": {"callable": "network.py:build"}}
    file = write(tmp_path / "analysis", keys, network=text, layers=LAYERS)
    error = error_of(run(file, place, cwd=tmp_path))
    assert "model 'network.py:build' cannot be imported on worker tcp://" in error
    assert "KeyError in line 2 of network.py: 'HERE'" in error


def test_other_versions_of_packages_that_code_imports_are_told(
    place, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.WARNING)  # Dask silences handlers while a cluster lives
    monkeypatch.syspath_prepend(elsewhere.package(tmp_path, "fancy", "1.2"))
    keys = {"function": {"callable": "cuts.py:select"}}
    monkeypatch.setenv("LEAST", "2")
    limits = "import os\nLEAST = int(os.environ.get('LEAST', 1))\n"
    file = write(tmp_path / "analysis", keys, cuts=f"import fancy\n{CUTS}", limits=limits)
    with connect(Cluster(address=place), ranks=1) as client:
        plan = Dataset.from_yaml(file, client).plan()
    assert plan.num_events
    assert "has other versions: fancy 1.1 (1.2 here)" in caplog.text
    words = "'cuts.py:select' asks for the environment's LEAST, which has another value on worker"
    assert words in caplog.text


def test_a_notebook_is_told_when_it_plans(place, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(elsewhere.package(tmp_path, "absent", "3.2"))
    keys = {"function": {"callable": "cuts.py:select"}}
    file = write(tmp_path / "analysis", keys, cuts=f"import absent\n{CUTS}", limits=LIMITS)
    with Client(place) as client:
        with pytest.raises(ClusterError, match=r"needs module 'absent', which worker") as caught:
            Dataset.from_yaml(file, client).plan()
        assert caught.value.worker in client.scheduler_info(n_workers=-1)["workers"]
    assert caught.value.module == "absent"


def test_workers_without_torch_or_decoders_are_told_by_run_and_predict(tmp_path):
    folder, here = tmp_path / "workers", tmp_path / "here"
    file = write(here, {})
    main_job.run(here, "local")
    bundle, data = here / "run" / "bundle", main_job.DATA / main_job.SIGNAL
    hidden = elsewhere.without(tmp_path / "site", "torch", "fsspec_xrootd")
    with elsewhere.cluster(folder, paths=[hidden]) as place:
        (tmp_path / "again").mkdir()
        error = error_of(run(file, place, cwd=tmp_path / "again"))
        assert "training needs module 'torch', which worker tcp://127.0.0.1:" in error
        command = [sys.executable, "-m", "mlaas4hep_dask.predict", bundle, data]
        options = ["--output", tmp_path / "scores.root", "--cluster", place]
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=100)
        assert "scoring needs module 'torch', which worker tcp://127.0.0.1:" in error_of(done)
        needs = reading_needs(["root://a.org//b.root"], Access())
        handle = ClusterHandle(Client(place))
        with (
            handle.client,
            pytest.raises(ClusterError, match=r"root:// files needs module 'fsspec"),
        ):
            FirstWorker(handle, needs, "readers").end()


def test_an_import_that_does_not_come_back_is_told(tmp_path):
    (tmp_path / "endless.py").write_text("import time\ntime.sleep(15)\ndef select(events): ...\n")
    code = find_code("endless.py:select", resolve=lambda path: tmp_path / path)
    with (
        elsewhere.cluster(tmp_path / "workers", names=["readers-0"]) as place,
        Client(place) as client,
    ):
        needs = [Need.of("reading", ["numpy"]), Need.of_code("function", code)]
        trial = FirstWorker(ClusterHandle(client), needs, "readers", seconds=1.0)
        words = (
            "import of function 'endless.py:select' on a worker of 'readers' has not ended after 1"
        )
        with pytest.raises(ClusterError, match=words):
            trial.end()
