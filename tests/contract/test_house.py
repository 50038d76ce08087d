"""What people who carry the package on read of it is so."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from paths import REPOSITORY

from mlaas4hep_dask import __version__

ARCHITECTURE = REPOSITORY / "docs" / "explanation" / "architecture.md"


@pytest.mark.slow
def test_the_picture_and_the_table_of_rooms_are_those_of_the_code():
    done = subprocess.run(
        [sys.executable, "docs/draw_rooms.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout, done.stderr) == ("", "")


def test_every_room_stands_in_the_picture_and_in_the_table():
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (each for each in contracts["contracts"] if each["type"] == "layers")
    rooms = {room.strip() for layer in layers["layers"] for room in layer.split("|")}
    picture = (ARCHITECTURE.parent / "rooms.svg").read_text()
    assert set(re.findall(r">(\w+)</text>", picture)) == rooms
    assert set(re.findall(r"^\| `(\w+)` \| \w", ARCHITECTURE.read_text(), re.MULTILINE)) == rooms
    for room, target in re.findall(r"<title>(\w+) imports (\w+)</title>", picture):
        assert {room, target} <= rooms


def test_the_places_of_changes_exist():
    section = ARCHITECTURE.read_text().split("\n## Where a change belongs\n")[1]
    pages = section + (REPOSITORY / "CONTRIBUTING.md").read_text()
    paths = set(re.findall(r"`([\w./-]+(?:\.py|\.md|/))`", pages))
    assert len(paths) > 15
    folders = (REPOSITORY, REPOSITORY / "mlaas4hep_dask")
    missing = {path for path in paths if not any((folder / path).exists() for folder in folders)}
    assert missing == set()


def test_the_citation_names_this_version_and_both_papers():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    text = str(citation["references"])
    assert "arXiv:1811.04492" in text
    assert "10.1007/s41781-021-00061-3" in text


def test_public_ci_runs_all_pythons_of_the_package():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    pythons = [each.rpartition(" ")[2] for each in project["classifiers"] if "Python :: 3." in each]
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    job = workflow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == pythons
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
