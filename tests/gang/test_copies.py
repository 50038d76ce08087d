import errno
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from strategies import part_of

from mlaas4hep_dask.encode import Block, Encoding, encode
from mlaas4hep_dask.encode.split import event_ids
from mlaas4hep_dask.gang import diskcache
from mlaas4hep_dask.gang.copies import (
    folder_of_run,
    leave_word,
    make_folder,
    place_of_copies,
)
from mlaas4hep_dask.places import BLOCKS
from mlaas4hep_dask.run.directory import RunDirectory
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.waiting import workers_of

NAME = "0123"


class Client:
    """Whose workers something is known of."""


class Cluster:
    """A cluster whose readers are this process; the blind see another folder in place of one."""

    def __init__(self, readers=("a", "b"), *, blind=()):
        self.client = Client()
        self.readers = readers
        self.blind = blind
        facts = {"name": "readers-0", "host": "node"}
        workers_of(self.client).facts |= dict.fromkeys(readers, facts)

    def alive(self, group):
        assert group == "readers"
        return dict.fromkeys(self.readers)

    def on_workers(self, function, path, *, workers, what):
        assert what
        paths = {each: f"/proc/{path}" if each in self.blind else path for each in workers}
        return {each: function(paths[each]) for each in workers}


@pytest.fixture
def folder(tmp_path):
    return diskcache.folder_of(str(tmp_path), NAME)


def make(cluster, place, num_bytes=1000, share=0.5):
    return make_folder(cluster, place, NAME, num_bytes=num_bytes, share=share)


def test_copies_belong_into_the_run_directory_of_jobs_that_see_it():
    cluster, results = Cluster(), Path("run")
    assert place_of_copies(cluster, results) is None  # workers of this machine end with the run
    workers = workers_of(cluster.client)
    workers.are_jobs_with_files = True
    assert place_of_copies(cluster, results) == results
    assert place_of_copies(cluster, None) is None
    workers.scratch = Path("/scratch")
    place = place_of_copies(cluster, results)
    assert place.parent == Path("/scratch")
    assert place == place_of_copies(cluster, results)  # the same command finds them again
    assert place != place_of_copies(cluster, Path("member-2"))  # with the same data and encoding
    workers.are_jobs_with_files = False
    assert place_of_copies(cluster, results) is None


def test_what_a_run_has_elsewhere_goes_with_it_alone(tmp_path):
    cluster, runs = Cluster(), [tmp_path / "one", tmp_path / "two"]
    places = [folder_of_run(tmp_path / "scratch", run) for run in runs]
    for run, place in zip(runs, places, strict=True):
        with RunDirectory(run) as directory:
            directory.begin({"seed": 1})
        assert make(cluster, place)
        leave_word(run, place)
        leave_word(run, place)  # by the process that takes it up
    diskcache.remove_shared(str(places[0]), NAME)  # the first has ended well
    assert [*(tmp_path / "scratch").iterdir()] == [places[1]]
    with RunDirectory(runs[1]) as directory:
        directory.begin({"seed": 1})
        directory.complete()
    assert not any((tmp_path / "scratch").iterdir())
    assert not [*runs[1].glob(f"{BLOCKS}-*")]


def test_a_folder_that_all_readers_see_is_this_users_alone(tmp_path, folder):
    assert make(Cluster(), tmp_path)
    assert not any(folder.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_a_reader_does_not_see_is_not_kept(tmp_path, folder, caplog):
    with caplog.at_level(logging.WARNING, "mlaas4hep_dask"):
        assert not make(Cluster(blind=["b"]), tmp_path)
    assert not folder.exists()
    assert "1 of 2 readers cannot write there, such as worker b" in caplog.text
    assert "read and encoded again" in caplog.text


def test_without_an_answer_there_is_no_folder(tmp_path, folder, caplog):
    assert not make(Cluster(readers=()), tmp_path)
    assert not folder.exists()
    assert "no reader has answered" in caplog.text


def test_blocks_of_an_earlier_process_are_not_removed(tmp_path, folder):
    assert make(Cluster(), tmp_path)
    block = folder / f"{NAME}-0"
    block.touch()
    assert not make(Cluster(blind=["a"]), tmp_path)
    assert block.exists()


def test_blocks_that_would_fill_the_file_system_are_not_copied(tmp_path, folder, caplog):
    too_many = 10**18
    assert not make(Cluster(), tmp_path, too_many)
    assert not folder.exists()
    assert "are more than 50% of what is free there" in caplog.text
    folder.mkdir(mode=0o700)
    block = folder / f"{NAME}-0"
    block.touch()
    os.truncate(block, 10**12)  # takes no room in truth
    assert make(Cluster(), tmp_path, 10**12 + 1000)  # what is there needs none


def test_a_place_that_cannot_be_written_is_told(caplog):
    assert not make(Cluster(), Path("/proc/nothing"))
    assert "blocks are not copied into /proc/nothing: " in caplog.text


def test_a_folder_that_others_can_write_is_not_used(tmp_path, folder, caplog):
    folder.mkdir()
    folder.chmod(0o777)
    assert not make(Cluster(), tmp_path)
    assert f"{folder} is not this user's alone" in caplog.text


@pytest.fixture
def block(cms_events):
    """Ten real events."""
    events = part_of(cms_events, 0, 10)
    encoded = encode(events, Encoding.from_specs(measure(events, sample="s"), width=4))
    numbers = np.arange(10, dtype=np.float32)
    return Block(
        encoded, numbers, numbers, event_ids("a file", 0, 10), np.zeros(10, dtype=np.uint8)
    )


def test_a_worker_that_does_not_see_the_folder_makes_no_other(folder, block, caplog):
    path = folder / f"{NAME}-0"
    assert diskcache.kept(block, path, by_run=True) is block
    assert not folder.exists()
    assert "blocks are not kept on disk: " in caplog.text
    diskcache.kept(block, path)  # in a folder that the user has named
    assert path.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_on_a_full_disk_the_results_of_a_run_get_the_room_of_its_blocks(
    folder, block, caplog, number
):
    folder.mkdir(mode=0o700)
    first, second = (folder / f"{NAME}-{place}" for place in range(2))
    diskcache.kept(block, first, by_run=True)
    error = OSError(number, os.strerror(number))
    with caplog.at_level(logging.INFO, "mlaas4hep_dask"):
        diskcache.give_up(second, error, by_run=False)  # in a folder that the user has named
        assert first.exists()
        assert "removed" not in caplog.text
        diskcache.give_up(second, OSError(errno.EIO, "broken"), by_run=True)
        assert first.exists()
        diskcache.give_up(second, error, by_run=True)
    assert not folder.exists()
    assert "all were removed, so that there is room for results" in caplog.text
