import pytest

from mlaas4hep_dask.run.directory import RunDirectory
from mlaas4hep_dask.run.outcome import UnderWay
from mlaas4hep_dask.run.stages import _taken_up
from mlaas4hep_dask.run.underway import read_under_way, remove_under_way, write_under_way

WAY = UnderWay(3, 12, 2, 61.5, b"network", (b"first", b"second"))


@pytest.fixture
def folder(tmp_path):
    with RunDirectory(tmp_path / "run") as folder:
        folder.begin({})
        yield folder


def checkpoints(folder):
    return sorted(path.name for path in folder.path.glob("checkpoints/*"))


def test_a_checkpoint_within_an_epoch_is_read_as_it_was_written(folder):
    assert read_under_way(folder, 3) == (None, [])
    write_under_way(folder, WAY, [])
    assert read_under_way(folder, 3) == (WAY, [])
    assert read_under_way(folder, 4) == (None, [])  # that epoch was completed meanwhile
    assert checkpoints(folder) == []


def test_one_checkpoint_within_an_epoch_is_kept_and_none_when_it_is_over(folder):
    for window in (12, 13):
        write_under_way(folder, UnderWay(3, window, 2, 1.0, b"a", (b"b", b"c")), [])
    stem = "within-epoch-3-13"
    assert checkpoints(folder) == [
        "under-way.json",
        f"{stem}-rank-0.pt",
        f"{stem}-rank-1.pt",
        f"{stem}.pt",
    ]
    remove_under_way(folder)
    assert checkpoints(folder) == []


def test_a_checkpoint_of_which_a_file_was_deleted_is_none(folder):
    write_under_way(folder, WAY, [])
    (folder.path / "checkpoints/within-epoch-3-12-rank-1.pt").unlink()
    assert read_under_way(folder, 3) == (None, [])


def test_a_run_without_a_complete_epoch_is_taken_up_within_its_first(tmp_path):
    for is_there in (False, True):
        with RunDirectory(tmp_path / "run") as folder:
            folder.begin({"key": 1})
            assert folder.resumed == is_there
            write_under_way(folder, WAY, [])


def test_a_run_that_is_taken_up_says_where_and_with_how_many_ranks(tmp_path):
    text = f"taking up the run in {tmp_path} within epoch 3, after window 12"
    assert _taken_up(tmp_path, [], WAY, 2) == text
    assert _taken_up(tmp_path, [], WAY, 4) == f"{text}; training.ranks is 4 now, was 2"
