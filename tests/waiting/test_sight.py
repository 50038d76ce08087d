import pytest

from mlaas4hep_dask.waiting import ClusterHandle
from mlaas4hep_dask.waiting.sight import readers_that_see


class Elsewhere:
    """A cluster of one reader, in this process, that finds the paths of a machine under another."""

    def __init__(self, root=""):
        self.root = root

    def alive(self, group):
        return {f"tcp://a:1 of {group}": {}}

    def on_workers(self, function, path, *, workers, what):
        assert path.rpartition("/")[0] in what
        return {worker: function(f"{self.root}{path}") for worker in workers}


def test_a_folder_of_the_same_name_on_another_machine_is_another(tmp_path):
    folder, other = tmp_path / "cache", tmp_path / "node"
    folder.mkdir()
    assert readers_that_see(Elsewhere(), folder) == {"tcp://a:1 of readers": True}
    other.joinpath(*folder.parts[1:]).mkdir(parents=True)
    assert readers_that_see(Elsewhere(str(other)), folder) == {"tcp://a:1 of readers": False}
    assert not any(folder.iterdir())
    with pytest.raises(OSError, match="No such file"):
        readers_that_see(Elsewhere(), tmp_path / "none")


def test_workers_of_this_machine_see_its_folders(client, tmp_path):
    seen = readers_that_see(ClusterHandle(client), tmp_path)
    assert list(seen.values()) == [True, True]
    assert not any(tmp_path.iterdir())
