"""The ways of workflows/validation.ipynb agree, and its page tells what the notebook shows."""

import re
import shutil

import nbformat
import numpy as np
import pytest
import uproot
from nbclient import NotebookClient
from paths import REPOSITORY

WORKFLOWS = REPOSITORY / "workflows"
PAGE = REPOSITORY / "docs" / "explanation" / "validation.md"
ROW = re.compile(r"^\| (real|generated) \| (train|validation|test) \| .* \|$", re.MULTILINE)
SMALL = {"EVENTS": "20_000", "SEEDS": "2", "BOUND": "0.02"}


def table_of(notebook):
    """Rows of AUC that the notebook shows, as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.data.get("text/markdown", "") for output in outputs if "data" in output]
    return [row[0] for row in ROW.finditer("\n".join(texts))]


def differences_of(rows):
    """By data set and split: how far the means of the three ways are apart, computed anew."""
    means = {tuple(re.findall(r"\w+", row)[:2]): re.findall(r"(\d\.\d+) ±", row) for row in rows}
    assert all(len(each) == 3 for each in means.values())
    return {key: np.ptp(np.array(each, np.float64)) for key, each in means.items()}


def test_the_page_has_the_table_of_the_notebook_and_all_ways_agree():
    notebook = nbformat.read(WORKFLOWS / "validation.ipynb", as_version=4)
    for name, value in {"EVENTS": "350_000", "BOUND": "0.005"}.items():
        assert f"\n{name} = {value}  #" in "\n" + notebook.cells[1].source  # at its full size
    rows = table_of(notebook)
    differences = differences_of(rows)
    assert len(differences) == 6
    assert max(differences.values()) <= 0.005
    assert [row[0] for row in ROW.finditer(PAGE.read_text(encoding="utf-8"))] == rows


def test_the_generated_files_have_the_published_shape(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(WORKFLOWS)
    from validation_data import generate

    paths = generate(tmp_path, events=2_000)
    trees = [uproot.open(path)["Events"] for path in paths]
    assert [path.name for path in paths] == ["signal.root", *sorted(p.name for p in paths[1:])]
    assert len(trees) == 9
    assert sum(tree.num_entries for tree in trees) == 2_000
    assert trees[0].num_entries == 216  # 10.8 %
    for tree in trees:
        assert len(tree.keys()) == 27
        assert set(tree.typenames().values()) == {"float"}
    uuids = [tree.file.uuid for tree in trees]
    assert len(set(uuids)) == 9
    again = generate(tmp_path / "again", events=2_000)
    assert [uproot.open(path).file.uuid for path in again] == uuids  # and so the split
    for path, tree in zip(again, trees, strict=True):
        for name, values in uproot.open(path)["Events"].arrays(library="np").items():
            np.testing.assert_array_equal(values, tree[name].array(library="np"))
            assert np.isfinite(values).all()


@pytest.mark.nightly
@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_ways_to_one_network_agree_on_fewer_events(tmp_path):
    ignored = shutil.ignore_patterns("runs", ".ipynb_checkpoints")
    folder = shutil.copytree(WORKFLOWS, tmp_path / "workflows", ignore=ignored)
    notebook = nbformat.read(folder / "validation.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
    settings = notebook.cells[1]
    for name, value in SMALL.items():
        settings.source, num_settings = re.subn(
            rf"^{name} = [\d_.]+", f"{name} = {value}", settings.source, flags=re.MULTILINE
        )
        assert num_settings == 1
    NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    differences = differences_of(table_of(notebook))
    assert len(differences) == 6
    assert max(differences.values()) <= float(SMALL["BOUND"])
    assert (folder / "runs" / "validation" / "validation.svg").is_file()
