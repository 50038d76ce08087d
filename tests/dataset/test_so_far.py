import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.cache import SUFFIX
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.measuring import measure_pieces
from mlaas4hep_dask.dataset.plan import Skipped
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.dataset.so_far import SoFar, missing
from mlaas4hep_dask.dataset.specs_pass import _is_seen, file_pieces
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.waiting import ClusterHandle

NUM_EVENTS = 16_052


@pytest.fixture
def keys(cms_files, tmp_path):
    signal, *background = (str(shutil.copy2(file, tmp_path)) for file in cms_files)
    return {
        "name": "tutorial",
        "tree": "events",
        "samples": [
            {"name": "single_top", "label": 1, "files": signal},
            {"name": "diboson", "label": 0, "files": background},
        ],
        "branches": {"include": ["MET_*", "NJet", "Jet_*"]},
        "partition": {"max_events": 2_000},
        "specs": {"cache": str(tmp_path / "cache")},
    }


@pytest.fixture
def plan(keys):
    config = Config.from_mapping(keys)
    return check_files(preflight(description_of(config)), config.partition, config.max_events)


class Elsewhere(ClusterHandle):
    """A cluster whose readers are on other machines and see other folders there."""

    def alive(self, group=None):
        return {each: {**info, "host": "192.0.2.1"} for each, info in super().alive(group).items()}

    def on_workers(self, function, path, *, workers, **options):
        return super().on_workers(function, f"/proc/{path}", workers=workers, **options)


def entries(keys):
    return sorted(Path(keys["specs"]["cache"]).rglob(f"*{SUFFIX}"))


def test_partitions_that_were_measured_are_left_out(plan, tmp_path):
    pieces = file_pieces(plan, None, {})
    measured = measure_pieces([*pieces[:1], *pieces[1].divided(1)[1:2]], plan.context)
    so_far = SoFar(tmp_path / "ab" / f"cd{SUFFIX}")
    so_far.add(measured)
    so_far.write()
    found = SoFar(tmp_path / "ab" / f"cd{SUFFIX}").load(plan.partitions)
    assert found.split_counts == measured.split_counts
    assert found.specs.to_json() == measured.specs.to_json()
    numbers = {*range(len(pieces[0])), pieces[1].first + 1}
    assert found.split_counts.keys() == numbers
    assert found.num_cached == sum(len(plan.partitions[number]) for number in numbers)
    left = missing(pieces, found)
    places = [number for piece in left for number in range(piece.first, piece.first + len(piece))]
    assert sorted([*places, *numbers]) == list(range(len(plan.partitions)))
    assert [part for piece in left for part in piece.partitions] == [
        part for number, part in enumerate(plan.partitions) if number not in numbers
    ]


def test_what_could_not_be_read_is_not_kept(plan, tmp_path):
    piece = file_pieces(plan, None, {})[0]
    measured = measure_pieces([piece], plan.context)
    so_far = SoFar(tmp_path / "ab" / f"cd{SUFFIX}", every=0.0)
    so_far.add(replace(measured, skipped=(Skipped.of(piece.partitions[0], "gone"),)))
    so_far.write()
    assert not any(tmp_path.rglob(f"*{SUFFIX}"))
    so_far.add(measured)  # time is up
    assert any(tmp_path.rglob(f"*{SUFFIX}"))


def test_a_folder_that_cannot_be_written_is_told(plan, tmp_path, caplog):
    (tmp_path / "ab").write_text("")
    so_far = SoFar(tmp_path / "ab" / f"cd{SUFFIX}", every=0.0)
    so_far.add(measure_pieces(file_pieces(plan, None, {})[:1], plan.context))
    assert "what was measured so far is not kept in " in caplog.text


def dataset_of(keys, cluster, **more):
    return Dataset(Config.from_mapping({**keys, **more}), cluster)


class Hosts:
    """Readers of some hosts, of which some say whether they see a folder."""

    def __init__(self, hosts, seen):
        self.hosts, self.seen = hosts, seen

    def alive(self, group):
        return {f"tcp://{host}:1 of {group}": {"host": host} for host in self.hosts}

    def on_workers(self, function, path, *, workers, what):  # noqa: ARG002
        return dict(zip(workers, self.seen, strict=False))


@pytest.mark.parametrize(
    ("hosts", "seen", "expected", "said"),
    [
        (["127.0.0.1", "127.0.0.1"], [], True, ""),
        (["192.0.2.1", "192.0.2.2"], [True, True], True, ""),
        (["192.0.2.1", "192.0.2.2"], [True, False], False, "1 of 2 readers cannot write into"),
        (["192.0.2.1", "192.0.2.2"], [], False, "no reader has said that it can write into"),
        ([], [], False, "no reader has said that it can write into"),
    ],
)
def test_a_cache_is_shared_only_where_a_reader_has_said_so(
    hosts, seen, expected, said, tmp_path, caplog
):
    with caplog.at_level("INFO"):
        assert _is_seen(Hosts(hosts, seen), tmp_path) is expected
    assert said in caplog.text


def test_workers_that_do_not_see_the_cache_leave_it_to_the_client(keys, client):
    plain = dataset_of(keys, client, specs={"cache": None}).specs().to_json()
    first = dataset_of(keys, Elsewhere(client))
    assert first.specs().to_json() == plain
    assert first.num_cached() == 0
    (entry,) = entries(keys)
    again = dataset_of(keys, Elsewhere(client))
    assert again.specs().to_json() == plain
    assert again.num_cached() == NUM_EVENTS
    assert again.split_counts() == first.split_counts()
    pieces = file_pieces(again.plan(), None, {})[1:3]
    entry.unlink()  # in its place that of a process that was killed after a part
    so_far = SoFar(entry)
    so_far.add(measure_pieces(pieces, again.plan().context))
    so_far.write()
    third = dataset_of(keys, Elsewhere(client))
    assert third.specs().to_json() == plain
    assert third.num_cached() == sum(len(part) for piece in pieces for part in piece.partitions)
    assert entries(keys) == [entry]
    other = dataset_of(keys, Elsewhere(client), seed=5)
    other.specs()
    assert other.num_cached() == 0  # other events are for training
