import pickle
import shutil
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.events.events import concatenate
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.reader import (
    Partition,
    cut,
    plan_file,
    read,
    require_same_branches,
)
from mlaas4hep_dask.reader.baskets import basket_table, read_baskets
from mlaas4hep_dask.reader.branches import classify
from mlaas4hep_dask.reader.fetch import Fetched, Merging
from mlaas4hep_dask.reader.opened import open_data
from mlaas4hep_dask.reader.uncompress import Uncompress, UnsupportedBasketError

CODECS = {
    "zlib": uproot.ZLIB(1),
    "lz4": uproot.LZ4(1),
    "zstd": uproot.ZSTD(1),
    "lzma": uproot.LZMA(1),
    "none": None,
}
INTEGERS = [f"{kind}{size}" for kind in ("int", "uint") for size in (8, 16, 32, 64)]
NUMBERS = [*INTEGERS, "float32", "float64"]
DTYPES = ["bool", *NUMBERS]


def numbers(rng, dtype, size):
    """Values over the whole range of a type, many of them equal so that they compress."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(size) < 0.5
    if dtype.kind == "f":
        return rng.choice(np.array([np.nan, np.inf, -0.0, 1.5, -3e30, 7], dtype), size)
    limits = np.iinfo(dtype)
    return rng.choice(np.array([limits.min, limits.max, 1, 5, 77], dtype), size)


def write(path, *, codec="zlib", entries=(30, 30, 7), counts=(0, 5), seed=1, tree="Events"):
    """A TTree with a flat and a jagged branch of every type and one basket per ``entries``.

    uproot makes one counter, ``nJet``, for all branches of ``Jet``.
    """
    rng = np.random.default_rng(seed)
    types = {f"flat_{dtype}": dtype for dtype in DTYPES}
    record = {dtype: np.dtype(dtype) for dtype in NUMBERS}
    types["Jet"] = ak.types.ListType(
        ak.types.RecordType(
            [ak.types.NumpyType(dtype.name) for dtype in record.values()], list(record)
        )
    )
    with uproot.recreate(path, compression=CODECS[codec]) as file:
        file.mktree(tree, types)
        for num_entries in entries:
            num_jets = rng.integers(*counts, num_entries, endpoint=True)
            jets = ak.zip({name: numbers(rng, name, num_jets.sum()) for name in NUMBERS})
            columns = {f"flat_{dtype}": numbers(rng, dtype, num_entries) for dtype in DTYPES}
            file[tree].extend({**columns, "Jet": ak.unflatten(jets, num_jets)})
    return path


def all_of(plan, start=0, stop=None):
    stop = plan.num_entries if stop is None else stop
    return Partition(plan.file, plan.tree, plan.uuid, start, stop, plan.sample)


def assert_equals_uproot(plan, start, stop, branches=None):
    """What `read` gives equals the arrays of uproot, in values, types and multiplicities."""
    branches = list(plan.branches.values()) if branches is None else branches
    events = read(all_of(plan, start, stop), branches)
    assert len(events) == stop - start
    with uproot.open({plan.file: plan.tree}) as tree:
        for branch in branches:
            expected = tree[branch.name].array(entry_start=start, entry_stop=stop)
            found = events.contents[branch.name]
            assert found.dtype.name == branch.dtype
            assert found.dtype.isnative
            if branch.kind == "jagged":
                offsets = events.offsets[branch.collection]
                assert offsets[0] == 0
                assert np.diff(offsets).tolist() == ak.num(expected).to_list()
                expected = ak.flatten(expected)
            expected = ak.to_numpy(expected)
            assert found.dtype == expected.dtype
            assert found.tobytes() == expected.tobytes(), branch.name
    return events


def tables_of(tree):
    """The basket table of every branch, by its name."""
    known = {}
    return {
        name: basket_table(source.holder, source.counter, known)
        for name, source in classify(tree).sources.items()
    }


@pytest.fixture
def file(tmp_path):
    return str(write(tmp_path / "a.root"))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("entries", "counts"),
    [
        ((30, 30, 7), (0, 5)),
        ((1,) * 25, (0, 2)),
        ((200,), (0, 9)),
        ((10, 10), (0, 0)),
        ((5, 5), (3, 3)),
    ],
    ids=["clusters", "a basket per entry", "one basket", "no object anywhere", "regular"],
)
def test_every_type_is_read_as_uproot_reads_it(codec, entries, counts, tmp_path):
    file = write(tmp_path / "a.root", codec=codec, entries=entries, counts=counts)
    plan = plan_file(str(file), "Events", "s")
    assert {branch.dtype for branch in plan.branches.values()} == set(DTYPES)
    assert plan.branches["Jet_float32"].collection == "Jet"
    num_entries = sum(entries)
    for start, stop in (
        (0, num_entries),
        (1, num_entries - 1),
        (num_entries // 3, num_entries // 2),
        (num_entries - 1, num_entries),
        (4, 4),
    ):
        assert_equals_uproot(plan, start, stop)


@pytest.mark.parametrize("codec", CODECS)
def test_plain_branches_are_decoded_here_and_not_by_uproot(codec, tmp_path):
    file = write(tmp_path / "a.root", codec=codec)
    with uproot.open({str(file): "Events"}) as tree:
        tables = tables_of(tree)
        assert None not in tables.values()
        contents, offsets = read_baskets(tree.file.source, tables, 5, 60)
        assert set(contents) == set(tree.keys())
        assert set(offsets) == {"nJet"}


@pytest.mark.parametrize("codec", ["zlib", "lz4", "zstd", "lzma"])
def test_a_basket_of_several_compressed_blocks_is_read_whole(codec, tmp_path):
    size = 2**21 + 5  # 8 bytes each: a little more than the 16 MiB of a block
    values = np.arange(size) // 3 * 0.5
    counts = np.full(size // 7, 7)
    with uproot.recreate(tmp_path / "a.root", compression=CODECS[codec]) as out:
        for name, column in {
            "x": values,
            "y": ak.unflatten(values[: counts.sum()], counts),
        }.items():
            out.mktree(name, {"v": ak.type(column).content if name == "y" else "float64"})
            out[name].extend({"v": column})
    for name in ("x", "y"):
        plan = plan_file(str(tmp_path / "a.root"), name, "s")
        events = assert_equals_uproot(plan, 1, plan.num_entries)
        assert events.contents["v"][-1] > 0


def test_an_entry_range_may_begin_and_end_anywhere(file):
    plan = plan_file(file, "Events", "s")
    branches = [plan.branches[name] for name in ("flat_int16", "Jet_float64", "Jet_uint8")]
    for start in range(0, plan.num_entries, 5):
        for stop in range(start, plan.num_entries + 1, 4):
            assert_equals_uproot(plan, start, stop, branches)


def test_real_files_are_read_as_uproot_reads_them(cms_plans):
    for plan in cms_plans:
        assert len(plan.branches) == 51
        middle = plan.num_entries // 2
        assert_equals_uproot(plan, 0, plan.num_entries)
        assert_equals_uproot(plan, 1, middle)
        assert_equals_uproot(plan, middle, middle + 1)


@pytest.mark.parametrize(
    ("name", "tree", "num_entries", "dtypes"),
    [
        ("nano_dy.root", "Events", 40, {"float32", "int32", "uint32", "uint8", "bool"}),
        ("nano_dy.root", "Runs", 1, {"int64", "float64", "uint32"}),
        ("nano_dimuon_rntuple.root", "Events", 40, {"float32", "int32", "uint64", "bool"}),
        ("PHYSLITE_example.root", "CollectionTree", 100, {"float32", "int8", "uint16", "float64"}),
    ],
)
def test_other_experiments_files_are_read_as_uproot_reads_them(
    name, tree, num_entries, dtypes, edge_cases
):
    plan = plan_file(str(edge_cases / name), tree, "s")
    assert plan.num_entries == num_entries
    assert dtypes <= {branch.dtype for branch in plan.branches.values()}
    assert {branch.kind for branch in plan.branches.values()} == {"flat", "jagged"}
    each_type = {(branch.kind, branch.dtype): branch for branch in plan.branches.values()}
    assert_equals_uproot(plan, num_entries // 3, num_entries, list(each_type.values()))


def test_every_branch_of_a_nanoaod_file_is_read_as_uproot_reads_it(edge_cases):
    plan = plan_file(str(edge_cases / "nano_dy.root"), "Events", "s")
    assert len(plan.branches) == 1499
    assert_equals_uproot(plan, 7, 31)


def test_a_file_without_entries_gives_events_of_length_0(edge_cases, tmp_path):
    plan = plan_file(str(edge_cases / "nano_dy_empty.root"), "Events", "s")
    assert plan.num_entries == 0
    assert len(plan.branches) == 1499
    planned = plan.planned(["Jet_pt"])
    assert planned.partitions(target_bytes=1000, max_events=10, num_entries=0) == []
    made = plan_file(str(write(tmp_path / "a.root", entries=())), "Events", "s")
    for empty, names in ((plan, ["Jet_pt", "run", "Jet_eta"]), (made, ["Jet_int8", "flat_bool"])):
        events = read(all_of(empty), [empty.branches[name] for name in names])
        assert len(events) == 0
        assert all(content.size == 0 for content in events.contents.values())
        assert all(offsets.tolist() == [0] for offsets in events.offsets.values())


def test_an_rntuple_written_by_uproot_is_read(tmp_path):
    path = tmp_path / "a.root"
    rng = np.random.default_rng(1)
    num_jets = rng.integers(0, 4, 50)
    columns = {
        "x": rng.random(50),
        "n": rng.integers(0, 9, 50),
        "Jet_pt": ak.unflatten(rng.random(num_jets.sum()).astype(np.float32), num_jets),
    }
    with uproot.recreate(path) as out:
        out["Events"] = columns
    plan = plan_file(str(path), "Events", "s")
    assert {name: branch.kind for name, branch in plan.branches.items()} == {
        "x": "flat",
        "n": "flat",
        "Jet_pt": "jagged",
    }
    events = assert_equals_uproot(plan, 3, 44)
    assert events.to_awkward().Jet_pt.to_list() == columns["Jet_pt"][3:44].to_list()
    np.testing.assert_array_equal(events.contents["x"], columns["x"][3:44])


def test_vectors_of_an_rntuple_are_collections_of_their_own_as_in_a_tree(tmp_path):
    vectors = {name: ak.Array([[1.5], [], [2.5, 3.5]]) for name in ("pt", "eta", "x")}
    with uproot.recreate(tmp_path / "rntuple.root") as out:
        out.mkrntuple("Events", vectors)
    plan = plan_file(str(tmp_path / "rntuple.root"), "Events", "s")
    found = {name: branch.collection for name, branch in plan.branches.items()}
    assert found == {"pt": "pt", "eta": "eta", "x": "x"}


def test_members_of_records_in_an_rntuple_are_called_as_in_a_tree(tmp_path):
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 4, 60)
    num = counts.sum()
    fields = {"pt": rng.random(num).astype(np.float32), "charge": rng.integers(-1, 2, num)}
    hits = ak.unflatten(rng.random(2 * num), np.full(num, 2))
    jets = ak.unflatten(ak.zip({**fields, "hits": hits}, depth_limit=1), counts)
    met = ak.zip({"pt": rng.random(60), "phi": rng.random(60)})
    columns = {"Jet": jets, "MET": met, "MET_phi": rng.random(60), "x": rng.random(60)}
    with uproot.recreate(tmp_path / "rntuple.root") as out:
        out.mkrntuple("Events", columns)
    plan = plan_file(str(tmp_path / "rntuple.root"), "Events", "s")
    assert {name: branch.collection for name, branch in plan.branches.items()} == {
        "Jet_pt": "Jet",
        "Jet_charge": "Jet",
        "MET_pt": None,
        "MET.phi": None,  # another field has the name
        "MET_phi": None,
        "x": None,
    }
    assert "doubly nested" in plan.left_out["Jet_hits"]
    for start, stop in ((0, 60), (7, 41), (9, 9)):
        partition = Partition(plan.file, plan.tree, plan.uuid, start, stop, "s")
        events = read(partition, list(plan.branches.values()))
        assert np.diff(events.offsets["Jet"]).tolist() == counts[start:stop].tolist()
        for name, expected in {
            "Jet_pt": ak.flatten(jets.pt[start:stop]),
            "Jet_charge": ak.flatten(jets.charge[start:stop]),
            "MET_pt": met.pt[start:stop],
            "MET.phi": met.phi[start:stop],
            "MET_phi": columns["MET_phi"][start:stop],
        }.items():
            np.testing.assert_array_equal(events.contents[name], expected, err_msg=name)


def test_branches_that_cannot_be_inputs_are_left_out_with_the_reason(edge_cases):
    plan = plan_file(str(edge_cases / "PHYSLITE_example.root"), "CollectionTree", "s")
    assert plan.left_out
    assert not plan.left_out.keys() & plan.branches.keys()
    reasons = " ".join(plan.left_out.values())
    assert "doubly nested" in reasons
    assert all(reason for reason in plan.left_out.values())


def test_counters_give_collections_their_names(cms_plans, edge_cases):
    branches = cms_plans[0].branches
    assert {branch.collection for branch in branches.values() if branch.kind == "jagged"} == {
        "Jet",
        "Muon",
        "Electron",
        "Photon",
    }
    nano = plan_file(str(edge_cases / "nano_dy.root"), "Events", "s").branches
    assert nano["Jet_pt"].collection == nano["Jet_eta"].collection == "Jet"
    assert nano["Jet_pt"].collection != nano["FatJet_pt"].collection


@given(
    st.integers(0, 500),
    st.integers(1, 200),
    st.sets(st.integers(1, 500)),
    st.sets(st.integers(1, 500)),
)
def test_ranges_cover_every_entry_once_within_the_limit(num_entries, max_events, ends, more):
    clusters = sorted(end for end in ends if end <= num_entries)
    baskets = sorted({*clusters, *(end for end in more if end <= num_entries)})
    ranges = cut(num_entries, max_events=max_events, clusters=clusters, baskets=baskets)
    entries = [entry for start, stop in ranges for entry in range(start, stop)]
    assert entries == list(range(num_entries))
    assert all(0 < stop - start <= max_events for start, stop in ranges)


@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 8))
def test_ranges_end_with_clusters_where_clusters_fit(size, num_clusters, per_range):
    ends = [size * (i + 1) for i in range(num_clusters)]
    # Half a cluster more than the limit needs, so that rounding has a cluster's end near.
    ranges = cut(ends[-1], max_events=size * per_range + size // 2, clusters=ends, baskets=ends)
    assert all(stop in ends for _, stop in ranges)


def test_a_file_of_one_cluster_is_cut_where_baskets_end():
    ranges = cut(1000, max_events=300, clusters=[1000], baskets=[120, 260, 480, 510, 770, 1000])
    assert ranges == [(0, 260), (260, 510), (510, 770), (770, 1000)]


def test_a_cluster_is_preferred_to_a_nearer_basket():
    assert cut(100, max_events=60, clusters=[40, 100], baskets=[40, 50, 100]) == [
        (0, 40),
        (40, 100),
    ]


def test_partitions_of_real_files_hold_every_entry_once_and_end_with_baskets(cms_plans, cms_parts):
    for plan in cms_plans:
        parts = cms_parts[plan.sample]
        assert len(parts) >= 3
        whole = read(all_of(plan), list(plan.branches.values()))
        joined = concatenate(parts)
        for name, content in whole.contents.items():
            assert joined.contents[name].tobytes() == content.tobytes()
        for name, offsets in whole.offsets.items():
            np.testing.assert_array_equal(joined.offsets[name], offsets)
    plan = cms_plans[0]
    ranges = plan.planned(["Jet_Px"]).partitions(
        target_bytes=1 << 40, max_events=2500, num_entries=plan.num_entries
    )
    assert len(ranges) > 2
    assert {part.entry_stop for part in ranges} <= set(plan.baskets)


def test_partitions_respect_bytes_and_a_limit_of_entries(cms_plans):
    plan = cms_plans[0]
    with uproot.open({plan.file: plan.tree}) as tree:
        per_event = tree["Jet_Px"].uncompressed_bytes / tree.num_entries
    planned = plan.planned(["Jet_Px"])
    assert planned.bytes_per_event == pytest.approx(per_event)
    partitions = planned.partitions(target_bytes=20_000, max_events=10**9, num_entries=1234)
    assert sum(map(len, partitions)) == 1234
    assert max(map(len, partitions)) * per_event <= 20_000
    assert partitions[-1].entry_stop == 1234
    assert len(pickle.dumps(partitions[0])) < 500


def test_the_unit_comes_from_the_title(cms_plans):
    assert {branch.unit for branch in cms_plans[0].branches.values()} <= {None, "GeV"}


@pytest.mark.parametrize(
    "name",
    ["with space.root", "with:colon.root", "été-テスト.root", "a:b c/d:e.root", "#1?x=2.root"],
)
def test_a_path_may_hold_any_character(name, file, tmp_path):
    path = tmp_path / "folder" / name
    path.parent.mkdir(parents=True)
    shutil.copy(file, path)
    plan = plan_file(str(path), "Events", "s")
    expected = plan_file(file, "Events", "s")
    branches = list(plan.branches.values())
    found, wanted = read(all_of(plan), branches), read(all_of(expected), branches)
    assert plan.file == str(path)
    assert all(found.contents[n].tobytes() == c.tobytes() for n, c in wanted.contents.items())


def test_a_file_that_is_not_there_is_named(tmp_path):
    path = str(tmp_path / "absent.root")
    with pytest.raises(UnreadableFileError, match=r"absent\.root cannot be read") as caught:
        plan_file(path, "Events", "s")
    assert caught.value.file == path


@pytest.mark.parametrize("content", [b"", b"not a ROOT file", b"root"])
def test_a_file_of_another_format_is_named(content, tmp_path):
    path = tmp_path / "other.root"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"other\.root cannot be read") as caught:
        plan_file(str(path), "Events", "s")
    assert caught.value.file == str(path)


def test_a_file_that_is_cut_short_is_said_to_be(tmp_path, cms_files):
    path = tmp_path / "cut.root"
    path.write_bytes(cms_files[0].read_bytes()[:100_000])
    with pytest.raises(UnreadableFileError, match=r"but there are fewer bytes: the file is cut"):
        plan_file(str(path), "events", "s")


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        plan_file(str(tmp_path), "Events", "s")


def test_a_tree_that_is_not_there_names_the_nearest(file):
    with pytest.raises(DataError, match=r"tree 'events'.*holds 'Events'.*mean 'Events'") as caught:
        plan_file(file, "events", "s")
    assert (caught.value.file, caught.value.tree) == (file, "events")


def test_a_truncated_file_is_never_read_as_if_it_were_whole(file, tmp_path):
    content = (tmp_path / "a.root").read_bytes()
    plan = plan_file(file, "Events", "s")
    branches = list(plan.branches.values())
    cut_off = tmp_path / "cut.root"
    for part in (0.02, 0.1, 0.3, 0.5, 0.9, 0.99):
        cut_off.write_bytes(content[: int(len(content) * part)])
        with pytest.raises((UnreadableFileError, DataError), match=r"cut\.root"):
            read(Partition(str(cut_off), "Events", plan.uuid, 0, plan.num_entries, "s"), branches)


def altered(path, content, place, bit):
    changed = bytearray(content)
    changed[place] ^= 1 << bit
    path.write_bytes(changed)


@pytest.mark.parametrize("codec", ["zlib", "lz4", "lzma"])
def test_an_altered_basket_never_gives_other_values(codec, tmp_path):
    # zstd has no place in this list: ROOT and uproot write its frames without a checksum.
    path = tmp_path / "a.root"
    write(path, codec=codec, entries=(300,))
    content = path.read_bytes()
    plan = plan_file(str(path), "Events", "s")
    names = ("flat_int16", "Jet_int32", "flat_float64")
    branches = [plan.branches[name] for name in names]
    expected = read(all_of(plan), branches)
    with uproot.open({str(path): "Events"}) as tree:
        places = []
        for name in (*names, "nJet"):
            begin, size = (int(tree[name].member(m)[0]) for m in ("fBasketSeek", "fBasketBytes"))
            assert tree[name].compressed_bytes < tree[name].uncompressed_bytes
            places += np.linspace(begin, begin + size - 1, 40).astype(int).tolist()
    num_refused = 0
    for place in places:
        altered(path, content, place, place % 8)
        try:
            found = read(all_of(plan), branches)
        except UnreadableFileError as error:
            assert error.file == str(path)  # noqa: PT017  # some bytes of a key do not matter
            num_refused += 1
        else:
            for name, wanted in expected.contents.items():
                assert found.contents[name].tobytes() == wanted.tobytes(), (name, place)
    assert num_refused > 0.5 * len(places)


def test_a_file_that_was_rewritten_between_plan_and_read_is_noticed(file, tmp_path):
    plan = plan_file(file, "Events", "s")
    branches = list(plan.branches.values())
    read(all_of(plan), branches)
    write(tmp_path / "a.root", seed=2)
    with pytest.raises(DataError, match="has changed since it was planned") as caught:
        read(all_of(plan), branches)
    assert caught.value.file == file


def test_a_file_that_was_removed_between_plan_and_read_is_noticed(file, tmp_path):
    plan = plan_file(file, "Events", "s")
    (tmp_path / "a.root").unlink()
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        read(all_of(plan), list(plan.branches.values()))


def test_entries_beyond_the_last_are_not_read(file):
    plan = plan_file(file, "Events", "s")
    with pytest.raises(DataError, match=r"expected .* with at least 68"):
        read(all_of(plan, 0, 68), list(plan.branches.values()))


def test_baskets_that_do_not_cover_a_range_are_left_to_uproot(file):
    with uproot.open({file: "Events"}) as tree:
        table = tables_of(tree)["flat_int16"]
        for start, stop in ((60, 68), (-1, 3)):
            with pytest.raises(UnsupportedBasketError, match="cover"):
                read_baskets(tree.file.source, {"flat_int16": table}, start, stop)


def read_changed(file, name, entries=(0, 67), **changes):
    """What is read of a branch whose table, or that of its counter, is not that of the file."""
    with uproot.open({file: "Events"}, handler=uproot.MemmapSource) as tree:
        tables = tables_of(tree)
        names = {name, tables[name].counter or name}
        changed = {
            field: getattr(tables[value], field) if isinstance(value, str) else value
            for field, value in changes.items()
        }
        wanted = {name: tables[name] for name in names} | {name: replace(tables[name], **changed)}
        return read_baskets(tree.file.source, wanted, *entries)


def test_a_basket_of_another_branch_is_refused(file):
    for name, other, entries in (
        ("Jet_float32", "Jet_int16", (0, 67)),
        ("Jet_float32", "Jet_int16", (3, 50)),
        ("Jet_int8", "Jet_float64", (3, 50)),
        ("Jet_float32", "nJet", (0, 67)),
        ("flat_int16", "flat_int8", (3, 50)),
        ("flat_int16", "flat_float64", (0, 67)),
        ("flat_int16", "Jet_int8", (0, 67)),
    ):
        what = f"basket of branch '{name}' with entries 0-30: .* bytes"
        with pytest.raises(ValueError, match=what):
            read_changed(file, name, entries, seeks=other, sizes=other)


def test_baskets_in_another_order_are_refused(file):
    with uproot.open({file: "Events"}) as tree:
        table = tables_of(tree)["Jet_int8"]
    with pytest.raises(ValueError, match="with entries 60-67: its key says 30 entries"):
        read_changed(file, "Jet_int8", seeks=table.seeks[::-1], sizes=table.sizes[::-1])


@pytest.mark.parametrize(
    ("seek", "size"),
    [(-1, 500), (-(2**40), 500), (-(2**63), 500), (900, 0), (900, -1), (900, -(2**31))],
)
def test_a_basket_that_lies_nowhere_is_refused(file, seek, size):
    seeks, sizes = np.full(3, seek), np.full(3, size)
    with pytest.raises(ValueError, match=f"'flat_int16' has a basket of {size} bytes at {seek}"):
        read_changed(file, "flat_int16", seeks=seeks, sizes=sizes)


def test_a_basket_may_be_followed_by_what_belongs_to_others(file):
    sizes = np.array([42_500, 5_000, 2_000])  # more than their keys say, and each within the first
    expected, _ = read_changed(file, "flat_int16")
    with uproot.open({file: "Events"}) as tree:
        seeks = tables_of(tree)["flat_int16"].seeks
    assert seeks[0] + sizes[0] > max(seeks[1:] + sizes[1:])
    found, _ = read_changed(file, "flat_int16", sizes=sizes)
    assert found["flat_int16"].tolist() == expected["flat_int16"].tolist()


@pytest.mark.parametrize("seek", [2**20, 2**31, 2**62])
def test_a_basket_beyond_the_end_of_the_file_is_refused(file, seek):
    with pytest.raises((ValueError, OSError), match="expected"):
        read_changed(file, "flat_int16", seeks=np.full(3, seek), sizes=np.full(3, 2**31 - 1))


@pytest.mark.parametrize("counts", [[2**63 - 1, 2**63 - 1, 4], [2**62, 2**62, 2**63 - 1]])
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_multiplicities_whose_sum_leaves_64_bits_are_not_counted(counts, dtype, tmp_path):
    columns = {"n": np.array(counts, dtype), "x": ak.Array([[1.0], [], [2.0]])}
    write_columns(tmp_path / "a.root", columns)
    with uproot.open({str(tmp_path / "a.root"): "Events"}) as tree:
        counters = {"n": None, "x": "n"}
        tables = {name: basket_table(tree[name], of, {}) for name, of in counters.items()}
        with pytest.raises(UnsupportedBasketError, match="huge multiplicity in 'n'"):
            read_baskets(tree.file.source, tables, 0, 3)


@pytest.mark.parametrize("shift", [-100, -4, 236, 240, 2**30, -(2**31)])
def test_offsets_that_leave_the_values_are_refused(shift, tmp_path):
    path = write(tmp_path / "a.root", codec="none", entries=(30,), counts=(2, 2))
    with uproot.open({str(path): "Events"}) as tree:
        basket = tree["Jet_float32"].basket(0)
        begin = int(tree["Jet_float32"].member("fBasketSeek")[0])
    content = bytearray(path.read_bytes())
    place = begin + basket.member("fKeylen") + basket.border + 4
    offsets = np.frombuffer(content, ">i4", 30, place)
    assert basket.border == 240
    assert offsets[2] == basket.member("fKeylen") + 16
    moved = offsets.astype("i4") + np.int32(shift)  # those of all entries: they stay apart
    content[place : place + 120] = moved.astype(">i4").tobytes()
    path.write_bytes(content)
    plan = plan_file(str(path), "Events", "s")
    with pytest.raises(UnreadableFileError, match="'Jet_float32' with entries 0-30: offsets"):
        read(all_of(plan, 0, 1), [plan.branches["Jet_float32"]])


def write_columns(path, columns):
    with uproot.recreate(path) as out:
        out.mktree("Events", {name: ak.type(ak.Array(v)).content for name, v in columns.items()})
        out["Events"].extend(columns)
    return plan_file(str(path), "Events", "s")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"y": np.arange(3.0)}, "is missing"),
        ({"x": np.arange(3, dtype=np.int16)}, "is flat int16"),
        ({"x": ak.Array([[1.0], [], [2.0]])}, "is jagged float64"),
    ],
    ids=["missing", "another type", "jagged"],
)
def test_files_of_unlike_branches_are_both_named(other, what, tmp_path):
    first = write_columns(tmp_path / "first.root", {"x": np.arange(3.0)})
    second = write_columns(tmp_path / "second.root", other)
    require_same_branches(first, first, ["x"])
    with pytest.raises(DataError, match=what) as caught:
        require_same_branches(first, second, ["x"])
    assert first.file in str(caught.value)
    assert second.file in str(caught.value)
    assert (caught.value.file, caught.value.branch) == (second.file, "x")


def test_a_sample_without_some_inputs_is_told_how_many_and_what_to_do(tmp_path):
    full = write_columns(tmp_path / "full.root", {name: np.arange(3.0) for name in "wxyz"})
    part = write_columns(tmp_path / "part.root", {"w": np.arange(3.0), "y": np.arange(3.0)})
    samples = [
        {"name": name, "label": label, "files": plan.file}
        for label, (name, plan) in enumerate({"full": full, "part": part}.items())
    ]
    with pytest.raises(DataError, match=r"'x' is missing .*; 2 branches are missing there; inputs"):
        preflight(description_of(Config.from_mapping({"samples": samples})))
    excluded = {"samples": samples, "branches": {"exclude": ["x", "z"]}}
    assert [
        branch.name for branch in preflight(description_of(Config.from_mapping(excluded))).branches
    ] == [
        "w",
        "y",
    ]


def test_branches_of_one_collection_share_their_multiplicities(tmp_path):
    columns = {"a": ak.Array([[1.0], [], [2.0]]), "b": ak.Array([[1.0], [2.0], []])}
    plan = write_columns(tmp_path / "a.root", columns)
    events = read(all_of(plan), list(plan.branches.values()))
    assert events.to_awkward().a.to_list() == columns["a"].to_list()
    assert events.to_awkward().b.to_list() == columns["b"].to_list()


class Elsewhere:
    """A file's source, as one on a server is asked: for many ranges at once, which it counts."""

    def __init__(self, source):
        self._source = source
        self.num_ranges = []

    def chunks(self, ranges, notifications):
        self.num_ranges.append(len(ranges))
        return self._source.chunks(ranges, notifications)


@pytest.mark.parametrize("is_local", [True, False])
def test_far_apart_baskets_are_fetched_in_bounded_pieces(is_local, cms_plans):
    plan = cms_plans[0]
    names = ["Jet_Px", "Muon_Py", "MET_px"]
    tables = plan.planned(names).partition(0, plan.num_entries).places.tables()
    tree = open_data(plan.file, plan.file, plan.tree, plan.access)
    source = tree.source if is_local else Elsewhere(tree.source)

    def baskets_of(**merging):
        fetched = Fetched(source, tables, 0, plan.num_entries, None, merging=Merging(**merging))
        uncompress = Uncompress()
        return [
            (each.branch, each.first, each.last, bytes(uncompress(each)))
            for each in fetched.baskets(tables)
        ]

    together = baskets_of()
    assert {branch for branch, *_ in together} == {*tables}
    assert baskets_of(gap=0, most=1, most_here=1) == together
    if not is_local:
        few, many = source.num_ranges
        assert few < many == len(together)


def test_more_files_than_are_kept_open_are_read_in_turn(tmp_path):
    plans = [
        plan_file(str(write(tmp_path / f"{i}.root", entries=(3,), seed=i)), "Events", "s")
        for i in range(7)
    ]
    for plan in plans + plans[::-1]:
        assert_equals_uproot(plan, 0, 3)


def test_a_branch_is_cheap_to_send():
    branch = Branch("Jet_pt", "jagged", "float32", "Jet", "GeV")
    assert pickle.loads(pickle.dumps(branch)) == branch  # noqa: S301  # our own bytes
