"""What ``--check`` sees before anything runs: files cut short, outputs, splits."""

import shutil
from pathlib import Path

import pytest
import yaml
from servers import http_server

from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.reader import plan_file
from mlaas4hep_dask.run.cli import main

pytestmark = pytest.mark.cluster


@pytest.fixture
def keys(cms_files, tmp_path):
    signal, background = (shutil.copy(file, tmp_path) for file in (cms_files[0], cms_files[1]))
    return {
        "tree": "events",
        "samples": [
            {"name": "signal", "label": 1, "files": str(signal)},
            {"name": "background", "label": 0, "files": str(background)},
        ],
        "specs": {"cache": None},
    }


def checked(keys, tmp_path, *options):
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(keys))
    return main([str(tmp_path / "dataset.yaml"), "--check", *options])


def test_a_file_without_its_last_bytes_is_seen_though_it_opens(keys, tmp_path, capsys, hasty):
    path = Path(keys["samples"][1]["files"])
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    assert checked(keys, tmp_path) == 2
    error = capsys.readouterr().err
    expected = f"the file is cut short: it has {len(content) - 10:,} bytes, and {len(content):,}"
    assert f"{path} cannot be read" in error
    assert expected in error
    with (
        http_server(tmp_path) as (_, base),
        pytest.raises(UnreadableFileError, match="the file is cut short: it has"),
    ):
        plan_file(f"{base}/{path.name}", "events", "b", hasty)
    keys["samples"][1]["files"] = [str(path), str(tmp_path / "kept.root")]
    path.with_name("kept.root").write_bytes(content)
    assert checked({**keys, "on_bad_file": "skip"}, tmp_path) == 0
    assert f"skipped: {path}:events (" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["file/run", "x" * 300])
def test_an_output_that_cannot_be_made_is_seen(keys, tmp_path, capsys, name):
    (tmp_path / "file").touch()
    assert checked(keys, tmp_path, "--output", str(tmp_path / name)) == 2
    assert f"output {tmp_path / name} cannot be written: " in capsys.readouterr().err


def test_a_split_without_events_is_seen(keys, tmp_path, capsys):
    keys |= {"max_events": 40, "split": {"train": 0.6, "validation": 0.001, "test": 0.399}}
    assert checked(keys, tmp_path) == 2
    error = capsys.readouterr().err
    assert "the validation split has no event: 0.001 of 80 events" in error
    assert "dataset.yaml:" in error


OWN = """
import torch

from mlaas4hep_dask.train.views import Categories

def number(columns):
    return 3

def narrow(columns):
    return torch.nn.Linear(3, 1)

def counted(layout):
    Categories(layout.branch("NJet"))
    return torch.nn.Linear(layout.num_columns, 1)

def mean(outputs, targets):
    return (outputs - targets).mean()

def lost(events):
    return events.nowhere
"""


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model", {"callable": "own.py:number"}, "model 'own.py:number' returned int, expected"),
        ("model", {"callable": "own.py:narrow"}, "model 'own.py:narrow' does not accept rows of"),
        ("training", {"loss": "own.py:mean"}, "loss 'own.py:mean' returned () for "),
        ("function", {"callable": "own.py:lost"}, "'own.py:lost' "),
        ("cluster", {"memory_limit": "1 MB"}, "cluster.memory_limit: expected at least 200 MB: "),
    ],
)
def test_what_fails_when_it_is_tried_is_told_with_its_line(
    key, value, expected, keys, tmp_path, capsys
):
    (tmp_path / "own.py").write_text(OWN)
    assert checked({**keys, key: value}, tmp_path) == 2
    lines = (tmp_path / "dataset.yaml").read_text().splitlines()
    (number,) = (
        n for n, line in enumerate(lines, 1) if line.startswith(f"  {next(iter(value))}: ")
    )
    assert f"error: {tmp_path}/dataset.yaml:{number}: {expected}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("own.py:counted", "was not built, since layout would tell of them"),
        ("mlaas4hep_dask.train.network:mlp", "was built for rows (tried with "),
    ],
)
def test_a_model_is_not_refused_where_no_event_is_selected(model, told, keys, tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN)
    keys |= {"select": "NJet > 1000", "model": {"callable": model}}
    assert checked(keys, tmp_path) == 0
    assert f"events of the samples is selected: model {model} {told}" in capsys.readouterr().out
