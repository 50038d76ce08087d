"""Files that ROOT writes and that are not what one expects: what they offer, and its values."""

import json

import awkward as ak
import numpy as np
import pytest
import uproot
from paths import FAULTS
from root_process import run_in_root

from mlaas4hep_dask.config import load
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.errors import ConfigError, DataError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.reader import counting, plan_file, read
from mlaas4hep_dask.specs.draw import entry_keys
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.meter import Meter

ENTRIES = np.arange(300)


def events_of(file, tree="Events"):
    plan = plan_file(str(file), tree, "s")
    part = plan.planned([]).partition(0, plan.num_entries)
    return plan, read(part, list(plan.branches.values()))


def configured(tmp_path, files, *lines, tree="Events"):
    path = tmp_path / "dataset.yaml"
    samples = [f"  - {{name: s{i}, label: {i}, files: {file}}}" for i, file in enumerate(files)]
    path.write_text("\n".join([f"tree: {tree}", "samples:", *samples, *lines]))
    return load(path)


def planned(tmp_path, files, *lines, tree="Events"):
    config = configured(tmp_path, files, *lines, tree=tree)
    return check_files(preflight(description_of(config)), config.partition, config.max_events)


@pytest.mark.parametrize("label", [0, 1])
def test_of_two_branches_with_one_name_the_first_is_read_with_its_own_type(label):
    plan, events = events_of(FAULTS / f"g21_{label}.root")
    assert plan.branches["x"].dtype == "float32"
    with uproot.open(FAULTS / f"g21_{label}.root") as file:
        np.testing.assert_array_equal(events.contents["x"], file["Events"]["x"].array())
    assert 50 <= events.contents["x"].min() <= events.contents["x"].max() <= 219.5
    assert "x (2)" in plan.left_out


@pytest.mark.slow
def test_two_class_branches_with_one_name_leave_a_file_readable(tmp_path):
    file = tmp_path / "twins.root"
    script = """
file = ROOT.TFile(sys.argv[1], "recreate")
tree = ROOT.TTree("Events", "")
arrays = [ROOT.TClonesArray("TVector2"), ROOT.TClonesArray("TVector2")]
for array in arrays:
    tree.Branch("Particle", array)
for i in range(20):
    for sign, array in zip((1, -1), arrays):
        array.Clear()
        for k in range((i + sign) % 4):
            array.ConstructedAt(k).Set(sign * (10.0 * i + k), 0.0)
    tree.Fill()
tree.Write()
file.Close()
"""
    run_in_root(script, str(file))
    plan, events = events_of(file)
    assert plan.branches["Particle/Particle.fX"].collection == "Particle"
    assert "Particle/Particle.fX (2)" in plan.left_out
    expected = [[10.0 * i + k for k in range((i + 1) % 4)] for i in range(20)]
    assert events.to_awkward()["Particle/Particle.fX"].to_list() == expected


@pytest.mark.parametrize("label", [0, 1])
def test_collections_of_two_branches_of_one_class_do_not_mix(label):
    plan, events = events_of(FAULTS / f"g19_{label}.root")
    collections = {name: branch.collection for name, branch in plan.branches.items()}
    assert collections["reco/hits/hits.pt"] == "reco/hits"
    assert collections["gen/hits/hits.pt"] == "gen/hits"
    found = events.to_awkward()
    for place, sign, offset, odd in (("reco", 1, 0, 2), ("gen", -1, 1, 1)):
        counts = np.where(ENTRIES % 2, odd, 3 - odd)
        values = [[sign * (100 * i + k + offset) for k in range(counts[i])] for i in range(300)]
        assert found[f"{place}/hits/hits.pt"].to_list() == values


def test_members_of_a_class_are_decoded_here_by_the_counter_of_their_own_parent():
    with counting() as counts:
        events_of(FAULTS / "g19_0.root")
    assert not counts.by_uproot


def test_a_branch_with_fewer_entries_than_its_tree_is_an_error_at_plan_time(tmp_path):
    files = [FAULTS / f"g12_{label}.root" for label in (0, 1)]
    with pytest.raises(DataError, match=r"'late' is filled for 200 of 300 entries") as caught:
        preflight(description_of(configured(tmp_path, files)))
    assert caught.value.branch == "late"
    with pytest.raises(ConfigError, match=r"'never' .*filled for 0 of 300 entries"):
        preflight(description_of(configured(tmp_path, files, "branches: {include: [met, never]}")))
    with pytest.raises(ConfigError, match=r"'late' is filled for 200 of 300 entries"):
        preflight(
            description_of(
                configured(tmp_path, files, "branches: {include: [met]}", "select: [late > 0]")
            )
        )


def test_a_branch_with_fewer_entries_in_one_file_alone_is_an_error_too(tmp_path):
    whole = [tmp_path / "one.root", tmp_path / "other.root"]
    columns = {name: np.zeros(9, np.float32) for name in ("met", "late")}
    for file in whole:
        with uproot.recreate(file) as out:
            out.mktree("Events", dict.fromkeys(columns, "float32"))
            out["Events"].extend(columns)
    include = "branches: {include: [met, late]}"
    expected = "'late' is filled for 200 of 300 entries"
    with pytest.raises(DataError, match=expected):
        preflight(description_of(configured(tmp_path, [whole[0], FAULTS / "g12_1.root"], include)))
    config = configured(tmp_path, [f"[{whole[0]}, {FAULTS / 'g12_0.root'}]", whole[1]], include)
    checked = preflight(description_of(config))
    with pytest.raises(DataError, match=expected):
        check_files(checked, config.partition, config.max_events)


def test_a_short_branch_that_is_excluded_does_no_harm(tmp_path):
    files = [FAULTS / f"g12_{label}.root" for label in (0, 1)]
    checked = preflight(
        description_of(configured(tmp_path, files, "branches: {exclude: [late, never]}"))
    )
    assert checked.selection.inputs == ["met"]
    _, events = events_of(files[1])
    np.testing.assert_array_equal(events.contents["met"], ENTRIES % 17 + 1)


def test_a_short_branch_of_a_friend_is_told_as_one(tmp_path):
    files = [tmp_path / f"jets_{label}.root" for label in (0, 1)]
    columns = {"Jet_pt": ak.Array([[1.0, 2.0]] * 300), "weight": np.ones(300, np.float32)}
    for file in files:
        with uproot.recreate(file) as out:
            out.mktree("Events", {"Jet_pt": "var * float64", "weight": "float32"})
            out["Events"].extend(columns)
    friends = f"friends: [{{files: {{'jets_*.root': '{FAULTS}/g12_*.root'}}}}]"
    where = r"in \S+/g12_0\.root, a friend tree"
    expected = rf"'late' is filled for 200 of 300 entries of tree 'Events' {where}"
    with pytest.raises(DataError, match=expected):
        preflight(description_of(configured(tmp_path, files, friends)))
    lines = ("branches: {include: [Jet_pt]}", "encode: {sort: {Jet_pt: -late}}")
    with pytest.raises(ConfigError, match=r"encode.sort: branch 'late' is not in .*" + expected):
        preflight(description_of(configured(tmp_path, files, friends, *lines)))


@pytest.mark.slow
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_list_is_left_out_when_its_counter_has_fewer_entries(is_whole, tmp_path):
    file = tmp_path / "short.root"
    script = """
from array import array
file = ROOT.TFile(sys.argv[1], "recreate")
tree = ROOT.TTree("Events", "")
n, pt, met = array("i", [0]), array("f", [0] * 4), array("f", [0])
met_branch = tree.Branch("met", met, "met/F")
n_branch, pt_branch = tree.Branch("n", n, "n/I"), tree.Branch("pt", pt, "pt[n]/F")
for i in range(30):
    met[0] = i
    met_branch.Fill()
    if i < 20:
        n[0] = i % 4
        n_branch.Fill()
    if i < 20 or sys.argv[2] == "True":
        pt_branch.Fill()
tree.SetEntries(30)
tree.Write()
file.Close()
"""
    run_in_root(script, str(file), str(is_whole))
    plan, events = events_of(file)
    reason = "filled for 20 of 30 entries"
    of_list = f"counted by 'n', which is {reason}" if is_whole else reason
    assert plan.left_out == {"n": reason, "pt": of_list}
    assert events.contents["met"].tolist() == list(range(30))


COMPILED = """
#include "TTree.h"
#include "TNamed.h"
class Skim : public TTree {
 public:
  int extra = 3;
  Skim(const char* n = "", const char* t = "") : TTree(n, t) {}
  ClassDef(Skim, 1)
};
class Deep : public Skim {
 public:
  double w = 2;
  Deep(const char* n = "", const char* t = "") : Skim(n, t) {}
  ClassDef(Deep, 2)
};
class Mixin {
 public:
  double scale = 2;
  int numbers[3] = {1, 2, 3};
  virtual ~Mixin() {}
  ClassDef(Mixin, 1)
};
class Plain {
 public:
  float a = 1;
};
class Mixed : public Mixin, public Plain, public Skim {
 public:
  double w = 2;
  Mixed(const char* n = "", const char* t = "") : Skim(n, t) {}
  ClassDefOverride(Mixed, 2)
};
class Note : public TNamed {
 public:
  int n = 0;
  Note(const char* n = "", const char* t = "") : TNamed(n, t) {}
  ClassDef(Note, 1)
};
"""
DERIVED = """
import os
from array import array
ROOT.gROOT.LoadMacro(sys.argv[2] + "+")
file = ROOT.TFile(sys.argv[1], "recreate")
for name in ("Skim", "Deep", "Mixed"):
    tree = getattr(ROOT, name)(name, "")
    x = array("f", [0])
    tree.Branch("x", x, "x/F")
    for i in range(50):
        x[0] = i / 2
        tree.Fill()
    tree.Write()
ROOT.TH1F("histogram", "", 3, 0, 1).Write()
ROOT.Note("note", "").Write()
file.Close()
os._exit(0)  # Python would end what the file has deleted
"""


@pytest.mark.parametrize(("tree", "dtype"), [("nt", "float32"), ("ntd", "float64")])
def test_an_ntuple_is_read_as_a_tree(tree, dtype):
    for label in (0, 1):
        file = FAULTS / f"g14_{label}.root"
        plan, events = events_of(file, tree)
        assert plan.num_entries == 300
        assert {branch.dtype for branch in plan.branches.values()} == {dtype}
        with uproot.open(file) as opened:
            for name, values in events.contents.items():
                assert values.tobytes() == opened[tree][name].array(library="np").tobytes()


@pytest.mark.slow
def test_a_users_class_that_derives_from_a_tree_is_read_as_one(tmp_path):
    source, file = tmp_path / "skim.C", tmp_path / "derived.root"
    source.write_text(COMPILED)
    run_in_root(DERIVED, str(file), str(source))
    for tree in ("Skim", "Deep", "Mixed"):
        _, events = events_of(file, tree)
        np.testing.assert_array_equal(events.contents["x"], np.arange(50) / 2)
    with pytest.raises(DataError, match=r"'note' is not in .*; it holds 'Skim', 'Deep', 'Mixed'"):
        events_of(file, "note")


def test_files_without_a_uuid_in_their_header_are_told_apart():
    uuids = {label: events_of(FAULTS / f"n02_{label}.root")[0].uuid for label in (0, 1)}
    # as the record of the TFile has it
    assert uuids == {
        0: "fbf6d168-3924-431c-b276-4bd9e03595ed",
        1: "20558f44-755e-4c1d-9d1c-1ecc99ddefd7",
    }


@pytest.mark.slow
def test_reproducible_files_are_known_by_what_they_hold(tmp_path):
    script = """
from array import array
for k, name in enumerate(sys.argv[1:]):
    file = ROOT.TFile(name + "?reproducible=same", "recreate")
    tree = ROOT.TTree("Events", "")
    x = array("f", [0])
    tree.Branch("x", x, "x/F")
    for i in range(50):
        x[0] = i + k // 2
        tree.Fill()
    tree.Write()
    file.Close()
"""
    files = [tmp_path / f"{name}.root" for name in ("one", "copy", "other")]
    run_in_root(script, *map(str, files))
    one, copy, other = (events_of(file)[0].uuid for file in files)
    assert one == copy != other
    with pytest.raises(DataError, match="copy"):
        planned(tmp_path, files[:2])
    assert planned(tmp_path, [files[0], files[2]]).notes == ()


def test_two_files_of_an_rntuple_writer_are_two_samples(tmp_path):
    plan = planned(tmp_path, [FAULTS / f"n02_{label}.root" for label in (0, 1)])
    assert plan.num_events == 600
    assert plan.notes == ()


@pytest.mark.parametrize("blank", ["g17_0e", "g17_nobranch"])
def test_a_tree_without_events_conflicts_with_nothing_and_is_noted(blank, tmp_path):
    whole = tmp_path / "whole.root"
    columns = {"a": np.arange(9, dtype="f4"), "b": np.ones(9, "f4"), "c": np.arange(9, dtype="i4")}
    with uproot.recreate(whole) as out:
        out.mktree("Events", {name: values.dtype for name, values in columns.items()})
        out["Events"].extend(columns)
    empty = FAULTS / f"{blank}.root"
    for listed in (f"[{empty}, {whole}]", f"[{whole}, {empty}]"):
        plan = planned(tmp_path, [listed, FAULTS / "g17_1.root"])
        assert plan.num_events_of("s0") == 9
        assert plan.notes == (f"1 of 3 files hold no events, the first: {empty}",)
        assert [branch.dtype for branch in plan.branches] == ["float32", "float32", "int32"]
    with pytest.raises(DataError, match="sample 's0' is empty: 1 readable files hold no events"):
        planned(tmp_path, [empty, FAULTS / "g17_1.root"])
    with pytest.raises(DataError, match="hold no events"):
        planned(tmp_path, [empty, FAULTS / f"g17_{'nobranch' if blank == 'g17_0e' else '0e'}.root"])


@pytest.mark.parametrize("label", [0, 1])
def test_half_precision_is_read_as_single_precision(label):
    plan, events = events_of(FAULTS / f"n04_{label}.root")
    assert {branch.dtype for branch in plan.branches.values()} == {"float32"}
    assert {values.dtype for values in events.contents.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(events.contents["half"], ENTRIES / 2)


@pytest.mark.parametrize("label", [0, 1])
def test_a_field_that_cannot_be_read_does_not_cost_its_file(label):
    plan, events = events_of(FAULTS / f"n01_{label}.root")
    assert {"met", "Jet_pt"} <= plan.branches.keys()
    assert len(events.contents["met"]) == 300


@pytest.mark.slow
@pytest.mark.parametrize("is_flushed", [False, True], ids=["in its basket", "in the tree"])
def test_a_branch_that_says_more_entries_than_its_baskets_hold_gives_no_values(
    is_flushed, tmp_path
):
    file = tmp_path / "lie.root"
    script = """
from array import array
file = ROOT.TFile(sys.argv[1], "recreate")
tree = ROOT.TTree("Events", "")
x, y, n, pt = array("f", [0]), array("f", [0]), array("i", [0]), array("f", [0] * 4)
all_of, some = tree.Branch("x", x, "x/F"), tree.Branch("y", y, "y/F")
counter, jagged = tree.Branch("n", n, "n/I"), tree.Branch("pt", pt, "pt[n]/F")
for i in range(300):
    x[0], y[0], n[0] = i, i, i % 4
    all_of.Fill()
    jagged.Fill()
    if i < 200:
        some.Fill()
        counter.Fill()
    if i % 90 == 89 and sys.argv[2] == "True":
        tree.FlushBaskets()
tree.SetEntries(300)
some.SetEntries(300)
counter.SetEntries(300)
tree.Write()
file.Close()
"""
    run_in_root(script, str(file), str(is_flushed))
    plan = plan_file(str(file), "Events", "s")
    for start, stop in ((0, 300), (150, 250), (250, 300)):
        part = plan.planned([]).partition(start, stop)
        np.testing.assert_array_equal(
            read(part, [plan.branches["x"]]).contents["x"], np.arange(start, stop)
        )
        for name in () if is_flushed else ("y", "n", "pt"):
            with pytest.raises(DataError, match=r"200 entries"):
                read(part, [plan.branches[name]])
    if is_flushed:
        assert list(plan.branches) == ["x"]
        reason = "filled for 200 of 300 entries"
        of_list = f"counted by 'n', which is {reason}"
        assert plan.left_out == {"y": reason, "n": reason, "pt": of_list}


@pytest.mark.slow
def test_a_branch_whose_name_is_no_utf_8_is_left_out_when_it_is_planned(tmp_path):
    script = r"""
ROOT.gInterpreter.Declare(r'''
#include <TFile.h>
#include <TTree.h>
void write(const char* path) {
  TFile file(path, "recreate");
  TTree tree("Events", "");
  float value;
  int count = 1;
  tree.Branch("\xb5_pt", &value, "v/F");
  tree.Branch("\xc2\xb5_eta", &value, "v/F");
  tree.Branch("n\xb5", &count, "n\xb5/I");
  tree.Branch("pt", &value, "pt[n\xb5]/F");
  for (int i = 0; i < 20; i++) { value = i; tree.Fill(); }
  tree.Write();
}
''')
ROOT.write(sys.argv[1])
"""
    files = [tmp_path / f"{label}.root" for label in (0, 1)]
    for file in files:
        run_in_root(script, str(file))
    plan = planned(tmp_path, files)
    assert [branch.name for branch in plan.branches] == ["pt", "\u00b5_eta"]
    assert r"\udcb5_pt" in plan.selection.left_out
    assert "no UTF-8" in plan.selection.left_out[r"\udcb5_pt"]
    assert all(branch.collection is None or branch.collection.encode() for branch in plan.branches)
    _, events = events_of(files[0])
    np.testing.assert_array_equal(events.contents["pt"], np.arange(20))


def test_fields_of_an_rntuple_with_dots_in_their_names_are_read(tmp_path):
    counts = ENTRIES % 3
    tags = ak.unflatten(np.arange(counts.sum()), counts)
    columns = {
        "dnn.x": ENTRIES * 0.5,
        "jet.tag": tags,
        "a.b": ENTRIES * 1.0,
        "a": ak.zip({"b": ENTRIES * -1.0}),
        "jet": ak.zip({"tag": tags * 7, "w.x": tags}),
        "my.jet": ak.zip({"pt": tags}),
    }
    with uproot.recreate(tmp_path / "dots.root") as file:
        file.mkrntuple("Events", columns)
    plan, events = events_of(tmp_path / "dots.root")
    np.testing.assert_array_equal(events.contents["dnn.x"], columns["dnn.x"])
    np.testing.assert_array_equal(events.contents["a.b"], columns["a.b"])
    np.testing.assert_array_equal(events.contents["a_b"], -columns["a.b"])
    np.testing.assert_array_equal(events.contents["jet.tag"], ak.flatten(tags))
    np.testing.assert_array_equal(events.contents["jet_tag"], ak.flatten(tags) * 7)
    assert plan.left_out.keys() == {"jet_w_x", "my.jet"}
    assert all("a dot in a name" in reason for reason in plan.left_out.values())


@pytest.mark.slow
def test_an_array_or_leaf_list_of_other_entries_in_the_second_file_is_told_as_such(tmp_path):
    script = """
ROOT.gInterpreter.Declare('''
#include <TFile.h>
#include <TTree.h>
void write(const char* path, int more) {
  TFile file(path, "recreate");
  TTree tree("Events", "");
  float p3[3] = {1, 2, 3};
  struct { float x; int y; } ev{1, 2};
  auto* array = tree.Branch("p3", p3, "p3[3]/F");
  auto* leaves = tree.Branch("ev", &ev, "x/F:y/I");
  for (int i = 0; i < 30; i++) tree.Fill();
  if (more & 1) array->Fill();
  if (more & 2) leaves->Fill();
  tree.Write();
}
''')
for more in range(3):
    ROOT.write(sys.argv[1 + more], more)
"""
    files = [tmp_path / f"{more}.root" for more in range(3)]
    run_in_root(script, *map(str, files))
    for file, name in zip(files[1:], (r"p3\[0\]", r"ev\.x"), strict=True):
        expected = rf"branch '{name}' is filled for 31 of 30 entries in tree 'Events' of {file}"
        with pytest.raises(DataError, match=expected):
            planned(tmp_path, [files[0], file])


@pytest.mark.slow
def test_fields_that_came_late_are_read_as_root_reads_them_and_noted(tmp_path):
    script = """
import os
model = ROOT.RNTupleModel.Create()
model.MakeField["float"]("a")
writer = ROOT.RNTupleWriter.Recreate(ROOT.std.move(model), "Events", sys.argv[1])
entry = writer.CreateEntry()
for i in range(200):
    entry["a"] = i
    writer.Fill(entry)
updater = writer.CreateModelUpdater()
updater.BeginUpdate()
for name, kind in (("late", "std::int32_t"), ("pt", "std::vector<float>")):
    updater.AddField(ROOT.RFieldBase.Create(name, kind).Unwrap())
updater.CommitUpdate()
entry = writer.CreateEntry()
for i in range(200, 300):
    entry["a"] = i
    entry["late"] = i
    entry["pt"] = [i] * (i % 3)
    writer.Fill(entry)
del writer
reader = ROOT.RNTupleReader.Open("Events", sys.argv[1])
late, pt = reader.GetView["std::int32_t"]("late"), reader.GetView["std::vector<float>"]("pt")
print([[late(i), list(pt(i))] for i in range(300)], flush=True)
os._exit(0)  # ROOT's own end of Python looks at what the model had
"""
    file = str(tmp_path / "late.root")
    expected = json.loads(run_in_root(script, file))
    _, events = events_of(file)
    assert events.contents["late"].tolist() == [late for late, _ in expected]
    assert events.contents["late"][[0, 199, 200]].tolist() == [0, 0, 200]
    assert events.to_awkward()["pt"].tolist() == [pt for _, pt in expected]
    other = tmp_path / "other.root"
    with uproot.recreate(other) as out:
        out.mkrntuple("Events", {"a": np.ones(9, np.float32), "late": np.ones(9, np.int32)})
    (note,) = planned(tmp_path, [file, other], "branches: {include: [a, late]}").notes
    assert note.startswith(f"late of {file}: added while the file was written; earlier entries")
    assert not planned(tmp_path, [file, other], "branches: {include: [a]}").notes


@pytest.mark.slow
def test_the_bits_of_objects_that_others_refer_to_do_not_cost_their_file(tmp_path):
    script = """
file = ROOT.TFile(sys.argv[1], "recreate")
tree = ROOT.TTree("Events", "")
array = ROOT.TClonesArray("TVector2")
tree.Branch("Particle", array)
for i in range(20):
    array.Clear()
    for k in range(i % 4):
        reference = ROOT.TRef(array.ConstructedAt(k))  # such an object keeps two bytes more
        array.At(k).Set(float(i), float(k))
    tree.Fill()
tree.Write()
file.Close()
"""
    file = tmp_path / "referred.root"
    run_in_root(script, str(file))
    plan, events = events_of(file)
    i, counts = np.arange(20), np.arange(20) % 4
    (x,) = (name for name in plan.branches if name.endswith("fX"))
    np.testing.assert_array_equal(events.contents[x], np.repeat(i, counts))
    assert not any("fBits" in name for name in (*plan.branches, *plan.left_out))
    (number,) = (name for name in plan.left_out if name.endswith("fUniqueID"))
    assert plan.left_out[number] == "the number of an object in the process that wrote it"
    with uproot.open(file) as opened:  # which does not know how many there are
        (holder,) = opened["Events"].iterkeys(filter_name="*fBits")
        assert opened["Events"][holder].basket(0).data.nbytes == 6 * counts.sum()


@pytest.mark.parametrize("kind", ["flat", "jagged"])
def test_booleans_are_true_whatever_byte_says_so(tmp_path, kind):
    path = tmp_path / "a.root"
    bits = np.array([0, 1, 255, 2, 0], np.uint8).view(bool)
    values = bits if kind == "flat" else ak.unflatten(bits, [2, 0, 1, 2, 0])
    with uproot.recreate(path) as out:
        out.mktree("Events", {"b": "bool" if kind == "flat" else "var * bool"})
        out["Events"].extend({"b": values})
    with uproot.open(path) as opened:
        raw = ak.to_numpy(ak.flatten(opened["Events"]["b"].array(), axis=None))
        assert raw.view(np.uint8).tolist() == [0, 1, 255, 2, 0]
    plan, events = events_of(path)
    assert events.contents["b"].view(np.uint8).tolist() == [0, 1, 1, 1, 0]
    meter = Meter(entry_keys(0, 0, plan.num_entries))
    part = plan.planned([]).partition(0, plan.num_entries)
    read(part, [plan.branches["b"]], meter)
    for found in (measure(events, sample="s"), measure(events, sample="s", meter=meter)):
        moments = found.branches["b"].moments
        assert (moments.min, moments.max, moments.mean) == (0, 1, 0.6)


@pytest.mark.slow
@pytest.mark.parametrize("planned", [["Jet_pt", "met"], []])
def test_baskets_that_do_not_tell_where_entries_begin_may_be_cut(tmp_path, planned):
    script = """
from array import array
file = ROOT.TFile(sys.argv[1], "recreate")
tree = ROOT.TTree("Events", "")
features = ROOT.TIOFeatures()
features.Set(ROOT.Experimental.EIOFeatures.kGenerateOffsetMap)
tree.SetIOFeatures(features)
n, pt, met = array("i", [0]), array("f", [0] * 8), array("f", [0])
tree.Branch("nJet", n, "nJet/I", 1000)
tree.Branch("Jet_pt", pt, "Jet_pt[nJet]/F", 2000)
tree.Branch("Jet_eta", pt, "Jet_eta[nJet]/F", 700)
tree.Branch("met", met, "met/F", 500)
for i in range(1000):
    n[0] = i % 4
    met[0] = i
    for k in range(n[0]):
        pt[k] = i + k / 8
    tree.Fill()
tree.Write()
file.Close()
"""
    file = tmp_path / "plain.root"
    run_in_root(script, str(file))
    plan = plan_file(str(file), "Events", "s")
    branches = [plan.branches[name] for name in ("Jet_pt", "met", "Jet_eta")[: len(planned) or 3]]
    parts = plan.planned(planned).partitions(target_bytes=2**30, max_events=130, num_entries=1000)
    assert len(parts) > 7
    with counting() as counts:
        events = [read(part, branches) for part in parts]
    assert not counts.by_uproot
    i = np.arange(1000)
    k = np.concatenate([np.arange(n) for n in i % 4])
    for name in {branch.name for branch in branches} - {"met"}:
        found = np.concatenate([each.contents[name] for each in events])
        np.testing.assert_array_equal(found, np.repeat(i, i % 4) + k / 8)
    np.testing.assert_array_equal(np.concatenate([each.contents["met"] for each in events]), i)
    found = np.concatenate([np.diff(each.offsets["Jet"]) for each in events])
    np.testing.assert_array_equal(found, i % 4)
