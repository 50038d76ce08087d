import json
import logging
import os
import socket

import pytest
import yaml

from mlaas4hep_dask.config import Config, load
from mlaas4hep_dask.errors import ConfigError, DataError
from mlaas4hep_dask.journal import Caution, End, Message, Run, birth_of, read
from mlaas4hep_dask.journal.read import JOURNAL, STARTING
from mlaas4hep_dask.run.work import work_on

CONFIG = Config.from_mapping(
    {
        "name": "t",
        "tree": "events",
        "samples": [
            {"name": "a", "label": 1, "files": "a.root"},
            {"name": "b", "label": 0, "files": "b.root"},
        ],
    }
)
FACTS = {"model": "a" * 64}


def broken_off(folder, error, facts=None):
    with work_on(CONFIG, output=folder) as work:
        if facts is not None:
            work.begin(facts)
        raise error


def test_what_happens_before_the_plan_is_made_is_on_record(tmp_path):
    folder = tmp_path / "run"
    with work_on(CONFIG, output=folder, command="mlaas4hep run d.yaml") as work:
        logging.getLogger("mlaas4hep_dask.waiting").warning("waiting for %d workers", 2)
        begun = list(read(folder / STARTING))
        assert begun == [
            Run(
                "t",
                begun[0].package,
                os.getpid(),
                socket.gethostname(),
                "mlaas4hep run d.yaml",
                birth_of(os.getpid()),
            ),
            Caution("waiting for 2 workers", "mlaas4hep_dask.waiting"),
        ]
        work.begin(FACTS)
        assert not (folder / STARTING).exists()
        assert list(read(folder)) == begun
        work.complete()
    assert list(read(folder)) == [*begun, End("complete", exit_status=0)]


def test_a_start_that_fails_says_why_beside_the_earlier_run_and_leaves_that_alone(tmp_path):
    folder = tmp_path / "run"
    with work_on(CONFIG, output=folder) as work:
        work.begin(FACTS)
        work.complete()
    earlier = (folder / JOURNAL).read_bytes()
    with pytest.raises(DataError):
        broken_off(folder, DataError("no events"))
    assert (folder / JOURNAL).read_bytes() == earlier
    assert list(read(folder / STARTING))[1:] == [End("failed", "no events", exit_status=2)]
    with work_on(CONFIG, output=folder) as work:
        assert len(read(folder / STARTING)) == 1  # of this process alone
        work.begin(FACTS)
        assert (tmp_path / "run.1" / JOURNAL).read_bytes() == earlier
        assert sorted(path.name for path in tmp_path.glob("*/starting*")) == []
        (said,) = read(folder).of(Message)
        assert said.text == f"an earlier run in {folder} was moved to {tmp_path / 'run.1'}"


def test_a_folder_with_nothing_but_a_failed_start_is_used_again(tmp_path):
    for _ in range(2):
        with pytest.raises(DataError):
            broken_off(tmp_path / "run", DataError("no events"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    with pytest.raises(DataError):
        broken_off(tmp_path / "run", DataError("no events"), FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_interrupted_run_goes_on_in_its_journal_and_one_that_changed_does_not(tmp_path):
    folder = tmp_path / "run"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            broken_off(folder, KeyboardInterrupt(), FACTS)
    ends = read(folder).of(End)
    assert ends == [End("interrupted", "KeyboardInterrupt", exit_status=130)] * 2
    with work_on(CONFIG, output=folder) as work:
        work.begin({"model": "b" * 64})
    assert read(tmp_path / "run.1").of(End) == ends
    assert len(read(folder).of(Run)) == 1


def test_a_second_run_of_a_folder_is_refused_before_it_does_anything(tmp_path):
    with work_on(CONFIG, output=tmp_path / "run"):
        begun = (tmp_path / "run" / STARTING).read_bytes()
        with (
            pytest.raises(ConfigError, match="another run is writing"),
            work_on(CONFIG, output=tmp_path / "run"),
        ):
            pass
        assert (tmp_path / "run" / STARTING).read_bytes() == begun


@pytest.mark.parametrize("part", ["", "bundle", "checkpoints/epoch-1.pt"])
@pytest.mark.parametrize(
    ("key", "section"),
    [("training.warm_start", {"training": {"warm_start": ""}}), ("specs.path", {"specs": ""})],
)
def test_a_run_cannot_begin_with_what_lies_in_its_own_folder(part, key, section, tmp_path):
    folder = tmp_path / "runs" / "t"
    keys = {"name": "t", "samples": [{"name": "a", "label": 1, "files": "a.root"}]}
    keys["samples"].append({"name": "b", "label": 0, "files": "b.root"})
    keys |= json.loads(json.dumps(section).replace('""', json.dumps(f"../runs/t/{part}")))
    (tmp_path / "analysis").mkdir()
    file = tmp_path / "analysis" / "dataset.yaml"
    file.write_text(yaml.safe_dump(keys, sort_keys=False))
    config = load(file)
    with (
        pytest.raises(ConfigError, match=rf"yaml:\d+: {key} is in the output of this run, .*/t, "),
        work_on(config, output=folder),
    ):
        pass
    assert not folder.exists()
    with work_on(config, output=tmp_path / "runs" / "t2"):
        pass
