import pickle
import shutil
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st
from paths import DATA
from root_process import run_in_root
from test_embedded import WRITE

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.reader import counting, opened, plan_file, read
from mlaas4hep_dask.reader.places import BasketTable, Places

LIMITS = {"target_bytes": 1 << 40, "max_events": 15}


def partitions_of(path, names=None, tree="Events"):
    plan = plan_file(str(path), tree, "s")
    names = list(plan.branches) if names is None else names
    parts = plan.planned(names).partitions(**LIMITS, num_entries=plan.num_entries)
    return [plan.branches[name] for name in names], parts


def sent(partition):
    """A partition as it comes to a worker that has not opened its file."""
    made = pickle.loads(pickle.dumps(partition))  # noqa: S301  # its own
    opened.forget(partition.file)
    return made


def is_parsed(file):
    """Whether the tree of an open file was parsed."""
    found = [entry.opened for key, entry in opened._open.items() if key[0] == str(file)]
    assert len(found) == 1
    return "tree" in vars(found[0])


@st.composite
def tables(draw):
    found = {}
    for group in range(draw(st.integers(1, 3))):
        sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
        entries = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        num_embedded = draw(st.integers(0, len(sizes)))
        for number in range(draw(st.integers(1, 4))):
            seeks, lengths = (
                np.array(draw(st.lists(st.integers(0, 2**62), min_size=n, max_size=n)))
                for n in (len(sizes), len(sizes))
            )
            name = f"b{group}_{number} é\n"
            counter = None if number == 0 else f"b{group}_0 é\n"
            dtype = np.dtype(draw(st.sampled_from(["?", "u1", ">i2", ">u4", ">f8"])))
            made = BasketTable(seeks, lengths, entries, dtype, counter, num_embedded)
            found[name] = made
    return found


@given(tables(), st.data())
def test_a_part_has_the_baskets_that_hold_its_entries(known, data):
    last = max(int(table.entries[-1]) for table in known.values())
    start, stop = sorted(data.draw(st.integers(0, last)) for _ in range(2))
    whole = pickle.loads(pickle.dumps(Places.of(known)))  # noqa: S301  # its own
    (part,) = whole.parts([(start, stop)])
    assert whole.tables().keys() == part.tables().keys() == known.keys()
    for name, table in known.items():
        for found, numbers in (
            (whole.tables()[name], slice(0, len(table.seeks))),
            (part.tables()[name], table.overlapping(start, stop)),
        ):
            assert (found.dtype, found.counter) == (table.dtype, table.counter)
            assert found.seeks.tolist() == table.seeks[numbers].tolist()
            assert found.sizes.tolist() == table.sizes[numbers].tolist()
            if numbers.start < numbers.stop:
                ends = table.entries[numbers.start : numbers.stop + 1]
                assert found.entries.tolist() == ends.tolist()
            first = len(table.seeks) - table.num_embedded
            assert found.num_embedded == sum(n >= first for n in range(*numbers.indices(10**6)))


def test_a_planned_partition_is_read_without_a_look_at_its_tree(edge_cases):
    path = edge_cases / "nano_dy.root"
    branches, parts = partitions_of(path)
    assert len(parts) == 3
    for part in map(sent, parts):
        with counting() as counts:
            events = read(part, branches)
        assert not is_parsed(path)
        assert not counts.by_uproot
        with uproot.open({str(path): "Events"}) as tree:
            rows = {"entry_start": part.entry_start, "entry_stop": part.entry_stop}
            expected = tree.arrays([branch.name for branch in branches], **rows)
        for branch in branches:
            wanted = expected[branch.name]
            if branch.collection is not None:
                counted = np.diff(events.offsets[branch.collection])
                assert counted.tolist() == ak.num(wanted).to_list()
                wanted = ak.flatten(wanted)
            assert events.contents[branch.name].tobytes() == ak.to_numpy(wanted).tobytes()


def test_vectors_of_a_small_tree_are_read_without_a_look_at_it():
    path = DATA / "vectors.root"
    plan = plan_file(str(path), "Events", "s")
    branches = list(plan.branches.values())
    assert len(branches) == 13
    part = sent(plan.planned(list(plan.branches)).partition(0, plan.num_entries))
    with counting() as counts:
        events = read(part, branches)
    assert not is_parsed(path)
    assert not counts.by_uproot
    with uproot.open({str(path): "Events"}) as tree:
        expected = tree.arrays()
    for branch in branches:
        values = expected[branch.name]
        if branch.collection is not None:
            assert np.diff(events.offsets[branch.collection]).tolist() == ak.num(values).to_list()
            values = ak.flatten(values)
        assert events.contents[branch.name].tobytes() == ak.to_numpy(values).tobytes()


def test_some_of_the_planned_branches_may_be_read(edge_cases):
    path = edge_cases / "nano_dy.root"
    branches, parts = partitions_of(path, ["Jet_pt", "MET_pt", "nJet", "Muon_charge"])
    for wanted in (branches[:1], branches[1:3], branches[3:]):
        events = read(sent(parts[1]), wanted)
        assert not is_parsed(path)
        whole = read(replace(parts[1], places=None), branches)
        for branch in wanted:
            assert events.contents[branch.name].tolist() == whole.contents[branch.name].tolist()
        assert events.offsets.keys() == {"Jet", "Muon"} & {b.collection for b in wanted}


def test_a_branch_that_was_not_planned_is_read_too(edge_cases):
    path = edge_cases / "nano_dy.root"
    _, (part, *_) = partitions_of(path, ["Jet_pt"])
    more = plan_file(str(path), "Events", "s").branches["Jet_eta"]
    events = read(sent(part), [more])
    assert is_parsed(path)
    with uproot.open({str(path): "Events"}) as tree:
        expected = ak.flatten(tree["Jet_eta"].array(entry_stop=len(part)))
    assert events.contents["Jet_eta"].tolist() == expected.to_list()


def test_partitions_grow_by_a_few_bytes_for_each_branch(edge_cases, cms_plans):
    plan = cms_plans[0]
    planned = plan.planned(list(plan.branches))
    assert len(plan.branches) == 51
    assert len(pickle.dumps(planned.partition(0, 100))) < 1_300
    branches, (wide, *_) = partitions_of(edge_cases / "nano_dy.root")
    assert len(branches) == 1499
    assert len(pickle.dumps(wide)) < 12 * len(branches)
    _, parts = partitions_of(edge_cases / "nano_dy.root", ["Jet_pt", "MET_pt"])
    assert len(pickle.dumps(parts[0])) < 1_000
    # The partitions of a task share what they have in common.
    branches, parts = partitions_of(edge_cases / "nano_dy.root")
    assert len(pickle.dumps(parts)) < 12 * len(branches) + 2 * 6 * len(branches)


def test_many_partitions_of_a_narrow_file_carry_no_places(cms_plans):
    plan = cms_plans[0]
    planned = plan.planned(list(plan.branches))
    limits = {"target_bytes": 1 << 40, "num_entries": plan.num_entries}
    few = planned.partitions(max_events=plan.num_entries, **limits)
    many = planned.partitions(max_events=plan.num_entries // 10, **limits)
    assert all(part.places is not None for part in few)
    assert all(part.places is None for part in many)
    assert max(len(pickle.dumps(part)) for part in many) < 500


@pytest.mark.parametrize("change", ["uuid", "end", "time"])
def test_a_file_that_has_changed_since_it_was_planned_is_noticed(edge_cases, tmp_path, change):
    path = tmp_path / "a.root"
    shutil.copy(edge_cases / "nano_dy.root", path)
    branches, (part, *_) = partitions_of(path, ["Jet_pt"])
    assert part.places is not None
    if change == "uuid":
        part = replace(part, uuid="00000000-0000-0000-0000-000000000001", stamp="")
    elif change == "end":
        with uproot.update(path) as file:
            file["more"] = "text"
    else:
        path.touch()
    with pytest.raises(DataError, match=r"a\.root has changed since it was planned"):
        read(sent(part), branches)


def test_places_that_are_not_those_of_the_branches_are_not_used(edge_cases):
    path = edge_cases / "nano_dy.root"
    branches, (part, *_) = partitions_of(path, ["MET_pt", "Jet_pt"])
    expected = read(replace(part, places=None), branches)
    known = part.places.tables()
    flat = known["MET_pt"]
    for changed in (
        {name: table for name, table in known.items() if name != "MET_pt"},
        {**known, "MET_pt": replace(flat, dtype=np.dtype(">i8"))},
        {**known, "MET_pt": known["Jet_pt"]},
        {**known, "MET_pt": replace(flat, entries=flat.entries + 1)},
    ):
        found = read(sent(replace(part, places=Places.of(changed))), branches)
        assert is_parsed(path)
        assert found.contents["MET_pt"].tolist() == expected.contents["MET_pt"].tolist()


@pytest.mark.slow
def test_embedded_baskets_are_found_in_the_tree_that_was_not_parsed(tmp_path):
    run_in_root(WRITE, str(tmp_path), "500")
    for name in ("small", "partly", "lzma", "plain"):
        path = tmp_path / f"{name}.root"
        plan = plan_file(str(path), "Events", "s")
        branches = list(plan.branches.values())
        planned = plan.planned(list(plan.branches))
        for start, stop in ((0, 500), (155, 333), (450, 500)):
            part = planned.partition(start, stop)
            found = read(sent(part), branches)
            assert not is_parsed(path)
            expected = read(replace(part, places=None), branches)
            for branch in branches:
                values = expected.contents[branch.name]
                assert found.contents[branch.name].tobytes() == values.tobytes()


@pytest.fixture
def wide(edge_cases, tmp_path):
    """Keys of a dataset.yaml of two wide files in each sample, which are not copies."""
    for name in ("s1", "s2", "b1", "b2"):
        path = tmp_path / f"{name}.root"
        shutil.copy(edge_cases / "nano_dy.root", path)
        content = bytearray(path.read_bytes())
        with uproot.open(path) as file:
            own = file.file.uuid.bytes
        changed = bytes(own[:-2]) + name.encode()
        path.write_bytes(content.replace(own, changed))
    return {
        "name": "wide",
        "samples": [
            {"name": "signal", "label": 1, "files": str(tmp_path / "s*.root")},
            {"name": "background", "label": 0, "files": str(tmp_path / "b*.root")},
        ],
        "branches": {"include": ["Jet_*", "MET_*", "HLT_*"]},
        "specs": {"cache": None},
    }


@pytest.mark.slow
def test_preflight_and_plan_parse_a_file_once(wide, tmp_path):
    config = Config.from_mapping(wide)
    checked = preflight(description_of(config))
    opened.forget(str(tmp_path / "s1.root"))
    opened.forget(str(tmp_path / "b1.root"))
    plan = check_files(checked, config.partition, config.max_events)
    assert [is_parsed(tmp_path / f"{name}.root") for name in ("s1", "b1")] == [False, False]
    assert [is_parsed(tmp_path / f"{name}.root") for name in ("s2", "b2")] == [True, True]
    assert all(part.places is not None for part in plan.partitions)
    (tmp_path / "s1.root").touch()  # changed: it is planned again
    again = check_files(checked, config.partition, config.max_events)
    assert is_parsed(tmp_path / "s1.root")
    assert again.partitions[0].stamp != plan.partitions[0].stamp


def test_workers_measure_and_encode_planned_partitions_without_parsing(wide, client):
    dataset = Dataset(Config.from_mapping(wide), client)
    plan = dataset.plan()
    client.run(forget_all)
    assert dataset.specs().num_events == 160
    x = dataset.to_dask()[0].compute()
    assert len(x) == 160
    parsed = client.run(num_open_and_parsed)
    assert sum(num_open for num_open, _ in parsed.values()) >= 4
    assert sum(num_parsed for _, num_parsed in parsed.values()) == 0
    assert len(plan.partitions) == 4


def forget_all():
    opened._open.clear()


def num_open_and_parsed():
    trees = [entry.opened for entry in opened._open.values()]
    return len(trees), sum("tree" in vars(tree) for tree in trees)


def test_a_plan_holds_a_bounded_number_of_places(wide):
    config = Config.from_mapping(wide)
    checked = preflight(description_of(config))
    plan = check_files(checked, config.partition, config.max_events, max_places=4 * 1_000)
    assert all(part.places is None for part in plan.partitions)
    assert plan.num_events == 160
