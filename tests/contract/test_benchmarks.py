import json
import subprocess
import sys

import pytest
from paths import REPOSITORY, TUTORIAL

pytestmark = pytest.mark.slow

FOLDER = REPOSITORY / "benchmarks"
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
        "read.py --compression lz4 --reference decompression",
        "specs.py --compression zstd",
        "encode.py --image",
        "encode.py --with-read",
        "train.py",
        "graph.py --partitions 40",
        "windows.py --partitions 40",
        f"real.py --files {TUTORIAL}/data/cms_heptutorial_ww.root:events",
        "peers.py --branches small",
        "cluster.py --num-small 4 --times 2",
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
