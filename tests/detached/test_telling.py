import logging
import os
import socket

import pytest

from mlaas4hep_dask import journal
from mlaas4hep_dask.detached.begin import require_none
from mlaas4hep_dask.detached.head import HEAD, Head, jobs_folder, records_folder
from mlaas4hep_dask.detached.telling import run_of, telling
from mlaas4hep_dask.errors import ConfigError
from mlaas4hep_dask.places import VARIABLE


def test_what_a_process_tells_and_warns_of_is_kept_with_how_it_ends(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "head-1")
    file = tmp_path / "journal.jsonl"
    told = journal.Journal()
    told.add(run_of("scores.root", "mlaas4hep predict", verb="predict"))

    def work():
        with telling(told, file):
            logging.getLogger("mlaas4hep_dask.predict").warning("look")
            raise ConfigError("no such tree", key="tree")

    with pytest.raises(ConfigError):
        work()
    logging.getLogger("mlaas4hep_dask.predict").warning("nobody hears it")
    run, caution, end = journal.read(file)
    assert (run.verb, run.head, run.process) == ("predict", "head-1", os.getpid())
    assert caution == journal.Caution("look", "mlaas4hep_dask.predict")
    assert (end.status, end.error, end.exit_status) == ("failed", "no such tree", 2)


def test_nothing_is_begun_twice_for_an_output_as_long_as_the_first_lives(tmp_path):
    output = tmp_path / "scores.root"
    require_none(str(output))
    number = os.getpid()
    own = Head("h", "local", str(number), socket.gethostname(), "", 1.0, journal.birth_of(number))
    folder = jobs_folder(output) / "h"
    folder.mkdir(parents=True)
    own.write(folder / HEAD)
    with pytest.raises(ConfigError, match=f"was begun already: process {number} on"):
        require_none(str(output))
    Head("h", "local", str(number), socket.gethostname(), "", 1.0, "of another").write(
        folder / HEAD
    )
    require_none(str(output))


def test_the_records_of_a_run_are_in_its_folder_and_those_of_scores_beside_their_file(tmp_path):
    for name in ("run", "run.jobs", "scores.root.jobs"):
        (tmp_path / name).mkdir()
    assert records_folder(tmp_path / "run") == tmp_path / "run"
    assert records_folder(tmp_path / "scores.root") == tmp_path / "scores.root.jobs"
    assert records_folder(tmp_path / "absent") == tmp_path / "absent"
