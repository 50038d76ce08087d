"""The verbs that follow a run, on real runs in processes of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from paths import TUTORIAL
from remains import left_in

from mlaas4hep_dask import journal

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(290)]
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
training: {{epochs: {epochs}, batch_size: 200, ranks: 2}}
"""


@pytest.fixture
def temporary():
    """A temporary directory whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as folder:
        yield Path(folder)


def command(*words):
    return [sys.executable, "-m", "mlaas4hep_dask", *map(str, words)]


def began(folder, temporary, epochs):
    """A run in a process group of its own; what it prints is in the file ``said``."""
    (folder / "dataset.yaml").write_text(CONFIG.format(data=DATA, epochs=epochs))
    with (folder / "said").open("w") as said:
        return subprocess.Popen(
            command("run", "dataset.yaml", "--output", "run"),
            cwd=folder,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def lines(text):
    """The lines that a run prints; gloo of some builds of torch tells of its connections too."""
    return [line for line in text.splitlines() if "/gloo/transport/" not in line]


def asked(folder, *words):
    """A verb that has ended."""
    return subprocess.run(
        command(*words), cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )


def status(folder):
    done = asked(folder, "status", "run", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_for_epoch(folder, number, process):
    while True:
        assert process.poll() is None, (folder / "said").read_text()
        is_there = (folder / "run" / "journal.jsonl").exists()
        if is_there and len(journal.read(folder / "run").epochs) >= number:
            return
        time.sleep(0.05)  # polls for an epoch of another process


def test_a_run_is_followed_killed_taken_up_and_attached_to_until_it_is_complete(
    tmp_path, temporary
):
    first = began(tmp_path, temporary, epochs=8)
    wait_for_epoch(tmp_path, 1, first)
    told = status(tmp_path)
    assert (told["state"], told["is_here"], told["process"]) == ("running", True, first.pid)
    assert told["stage"]["stage"] == "train"
    assert told["samples"]["single_top"] == {
        "files": 1,
        "events": 5684,
        "read": 5684,
        "selected": 5684,
    }
    assert [stage["stage"] for stage in told["stages"]] == ["start", "plan", "specs", "trial"]
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    num_before = len(journal.read(tmp_path / "run").epochs)
    told = status(tmp_path)
    assert (told["state"], told["is_here"]) == ("killed", False)
    assert len(told["epochs"]) == num_before
    page = asked(tmp_path, "status", "run").stdout
    assert re.match(rf"t: killed: process {first.pid} on \S+ is gone without a word", page)
    attached = asked(tmp_path, "attach", "run")
    assert attached.returncode == 137
    assert "is gone without a word" in attached.stderr
    assert "epoch 1/8" in attached.stdout
    ended = asked(tmp_path, "stop", "run")
    assert (ended.returncode, ended.stdout.splitlines()[0][:22]) == (0, "nothing to end: killed")

    second = began(tmp_path, temporary, epochs=8)
    while status(tmp_path)["process"] != second.pid:
        assert second.poll() is None
    attached = asked(tmp_path, "attach", "run")
    assert second.wait(timeout=60) == 0
    assert attached.returncode == 0, attached.stderr
    said = lines((tmp_path / "said").read_text())
    assert said[0] == "running dataset.yaml"
    assert attached.stdout.splitlines()[0].startswith(f"run t, process {second.pid} on ")
    assert lines(attached.stdout)[1:] == said[1:]  # the closing table too
    assert re.search(r"taking up the run in .* after epoch \d", attached.stdout)
    told = status(tmp_path)
    assert (told["state"], len(told["epochs"])) == ("complete", 8)
    last = asked(tmp_path, "attach", "run", "--last-stage")
    assert (last.returncode, last.stdout.splitlines()[0][:8]) == (0, "export: ")
    again = asked(tmp_path, "stop", "run")
    assert (again.returncode, again.stdout[:24]) == (0, "nothing to end: complete")


def test_a_run_that_is_stopped_in_training_leaves_nothing_and_who_is_attached_hears_of_it(
    tmp_path, temporary
):
    run = began(tmp_path, temporary, epochs=500)
    wait_for_epoch(tmp_path, 1, run)
    children = psutil.Process(run.pid).children(recursive=True)
    with subprocess.Popen(
        command("attach", "run"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as attached:
        for line in attached.stdout:
            if line.startswith("epoch 2/"):
                break
        leaving = subprocess.Popen(command("attach", "run"), cwd=tmp_path, stdout=subprocess.PIPE)
        leaving.stdout.readline()
        leaving.send_signal(signal.SIGINT)
        leaving.communicate(timeout=60)
        assert leaving.returncode == 130
        assert run.poll() is None  # it goes on
        done = asked(tmp_path, "stop", "run")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            f"ending process {run.pid} on {os.uname().nodename}",
            "nothing is left of it but its folder",
        ]
        _, alive = psutil.wait_procs(children, timeout=0)
        assert alive == []
        assert run.wait(timeout=20) == 143
        rest = attached.stdout.read()
    assert rest.splitlines()[-1] == "interrupted; the same command takes the run up again"
    assert attached.returncode == 143
    assert left_in(temporary) == []
    assert status(tmp_path)["state"] == "interrupted"
    assert status(tmp_path)["exit_status"] == 143


def test_a_run_that_fails_on_its_way_tells_why_and_with_which_status(tmp_path, temporary):
    (tmp_path / "dataset.yaml").write_text(CONFIG.format(data=DATA, epochs=1))
    words = ["run", "dataset.yaml", "--output", "run", "--cluster", "tcp://127.0.0.1:1"]
    failed = asked(tmp_path, *words)
    assert failed.returncode == 2
    attached = asked(tmp_path, "attach", "run")
    assert attached.returncode == 2
    assert attached.stderr == failed.stderr
    told = status(tmp_path)
    assert (told["state"], told["exit_status"]) == ("failed", 2)
    assert failed.stderr.splitlines()[-1] == f"error: {told['error']}"


def test_a_run_of_another_machine_is_not_ended_from_here_but_the_line_that_does_is_told(tmp_path):
    records = journal.Journal()
    with records.kept(tmp_path / "run" / "journal.jsonl"):
        records.add(journal.Run("t", "0.1.0", os.getpid(), "login.example.org", None, "b/1"))
        done = asked(tmp_path, "stop", "run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the run works on login.example.org: end it there, with")
    line = done.stderr.splitlines()[1]
    assert line.startswith("  ssh login.example.org ")
    assert f"-m mlaas4hep_dask stop {tmp_path / 'run'}" in line


def test_a_run_is_detached_from_its_terminal_on_a_machine_without_a_batch_system(tmp_path):
    (tmp_path / "dataset.yaml").write_text(CONFIG.format(data=DATA, epochs=3))
    words = ["run", "dataset.yaml", "--output", "run", "--detach"]
    begun = asked(tmp_path, *words)
    assert begun.returncode == 0, begun.stderr
    first, *follow = begun.stdout.splitlines()
    number, log = re.match(r"process (\d+) on \S+: it prints into (.*)$", first).groups()
    assert [line.split(": ")[1] for line in follow] == [
        f"mlaas4hep {verb} run" for verb in ("attach", "status", "stop")
    ]
    os.kill(int(number), signal.SIGSTOP)  # that it does not end before it is looked at
    try:
        assert status(tmp_path)["state"] in ("queued", "running")
        again = asked(tmp_path, *words)
    finally:
        os.kill(int(number), signal.SIGCONT)
    assert again.returncode == 2
    assert f"was begun already: process {number} on " in again.stderr
    attached = asked(tmp_path, "attach", "run")
    assert attached.returncode == 0, attached.stderr
    assert attached.stdout.startswith(f"run t, process {number} on ")
    assert asked(tmp_path, "stop", "run").returncode == 0  # waits until the process has ended
    said = lines(Path(log).read_text())
    assert said[0] == "running dataset.yaml"
    assert said[1:] == lines(attached.stdout)[1:]
    assert f"== {log} (process {number} on " in asked(tmp_path, "logs", "run").stdout
    assert status(tmp_path)["state"] == "complete"
    scores_are_detached_too(tmp_path)


def scores_are_detached_too(folder):
    """As a run, with the model of one."""
    words = ["predict", "run/bundle", DATA / "cms_heptutorial_ww.root", "--output", "scores.root"]
    failed = asked(folder, *words, "--tree", "event", "--detach")
    assert failed.returncode == 2
    assert "did you mean 'events'" in failed.stderr
    assert not (folder / "scores.root.jobs").exists()
    begun = asked(folder, *words, "--detach")
    assert begun.returncode == 0, begun.stderr
    log = Path(re.match(r"process \d+ on \S+: it prints into (.*)\n", begun.stdout)[1])
    attached = asked(folder, "attach", "scores.root")
    assert attached.returncode == 0, attached.stderr
    assert attached.stdout.startswith("predict scores.root, process ")
    assert re.search(r"events scored +│ 4,580 ", attached.stdout)
    assert attached.stdout.endswith("\nscores: scores.root (TTree)\n")
    assert asked(folder, "stop", "scores.root").returncode == 0
    assert lines(log.read_text())[1:] == lines(attached.stdout)[1:]
    assert f"== {log} (process " in asked(folder, "logs", "scores.root").stdout
    assert asked(folder, "status", "scores.root").stdout.startswith("scores.root: complete since ")
    again = asked(folder, *words, "--detach")
    assert again.returncode == 2
    assert "scores.root exists" in again.stderr
    lost = asked(folder, *words, "--overwrite", "--cluster", "tcp://127.0.0.1:1", "--detach")
    assert lost.returncode == 0, lost.stderr
    failed = asked(folder, "attach", "scores.root")
    assert failed.returncode == 2
    assert "error: no Dask scheduler answers at tcp://127.0.0.1:1" in failed.stderr


def test_a_run_that_cannot_begin_is_not_detached(tmp_path):
    (tmp_path / "dataset.yaml").write_text(CONFIG.format(data=DATA, epochs=3) + "modell: {}\n")
    done = asked(tmp_path, "run", "dataset.yaml", "--output", "run", "--detach")
    assert done.returncode == 2
    assert "did you mean 'model'" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.yaml"]
