import os
import signal
from functools import partial

import pytest

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config import Cluster, Config
from mlaas4hep_dask.console import Reporter
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.errors import TrainingError
from mlaas4hep_dask.journal import Caution, Death, End, Epoch, StageEnd, read
from mlaas4hep_dask.run import fit


class AfterEpoch(Reporter):
    """Calls a function after the first epoch."""

    def __init__(self, act):
        self._act = act

    def hear(self, record):
        super().hear(record)
        if isinstance(record, Epoch) and record.epoch == 1:
            self._act()


def config_of(cms_files, **training):
    single_top, *diboson = map(str, cms_files)
    return Config.from_mapping(
        {
            "tree": "events",
            "samples": [
                {"name": "single_top", "label": 1, "files": single_top},
                {"name": "diboson", "label": 0, "files": diboson},
            ],
            "branches": {"exclude": ["MC*", "EventWeight"]},
            "training": {"epochs": 2, "ranks": 2, **training},
        }
    )


def kill_a_worker(client, killed):
    worker = sorted(client.scheduler_info()["workers"])[-1]
    (pid,) = client.run(os.getpid, workers=[worker]).values()
    os.kill(pid, signal.SIGKILL)
    killed.append(worker)


@pytest.mark.ddp
@pytest.mark.timeout(280)
def test_the_journal_tells_of_a_worker_that_died_and_of_what_followed(cms_files, tmp_path):
    with connect(Cluster(workers=2), ranks=2) as own:
        killed = []
        fit(
            Dataset(config_of(cms_files), own),
            output=tmp_path,
            reporter=AfterEpoch(partial(kill_a_worker, own, killed)),
        )
    records = read(tmp_path)
    assert Death(*killed, is_expected=False) in records.of(Death)
    (again,) = [each for each in records.of(Caution) if "starting epoch 2 again" in each.text]
    assert again.logger == "mlaas4hep_dask.run.training"
    assert [each.epoch for each in records.of(Epoch)] == [1, 2]
    assert records.status == "complete"


@pytest.mark.ddp
@pytest.mark.timeout(280)
def test_a_run_that_fails_says_why_in_its_journal(cms_files, tmp_path):
    with (
        connect(Cluster(workers=2), ranks=2) as own,
        pytest.raises(TrainingError, match="workers died 1 time") as error,
    ):
        fit(
            Dataset(config_of(cms_files, max_restarts=0), own),
            output=tmp_path,
            reporter=AfterEpoch(partial(kill_a_worker, own, [])),
        )
    records = read(tmp_path)
    assert list(records)[-1] == End("failed", error.value.message.splitlines()[0], exit_status=2)
    (broken,) = [each for each in records.of(StageEnd) if not each.is_complete]
    assert broken.stage == "train"
    assert broken.events > 0
    assert records.status == "failed"
