"""Commands that are interrupted leave nothing behind; their first line comes at once."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from paths import TUTORIAL
from remains import left_in
from services.processes import wait_until

from mlaas4hep_dask import entry

pytestmark = pytest.mark.timeout(280)
DATA = TUTORIAL / "data"
CONFIG = """
name: t
tree: events
samples:
  - {{name: single_top, label: 1, files: {data}/cms_heptutorial_single_top.root}}
  - {{name: diboson, label: 0, files: "{data}/cms_heptutorial_[wz]*.root"}}
branches: {{exclude: ["MC*", "EventWeight"]}}
partition: {{max_events: 500}}
specs: {{cache: null}}
training: {{epochs: 500, batch_size: 200, ranks: 2}}
"""


@pytest.fixture
def temporary():
    """A temporary directory whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="e-", dir="/tmp") as folder:
        yield Path(folder)


def began(folder, temporary, *command):
    """A command in a process group and a temporary directory of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def imports(module):
    """It imports compiled modules of a library, whose files its memory maps."""

    def reached(process, folder):
        del folder
        maps = Path("/proc", str(process.pid), "maps")
        wait_until(lambda: f"/{module}/" in maps.read_text(), f"{module} is imported", seconds=100)

    return reached


def prints(word):
    """It has printed a line that begins so."""

    def reached(process, folder):
        del folder
        assert any(line.startswith(word) for line in process.stdout), word

    return reached


def is_in(stage):
    """Its records tell that a stage has begun."""

    def reached(process, folder):
        prints("dashboard: ")(process, folder)
        journal, record = folder / "run" / "journal.jsonl", f'"kind": "stage", "stage": "{stage}"'
        wait_until(
            lambda: journal.exists() and record in journal.read_text(),
            f"stage {stage}",
            seconds=100,
            pause=0.01,
        )

    return reached


@pytest.mark.parametrize(
    ("reached", "number", "status"),
    [
        pytest.param(imports("numpy"), signal.SIGINT, 130, id="while Dask is imported"),
        pytest.param(prints("dashboard: "), signal.SIGTERM, 143, id="while ranks import torch"),
        pytest.param(
            is_in("start"),
            signal.SIGINT,
            130,
            id="while files are planned",
            marks=pytest.mark.nightly,
        ),
        pytest.param(
            is_in("specs"), signal.SIGINT, 130, id="in the specs pass", marks=pytest.mark.nightly
        ),
        pytest.param(prints("epoch 1/"), signal.SIGTERM, 143, id="in training"),
        pytest.param(prints("epoch 1/"), signal.SIGHUP, 129, id="its terminal is closed"),
    ],
)
def test_a_run_that_is_ended_leaves_no_trace_process_or_file(
    tmp_path, temporary, reached, number, status
):
    (tmp_path / "dataset.yaml").write_text(CONFIG.format(data=DATA))
    process = began(tmp_path, temporary, "mlaas4hep_dask.run", "dataset.yaml", "--output", "run")
    reached(process, tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)  # as a terminal, or a batch system, does
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=100) == status, rest
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "interrupted; the same command takes the run up again"
    assert "Error" not in rest
    assert left_in(temporary) == []
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_what_a_killed_run_has_left_is_removed_by_the_next(tmp_path, temporary):
    (tmp_path / "dataset.yaml").write_text(CONFIG.format(data=DATA))
    command = ["mlaas4hep_dask.run", "dataset.yaml", "--output", "run"]
    killed = began(tmp_path, temporary, *command)
    prints("dashboard: ")(killed, tmp_path)
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.communicate(timeout=100)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    assert left_in(temporary) != []
    following = began(tmp_path, temporary, *command)
    prints("dashboard: ")(following, tmp_path)
    following.terminate()
    following.communicate(timeout=100)
    assert left_in(temporary) == []


@pytest.mark.parametrize(
    ("command", "first"),
    [
        (["mlaas4hep_dask.run", "none.yaml"], "running none.yaml"),
        (["mlaas4hep_dask.run", "none.yaml", "--check"], "checking none.yaml"),
        (
            ["mlaas4hep_dask.predict", "none", "a.root", "--output", "b.root"],
            "scoring with none into b.root",
        ),
        (["mlaas4hep_dask.specs", "show", "none"], "specs: show none"),
        (["mlaas4hep_dask.serve", "none"], "serve: none"),
    ],
)
def test_the_first_line_comes_before_what_takes_time_is_imported(tmp_path, command, first):
    # Modules that are imported stand on the same stream, in their order.
    done = subprocess.run(
        [sys.executable, "-u", "-X", "importtime", "-m", *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 2, done.stdout
    lines = done.stdout.splitlines()
    before = [line.rpartition("|")[2].strip() for line in lines[: lines.index(first)]]
    heavy = {"numpy", "numba", "dask", "distributed", "torch", "uproot", "awkward", "pydantic"}
    assert heavy.isdisjoint(before), heavy.intersection(before)
    assert any(line.startswith("error: ") for line in lines)


SCRIPT = "import sys; from mlaas4hep_dask.entry import {name}; sys.exit({name}())"


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (entry.mlaas4hep, "mlaas4hep_dask"),
        (entry.run, "mlaas4hep_dask.run"),
        (entry.predict, "mlaas4hep_dask.predict"),
        (entry.serve, "mlaas4hep_dask.serve"),
        (entry.specs, "mlaas4hep_dask.specs"),
    ],
)
@pytest.mark.parametrize("is_script", [False, True])
def test_a_command_that_is_interrupted_before_it_has_begun_prints_nothing(
    tmp_path, command, module, is_script
):
    script = SCRIPT.format(name=command.__name__)  # as pip writes it
    # Imported in place of the first library that it needs: the moment at which Ctrl-C is pressed.
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, *(["-c", script] if is_script else ["-m", module])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_a_temporary_directory_with_too_long_a_path_is_told_in_one_line(tmp_path, temporary):
    (tmp_path / "dataset.yaml").write_text(CONFIG.format(data=DATA))
    deep = temporary / ("x" * 120)
    deep.mkdir()
    short = ["--set", "training.epochs=1", "--set", "partition.max_events=10000"]
    process = began(tmp_path, deep, "mlaas4hep_dask.run", "dataset.yaml", "--output", "run", *short)
    out, _ = process.communicate(timeout=200)
    assert "Traceback" not in out
    if sys.version_info >= (3, 14):  # whose multiprocessing finds a shorter place by itself
        assert process.returncode == 0, out
    else:
        assert process.returncode == 2, out
        assert f"error: the temporary directory {deep} has too long a path for sockets" in out
