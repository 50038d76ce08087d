"""The wheel has what the package needs where it is installed."""

import os
import subprocess
import sys
import zipfile

import pytest
from paths import REPOSITORY

PLACES = {"mlaas4hep_dask": "mlaas4hep_dask", "jobqueue": "mlaas4hep_dask/jobqueue"}


def files_below(folder):
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package_and_all_sites_byte_for_byte(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    done = subprocess.run([*build, tmp_path], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
        archive.extractall(tmp_path / "installed")
    inside = {name: content for name, content in inside.items() if ".dist-info/" not in name}
    assert inside == {
        f"{place}/{name}": path.read_bytes()
        for folder, place in PLACES.items()
        for name, path in files_below(REPOSITORY / folder).items()
    }
    command = [sys.executable, "-m", "mlaas4hep_dask", "cluster", "sites"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    listed = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True
    ).stdout
    sites = [path.stem for path in (REPOSITORY / "jobqueue").glob("*.yaml")]
    assert len(sites) >= 8
    assert all(site in listed for site in sites)
