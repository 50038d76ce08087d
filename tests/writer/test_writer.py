import json
import re
import subprocess
import sys
from dataclasses import replace

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
from root_process import run_in_root

from mlaas4hep_dask.encode import Encoding, decode, encode
from mlaas4hep_dask.errors import EncodeError, WriteError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.events import concatenate
from mlaas4hep_dask.reader import Partition, plan_file, read
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.writer import decode_to_file, decoded_events, write_events

EVENTS = Events(
    3,
    (
        Branch("event", "flat", "uint64"),
        Branch("is_data", "flat", "bool"),
        Branch("charge", "flat", "int8"),
        Branch("nJet", "flat", "uint32"),
        Branch("MET_pt", "flat", "float32", None, "GeV"),
        Branch("weight", "flat", "float64"),
        Branch("Jet_pt", "jagged", "float32", "Jet", "GeV"),
        Branch("Jet_id", "jagged", "int16", "Jet"),
        Branch("tracks", "jagged", "float64", "tracks"),
        Branch("hit_x", "jagged", "uint8", "hits"),
    ),
    {
        "event": np.array([2**64 - 1, 2**53 + 1, 0], dtype=np.uint64),
        "is_data": np.array([True, False, True]),
        "charge": np.array([-128, 0, 127], dtype=np.int8),
        "nJet": np.array([2, 0, 1], dtype=np.uint32),
        "MET_pt": np.array([np.nan, np.inf, 1.1], dtype=np.float32),
        "weight": np.array([1 / 3, -0.0, 5e-324]),
        "Jet_pt": np.array([1.5, 2.5, 3.5], dtype=np.float32),
        "Jet_id": np.array([-(2**15), 0, 2**15 - 1], dtype=np.int16),
        "tracks": np.array([0.1]),
        "hit_x": np.arange(300, dtype=np.uint8),
    },
    {
        "Jet": np.array([0, 2, 2, 3]),
        "tracks": np.array([0, 0, 1, 1]),
        "hits": np.array([0, 0, 0, 300]),
    },
)


def read_back(path, tree="Events"):
    """All events of a ROOT file, as the package reads them."""
    plan = plan_file(str(path), tree, "any")
    planned = plan.planned(list(plan.branches)).partitions(
        target_bytes=1 << 40, max_events=1 << 40, num_entries=plan.num_entries
    )
    parts = [read(part, list(plan.branches.values())) for part in planned]
    return plan, concatenate(parts) if parts else None


def assert_equal(found, expected):
    assert len(found) == len(expected)
    kinds = {branch.name: branch for branch in found.branches}
    for branch in expected.branches:
        assert kinds[branch.name].kind == branch.kind
        values, wanted = found.contents[branch.name], expected.contents[branch.name]
        assert values.dtype == wanted.dtype
        np.testing.assert_array_equal(values, wanted)  # NaN equals NaN
        if branch.collection is not None:
            ends = found.offsets[kinds[branch.name].collection]
            np.testing.assert_array_equal(ends, expected.offsets[branch.collection])


def test_events_of_every_dtype_come_back_from_a_tree_as_they_were(tmp_path):
    path = tmp_path / "out.root"
    with write_events(path, EVENTS.branches) as file:
        for _ in range(25):  # more pieces than a tree's header has room for at first
            file.append(EVENTS)
            file._flush()
    plan, found = read_back(path)
    assert_equal(found, concatenate([EVENTS] * 25))
    for branch in EVENTS.branches:
        same = Branch(branch.name, branch.kind, branch.dtype, branch.collection, branch.unit)
        if branch.collection != "tracks":  # a collection of one branch of its name
            assert plan.branches[branch.name] == same
    with uproot.open(path) as file:
        tree = file["Events"]
        assert tree["Jet_pt"].count_branch.name == tree["Jet_id"].count_branch.name == "nJet"
        assert tree["Jet_pt"].title == "Jet_pt [GeV]"
        assert tree["nJet"].array().to_list() == [2, 0, 1] * 25
        assert tree["event"].array()[0] == 2**64 - 1


def test_events_of_every_dtype_come_back_from_parquet_as_they_were(tmp_path):
    path = tmp_path / "out.parquet"
    with write_events(path, EVENTS.branches) as file:
        file.append(EVENTS)
        file._flush()
        file.append(EVENTS)
        file.describe({"bundle": "ttH"})
    found = ak.from_parquet(path)
    both = concatenate([EVENTS, EVENTS])
    assert found.fields == [branch.name for branch in EVENTS.branches]
    assert_equal(Events.from_awkward(found), both)
    written = pq.ParquetFile(path)
    assert written.num_row_groups == 2
    assert json.loads(written.metadata.metadata[b"mlaas4hep_dask"]) == {"bundle": "ttH"}
    assert written.schema_arrow.field("Jet_pt").metadata[b"unit"] == b"GeV"
    assert not any(field.nullable for field in written.schema_arrow)


@pytest.mark.parametrize("num_pieces", [0, 1, 3])
def test_events_of_every_dtype_come_back_from_an_rntuple_as_they_were(tmp_path, num_pieces):
    path = tmp_path / "out.root"
    with write_events(path, EVENTS.branches, root_format="rntuple") as file:
        assert file.form == "RNTuple"
        for _ in range(num_pieces):
            file.append(EVENTS)
            file._flush()
        file.describe({"bundle": "ttH"})
    plan, found = read_back(path)
    assert plan.num_entries == 3 * num_pieces
    assert list(plan.branches) == [branch.name for branch in EVENTS.branches]
    if num_pieces:
        assert_equal(found, concatenate([EVENTS] * num_pieces))
    with uproot.open(path) as file:
        assert json.loads(file["mlaas4hep_dask"]) == {"bundle": "ttH"}


def wide_events(num_branches, num_events=20):
    """Flat and jagged branches in turns, ten of the latter in each collection."""
    rng = np.random.default_rng(num_branches)
    branches, contents, offsets = [], {}, {}
    for number in range(num_branches):
        name = f"b{number}"
        size, collection = num_events, None
        if number % 2:
            collection = f"C{number // 20}"
            counts = rng.integers(0, 4, num_events)
            ends = offsets.setdefault(collection, np.concatenate([[0], np.cumsum(counts)]))
            size = int(ends[-1])
        kind = "flat" if collection is None else "jagged"
        branches.append(Branch(name, kind, "float32", collection))
        contents[name] = rng.random(size, dtype=np.float32)
    return Events(num_events, tuple(branches), contents, offsets)


def write_wide(path, num_branches, **options):
    events = wide_events(num_branches)
    with write_events(path, events.branches, overwrite=True, **options) as file:
        file.append(events)
    return events, file.form


def test_the_work_of_writing_grows_with_the_number_of_branches_alone(tmp_path):
    write_wide(tmp_path / "out.root", 1200)  # what is done once
    few, many = (num_calls(write_wide, tmp_path / "out.root", num) for num in (600, 1200))
    assert many < 2.5 * few


def num_calls(function, *arguments, **options):
    """How many functions are called, in Python or not."""
    found = 0

    def count(_frame, event, _argument):
        nonlocal found
        found += event.endswith("call")

    sys.setprofile(count)
    try:
        function(*arguments, **options)
    finally:
        sys.setprofile(None)
    return found


ROOT_READS = """
if sys.argv[2] == "TTree":
    file = ROOT.TFile.Open(sys.argv[1])
    names = [branch.GetName() for branch in file["Events"].GetListOfBranches()]
else:
    reader = ROOT.RNTupleReader.Open("Events", sys.argv[1])
    fields = reader.GetDescriptor().GetTopLevelFields()
    names = [str(field.GetFieldName()) for field in fields]
print(" ".join(name for name in names if name.startswith("b")))
data = ROOT.RDataFrame("Events", sys.argv[1])
sums = [data.Sum(name) for name in ("b0", "b1", "b4", "b599")]
print(data.Count().GetValue(), *(total.GetValue() for total in sums))
"""


@pytest.mark.slow
@pytest.mark.parametrize("root_format", ["auto", pytest.param("ttree", marks=pytest.mark.nightly)])
def test_root_opens_what_has_many_branches_and_finds_them_in_their_order(tmp_path, root_format):
    path = tmp_path / "out.root"
    events, form = write_wide(path, 600, root_format=root_format)
    assert form == ("RNTuple" if root_format == "auto" else "TTree")
    names, numbers = run_in_root(ROOT_READS, str(path), form).splitlines()[-2:]
    assert names.split() == [branch.name for branch in events.branches]
    num_events, *sums = map(float, numbers.split())
    assert num_events == len(events)
    wanted = [events.contents[name].sum(dtype=float) for name in ("b0", "b1", "b4", "b599")]
    assert sums == pytest.approx(wanted, rel=1e-6)


@pytest.mark.slow
def test_a_wide_output_is_an_rntuple_unless_its_names_or_the_user_want_a_tree(tmp_path):
    events = wide_events(500)
    names = {branch.name: f"reco.{branch.name}" for branch in events.branches}
    dotted = Events(
        len(events),
        tuple(replace(branch, name=names[branch.name]) for branch in events.branches),
        {names[name]: values for name, values in events.contents.items()},
        events.offsets,
    )
    for name, made, form in (("a", events, "RNTuple"), ("b", dotted, "TTree")):
        with write_events(tmp_path / f"{name}.root", made.branches) as file:
            file.append(made)
        assert file.form == form
        assert_equal(read_back(tmp_path / f"{name}.root")[1], made)
    assert write_wide(tmp_path / "c.root", 450)[1] == "TTree"


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("a.parquet", {"root_format": "ttree"}, "ttree is a format of .root files, not of .parque"),
        ("a.root", {"root_format": "rntupel"}, "did you mean 'rntuple'"),
        ("a.root", {"root_format": "rntuple"}, "branch 'reco.pt' cannot be in an RNTuple"),
    ],
)
def test_a_format_that_does_not_fit_is_refused(tmp_path, path, options, message):
    branches = (Branch("reco.pt", "flat", "float32"),)
    with (
        pytest.raises(WriteError, match=re.escape(message)),
        write_events(tmp_path / path, branches, **options),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_real_file_comes_back_exactly(tmp_path, cms_plans, cms_parts):
    plan = cms_plans[0]
    parts = cms_parts[plan.sample]
    with write_events(tmp_path / "out.root", list(plan.branches.values()), tree="events") as file:
        for part in parts:
            file.append(part)
    again, found = read_back(tmp_path / "out.root", "events")
    assert_equal(found, concatenate(parts))
    assert {name: again.branches[name] for name in plan.branches} == plan.branches


def test_a_nanoaod_file_keeps_its_counters(tmp_path, edge_cases):
    names = ("run", "event", "nJet", "nMuon", "Jet_pt", "Jet_jetId", "Muon_pt", "Muon_charge")
    plan = plan_file(str(edge_cases / "nano_dy.root"), "Events", "any")
    branches = [plan.branches[name] for name in names]
    events = read(Partition(plan.file, "Events", plan.uuid, 0, plan.num_entries, "any"), branches)
    with write_events(tmp_path / "out.root", branches) as file:
        file.append(events)
    again, found = read_back(tmp_path / "out.root")
    assert_equal(found, events)
    for name in names:
        assert again.branches[name].same_shape(plan.branches[name])


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_a_file_without_events_still_has_its_branches(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    with write_events(path, EVENTS.branches):
        pass
    if suffix == ".root":
        plan, _ = read_back(path)
        assert plan.num_entries == 0
        assert {branch.name for branch in EVENTS.branches} <= plan.branches.keys()
    else:
        assert len(ak.from_parquet(path)) == 0


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_a_file_appears_whole_or_not_at_all(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"

    def fail():
        with write_events(path, EVENTS.branches) as file:
            file.append(EVENTS)
            file._flush()
            assert not path.exists()
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert list(tmp_path.iterdir()) == []
    path.write_text("earlier")
    with pytest.raises(WriteError, match="exists; it is kept"), write_events(path, EVENTS.branches):
        pass
    with write_events(path, EVENTS.branches, overwrite=True) as file:
        file.append(EVENTS)
        assert path.read_text() == "earlier"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644


FULL = """
import resource, signal, sys
import numpy as np
from mlaas4hep_dask.errors import WriteError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.writer import write_events

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # as a disk with little room
values = np.random.default_rng(0).normal(size=1_000_000)
branches = (Branch("x", "flat", "float64"),)
try:
    with write_events(sys.argv[1], branches) as file:
        file.append(Events(len(values), branches, {"x": values}, {}))
except WriteError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.root", "out.parquet"])
def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FULL, name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.fullmatch(rf"{name} cannot be written \(.*File too large\)\n", done.stdout), (
        done.stderr
    )
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("out.rot", r"suffix '.rot' tells no format; expected .root or .parquet; did you mean"),
        ("none/out.root", "no folder"),
        (f"{'x' * 300}.root", "File name too long"),
        ("folder.root", "is a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_at_once(tmp_path, path, message):
    (tmp_path / "folder.root").mkdir()
    with (
        pytest.raises(WriteError, match=message),
        write_events(tmp_path / path, EVENTS.branches),
    ):
        pass


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        (Branch("x[k]", "flat", "float32"), "has a bracket"),
        (Branch("x", "flat", "float16"), "float16, which a TTree cannot hold"),
        (Branch("nJet", "flat", "float32"), "name of the counter of collection 'Jet'"),
    ],
)
def test_a_branch_that_a_tree_cannot_hold_is_named(tmp_path, branch, message):
    branches = (branch, Branch("Jet_pt", "jagged", "float32", "Jet"))
    path = tmp_path / "out.root"
    with pytest.raises(WriteError, match=message), write_events(path, branches):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("root_format", ["ttree", "rntuple"])
def test_elements_of_arrays_have_names_that_root_takes_for_no_array(tmp_path, root_format):
    branches = (
        Branch("p3[0]", "flat", "float32"),
        Branch("mat[1][2]", "flat", "float32"),
        Branch("jp[2]", "jagged", "float32", "Jet"),
    )
    contents = {b.name: np.arange(3, dtype=np.float32) + i for i, b in enumerate(branches)}
    events = Events(3, branches, contents, {"Jet": np.array([0, 2, 2, 3])})
    path = tmp_path / "out.root"
    with write_events(path, branches, root_format=root_format) as file:
        file.append(events)
    _, found = read_back(path)
    names = {"p3_0": "p3[0]", "mat_1_2": "mat[1][2]", "jp_2": "jp[2]"}
    for stored, name in names.items():
        np.testing.assert_array_equal(found.contents[stored], contents[name])
    with write_events(tmp_path / "out.parquet", branches) as file:
        file.append(events)
    assert set(names.values()) <= read_back(tmp_path / "out.parquet")[0].branches.keys()


def test_chosen_objects_have_a_counter_whose_name_a_tree_can_hold(tmp_path):
    branches = (
        Branch("Low_pt", "jagged", "float32", "Jet[(Jet_pt < 30)]_ae"),
        Branch("High_pt", "jagged", "float32", "Jet[(Jet_pt > 30)]_ae"),
    )
    contents = {"Low_pt": np.float32([1.0, 2.0]), "High_pt": np.float32([40.0])}
    offsets = {branches[0].collection: [0, 2, 2], branches[1].collection: [0, 0, 1]}
    offsets = {name: np.array(ends) for name, ends in offsets.items()}
    path = tmp_path / "out.root"
    with write_events(path, branches) as file:
        file.append(Events(2, branches, contents, offsets))
    with uproot.open(path) as file:
        assert file["Events"].keys() == ["nLow_pt", "Low_pt", "nHigh_pt", "High_pt"]
        assert file["Events"].arrays(["nHigh_pt", "High_pt"]).to_list() == [
            {"nHigh_pt": 0, "High_pt": []},
            {"nHigh_pt": 1, "High_pt": [40.0]},
        ]


def test_other_branches_and_a_wrong_counter_are_refused(tmp_path):
    wrong = Events(
        3,
        EVENTS.branches,
        {**EVENTS.contents, "nJet": np.array([2, 0, 3], dtype=np.uint32)},
        EVENTS.offsets,
    )
    path = tmp_path / "out.root"
    with (
        pytest.raises(WriteError, match="'nJet' is 3 in an event with 1 objects"),
        write_events(path, EVENTS.branches) as file,
    ):
        file.append(wrong)
    fewer = Events(3, EVENTS.branches[1:], EVENTS.contents, EVENTS.offsets)
    with (
        pytest.raises(WriteError, match="'event' is absent; the file's is flat uint64"),
        write_events(path, EVENTS.branches) as file,
    ):
        file.append(fewer)


def nano(edge_cases):
    """Events of a NanoAOD file with counters among the inputs, and an encoding that cuts them."""
    plan = plan_file(str(edge_cases / "nano_dy.root"), "Events", "any")
    names = [name for name in plan.branches if name.startswith(("nJet", "Jet_", "MET_"))]
    branches = [plan.branches[name] for name in sorted(names)]
    whole = Partition(plan.file, "Events", plan.uuid, 0, plan.num_entries, "any")
    events = read(whole, branches)
    return events, Encoding.from_specs(measure(events, sample="all"), width=3)


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_decoded_rows_in_a_file_are_those_that_decode_gives(tmp_path, edge_cases, suffix):
    events, encoding = nano(edge_cases)
    encoded = encode(events, encoding)
    x, missing, counts = encoded.dense(), encoded.missing(), encoded.multiplicities()
    path = tmp_path / f"out{suffix}"
    decode_to_file(path, x, missing, encoding, multiplicities=counts)
    expected = decode(x, missing, encoding, multiplicities=counts)
    found = ak.from_parquet(path) if suffix == ".parquet" else uproot.open(path)["Events"].arrays()
    for branch in encoding.branches:
        if branch.name == "nJet":
            continue
        assert ak.array_equal(found[branch.name], expected[branch.name], equal_nan=True)
    np.testing.assert_array_equal(found["nJet"], ak.num(expected["Jet_pt"]))
    np.testing.assert_array_equal(found["nJet_value"], events.contents["nJet"])
    assert ak.any(found["nJet_value"] > found["nJet"])  # the encoding cuts


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_whole_numbers_without_a_logarithm_are_nan_in_a_file(tmp_path, suffix):
    path = tmp_path / f"decoded{suffix}"
    array = ak.Array(
        {
            "number": np.array([0, 3, 200], dtype=np.uint8),
            "nJet": np.array([2, 0, 1], dtype=np.int32),
            "Jet_id": ak.Array([[0, 7], [], [5]]),
        }
    )
    events = Events.from_awkward(array)
    specs = measure(events, sample="s", transforms=dict.fromkeys(array.fields, "log"))
    encoding = Encoding.from_specs(specs, normalisation="log")
    encoded = encode(events, encoding)
    counts = encoded.multiplicities()
    x, missing = encoded.dense(), encoded.missing()
    decode_to_file(path, x, missing, encoding, multiplicities=counts)
    found = ak.from_parquet(path) if suffix == ".parquet" else uproot.open(path)["Events"].arrays()
    np.testing.assert_allclose(found["number"], [np.nan, 3, 200], rtol=1e-6)
    np.testing.assert_array_equal(found["nJet"], [2, 0, 1])
    np.testing.assert_allclose(found["nJet_value"], [2, np.nan, 1], rtol=1e-6)
    assert ak.num(found["Jet_id"]).to_list() == [2, 0, 1]
    np.testing.assert_allclose(ak.flatten(found["Jet_id"]), [np.nan, 7, 5], rtol=1e-6)


def test_a_missing_integer_is_an_error_since_a_file_has_no_nan_for_it(edge_cases):
    events, encoding = nano(edge_cases)
    encoded = encode(events, encoding)
    x, missing = encoded.dense(), encoded.missing()
    column = encoding.layout.columns().index("nJet")
    missing[0, column] = True
    with pytest.raises(EncodeError, match=r"'nJet' is .*int32, and a value of it is missing"):
        decoded_events(x, missing, encoding)
    missing[0, column] = False
    x[0, column] = np.nan
    with pytest.raises(EncodeError, match=r"'nJet' is .*int32, and a value of it is not finite"):
        decoded_events(x, missing, encoding)
