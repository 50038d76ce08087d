import json
import subprocess
import sys

import pytest
from paths import REPOSITORY, TUTORIAL

pytestmark = pytest.mark.slow

FOLDER = REPOSITORY / "benchmarks"
NIGHTLY = pytest.mark.nightly
COMMON = {
    "stage",
    "events",
    "seconds",
    "events_per_second",
    "reference",
    "ratio",
    "cores",
    "versions",
}


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmarks")


@pytest.mark.parametrize(
    "command",
    [
        "read.py",
        pytest.param("read.py --compression lz4 --reference decompression", marks=NIGHTLY),
        "specs.py --compression zstd",
        "encode.py --image",
        "encode.py --with-read",
        "predict.py",
        "train.py",
        "train.py --feed --flat",
        pytest.param("chain.py --epochs 1", marks=NIGHTLY),
        pytest.param("ranks.py --epochs 1", marks=NIGHTLY),
        pytest.param("learned.py --sets heavy-tails", marks=NIGHTLY),
        pytest.param("graph.py --partitions 40", marks=NIGHTLY),
        "windows.py --partitions 40",
        "shuffle.py --batch-size 10",
        pytest.param(
            f"real.py --files {TUTORIAL}/data/cms_heptutorial_ww.root:events", marks=NIGHTLY
        ),
        pytest.param("peers.py --branches small", marks=NIGHTLY),
        pytest.param("cluster.py --num-small 4 --times 2", marks=NIGHTLY),
        pytest.param("projection.py --codecs lz4 --site slurm --batch-size 50", marks=NIGHTLY),
        pytest.param(
            "churn.py --partitions 80 --partition-events 50 --workers 2 --seconds 0 "
            "--most-growth 2",
            marks=NIGHTLY,
        ),
    ],
)
def test_a_benchmark_ends_with_one_json_object(command, data_folder):
    script, *more = command.split()
    few = ["--events", "2000", "--repeats", "1", "--data", str(data_folder)]
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *few, *more], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() >= COMMON
    assert found["seconds"] > 0
    assert found["ratio"] > 0


@NIGHTLY
def test_a_month_counts_every_event_once_and_is_held_against_its_bounds(data_folder):
    size = ["--partitions", "80", "--partition-events", "50", "--workers", "2", "--seconds", "0.1"]
    lives = ["--shortest", "2", "--longest", "4", "--data", str(data_folder)]
    bounds = ["--most-redone", "-1", "--most-growth", "0.1"]  # which nothing can keep to
    done = subprocess.run(
        [sys.executable, str(FOLDER / "churn.py"), *size, *lives, *bounds],
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["every_event_once"]
    assert found["partitions"] == 80
    assert found["deaths"] > 0
    assert done.returncode == 1
    said = f"{found['redone']:.1%} of the work was done again, and -100.0% may be; memory grew to "
    assert said in done.stderr


@pytest.mark.timeout(400)
@NIGHTLY
@pytest.mark.usefixtures("slurm")
def test_lost_jobs_are_replaced_and_workers_of_slurm_are_held_against_local_ones(data_folder):
    few = ["--events", "2000", "--repeats", "1", "--times", "1", "--data", str(data_folder)]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "batch.py"), *few], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lost, last = map(json.loads, done.stdout.splitlines()[-2:])
    assert lost.keys() & last.keys() >= COMMON
    assert (lost["stage"], len(lost["delays"])) == ("lost jobs", 1)
    assert (last["stage"], last["ratios"].keys()) == ("batch", {"specs", "encode"})
    assert lost["ratio"] > 0 < last["ratio"]


@NIGHTLY
def test_projected_seconds_are_held_against_runs_of_the_whole_command(data_folder):
    options = ["--events", "2000", "--repeats", "1", "--batch-size", "50", "--epochs", "1"]
    script = [str(FOLDER / "projection.py"), "--check", "--check-events", "3000"]
    done = subprocess.run(
        [sys.executable, *script, *options, "--data", str(data_folder)],
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    stages = found["check"]["3000"]
    assert stages.keys() == {"specs", "train", "whole command"}
    for predicted, measured, on_the_clock in stages.values():
        assert min(predicted, measured, on_the_clock) > 0
    within = [abs(predicted / measured - 1) <= 0.2 for predicted, measured, _ in stages.values()]
    assert found["is_within"] == all(within)
    assert done.returncode == (0 if all(within) else 1)
