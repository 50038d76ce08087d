"""What `make demo` says before it downloads anything."""

import re
import subprocess
import sys

import pytest
from paths import REPOSITORY


@pytest.mark.slow
def test_the_demo_says_what_it_would_download_and_how_to_take_less(tmp_path):
    made = tmp_path / "venv"
    command = ["make", f"VENV={made}", f"PYTHON={sys.executable}", "PIP_ARGS=--no-index"]
    done = subprocess.run(
        [*command, f"{made}/.torch"], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "looking for a PyTorch without CUDA (200 MB to download)" in done.stdout
    # pip may look into no index here, which thus has none
    assert "5.3 GB on disk, of which nothing is used here. To leave them out," in done.stdout
    assert "PIP_ARGS='--extra-index-url https://download.pytorch.org/whl/cpu'" in done.stdout
    rest = subprocess.run(
        [*command, "--dry-run", "demo"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    ).stdout
    said, installed = (rest.index(word) for word in ("takes 1.6 GB", "install --no-index"))
    assert said < installed
    assert re.search(r"-m mlaas4hep_dask\.run workflows/heptutorial/dataset\.yaml", rest)
