"""What killed processes have left in the temporary folder is removed, and nothing else is."""

import os
import subprocess
import sys

import pytest

from mlaas4hep_dask.cluster.scratch import MARK

pytestmark = pytest.mark.slow  # a process


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_copy_of_this_package_in_the_temporary_folder_stays(tmp_path, is_folder):
    others = [tmp_path / "checkout" / name for name in ("mlaas4hep_dask", MARK)]
    others.append(tmp_path / "pymp-checkout" / "mlaas4hep_dask")
    for other in others:
        other.parent.mkdir(exist_ok=True)
        if is_folder:
            other.mkdir()
        else:
            other.touch()
    left = tmp_path / "pymp-left"
    left.mkdir()
    (left / MARK).touch()
    text = "from mlaas4hep_dask.cluster.scratch import socket_folder as s; assert s().is_dir()"
    command = [sys.executable, "-c", text]
    subprocess.run(command, env=os.environ | {"TMPDIR": str(tmp_path)}, check=True, timeout=120)
    assert all(other.exists() for other in others)
    assert not left.exists()
