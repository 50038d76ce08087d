"""What people who carry the package on read of it is so."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from paths import REPOSITORY

from mlaas4hep_dask import __version__

PACKAGE = REPOSITORY / "mlaas4hep_dask"
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
    always, nightly = (step for step in job["steps"] if "run" in step)
    assert always["run"].split()[-1] == ".ci/run"
    assert "if" not in always
    assert nightly["run"].split()[-2:] == ["make", "nightly"]
    assert nightly["if"] == "github.event_name == 'schedule'"
    assert workflow[True]["schedule"]  # YAML's "on"
    for step in (always, nightly):
        assert step["run"].startswith("sudo ")  # some tests need root, and may not be skipped


def module_of(path):
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def test_no_module_is_longer_than_a_page_that_is_read_at_once():
    """Above 400 lines there are two concepts: each becomes a module."""
    lengths = {name: path.read_bytes().count(b"\n") for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def named_in(path):
    """Modules that a file names: by an import, in a text, or by what a room gives on first use."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    here = module_of(path) if path.is_relative_to(PACKAGE) else ""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
        elif isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for name in re.findall(r"mlaas4hep_dask(?:\.\w+)*", node.value):
                names |= {name, name.rpartition(".")[0]}  # that of an attribute
            if re.fullmatch(r"mlaas4hep_dask(\.\w+)+\.", node.value):  # a module by its word
                names |= {each for each in MODULES if each.startswith(node.value)}
            names |= {f"{node.value}.__main__", f"{here}.{node.value}"}
    return names


def sources_of(room):
    """By what a room gives under its own name: the module that has it."""
    sources = {}
    for node in ast.walk(ast.parse(MODULES[room].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            sources |= {each.asname or each.name: node.module for each in node.names}
        elif isinstance(node, ast.Dict):  # on first use
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                    sources[key.value] = f"{room}.{value.value}"
    return sources


def test_every_module_is_named_by_a_test_or_carries_one_of_its_room_that_is():
    """A test names a module, or the file of tests of its room is called after it."""
    rooms = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    given = {f"{room}.{name}": of for room in rooms for name, of in sources_of(room).items()}
    names = set()
    for test in (REPOSITORY / "tests").rglob("*.py"):
        names |= named_in(test)
        names.add(f"mlaas4hep_dask.{test.parent.name}.{test.stem.removeprefix('test_')}")
    names |= {given[name] for name in names & given.keys()}
    named = names & MODULES.keys()
    left = [*named - rooms]  # a room itself imports all that it has
    while left:
        module = left.pop()
        for other in named_in(MODULES[module]) & MODULES.keys() - named:
            if other.split(".")[:2] == module.split(".")[:2]:
                named.add(other)
                left.append(other)
    around = {name.rpartition(".")[0] for name in named}
    assert sorted(MODULES.keys() - named - around) == []


# Functions of modules that tests still put in the place of their own: an attempt that was given up
# and wakes up again comes about by chance alone.
REPLACED = {"_read", "attempt"}


def test_tests_pass_what_they_want_and_replace_nothing_more_in_modules():
    """A bound that a test wants smaller is a parameter; this list may only become shorter."""
    replaced = set()
    for test in (REPOSITORY / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(test.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                "monkeypatch.setattr"
            ):
                words = [getattr(each, "value", None) for each in node.args[:2]]
                word = next(word for word in reversed(words) if isinstance(word, str))
                replaced.add(word.rpartition(".")[2])
    assert replaced == REPLACED


def test_no_two_files_of_tests_have_one_name():
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)  # pytest imports them by name alone
