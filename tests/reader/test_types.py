"""Arrays, leaf lists, structs and vectors of ROOT: what they offer, and its values."""

import awkward as ak
import numpy as np
import pytest
import uproot
from paths import FAULTS
from root_process import run_in_root
from test_odd_files import configured

from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.derive.recipe import Recipe
from mlaas4hep_dask.errors import ExpressionError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.reader import plan_file, read

I = np.arange(300)  # noqa: E741  # the entry number, as the files' description has it
COUNTS = (7 * I) % 4
K = np.concatenate([np.arange(count) for count in COUNTS])
OF = np.repeat(I, COUNTS)  # the entry of each object


def events_of(file, tree="Events"):
    plan = plan_file(str(file), tree, "s")
    part = plan.planned([]).partition(0, plan.num_entries)
    return plan, read(part, list(plan.branches.values()))


def assert_values(events, expected, *, rtol=0.0):
    for name, values in expected.items():
        found = events.contents[name]
        np.testing.assert_allclose(found, np.broadcast_to(values, found.shape), rtol, err_msg=name)


@pytest.mark.parametrize("label", [0, 1])
def test_a_leaf_list_gives_each_of_its_leaves(label):
    plan, events = events_of(FAULTS / f"g01_{label}.root")
    assert plan.branches["ev.x"].dtype == "float32"
    assert plan.branches["ev.y"].dtype == "int32"
    assert_values(events, {"ev.x": I / 2 + label, "ev.y": I})


@pytest.mark.parametrize("label", [0, 1])
def test_arrays_give_each_of_their_elements(label):
    plan, events = events_of(FAULTS / f"g02_{label}.root")
    flat = {f"p3[{k}]": I + k for k in range(3)} | {"single[0]": I}
    flat |= {f"mat[{k // 3}][{k % 3}]": I * k for k in range(6)}
    pt = 20 + K + 5 * label + OF
    jagged = {f"jp[{k}]": 3 * K + k for k in range(3)} | {"pt": pt}
    assert_values(events, flat | jagged)
    assert {plan.branches[name].collection for name in jagged} == {plan.branches["pt"].collection}
    assert not plan.left_out
    counts = events.offsets[plan.branches["pt"].collection]
    np.testing.assert_array_equal(np.diff(counts), COUNTS)


@pytest.mark.parametrize("label", [0, 1])
def test_numbers_of_reduced_precision_are_read_as_the_file_keeps_them(label):
    plan, events = events_of(FAULTS / f"g04_{label}.root")
    assert plan.branches["d32r"].dtype == "float64"
    assert plan.branches["f16"].dtype == "float32"
    assert_values(events, {"d32": I / 4 + label, "f16": I / 2, "jd": 2.5 * K})
    np.testing.assert_allclose(events.contents["d32r"], I, atol=500 / 2**12)


@pytest.mark.parametrize("label", [0, 1])
def test_lorentz_vectors_and_members_of_classes_are_read(label):
    plan, events = events_of(FAULTS / f"g07_{label}.root")
    assert {"p4.px", "p4.py", "p4.pz", "p4.E"} <= plan.branches.keys()
    muons = {"muons.px": K + OF, "muons.py": K, "muons.pz": 1 + label, "muons.E": 100 + K}
    hits = {"hits./hits.x": K + 0.25, "hits./hits.layer": K, "hits./hits.q[0]": OF}
    # as ROOT's Scan shows them: vh has other values than hits
    hits |= {"hits./hits.q[1]": -OF, "vh/vh.x": 3 * K + label, "vh/vh.layer": -K}
    assert_values(events, muons | hits)
    np.testing.assert_allclose(events.contents["hits./hits.t"], 10.0 * K, atol=100 / 2**15)
    assert plan.branches["muons.px"].collection == "muons"
    assert plan.branches["hits./hits.q[0]"].collection == "hits"
    assert {name.rpartition(".")[2] for name in plan.left_out} == {"fUniqueID"}


@pytest.mark.parametrize("label", [0, 1])
def test_arrays_of_an_rntuple_give_each_of_their_elements(label):
    plan, events = events_of(FAULTS / f"n01_{label}.root")
    assert [name for name in plan.branches if name.startswith("p3")] == ["p3[0]", "p3[1]", "p3[2]"]
    assert_values(events, {"p3[1]": 1, "p3[2]": 2})


def test_lists_of_records_in_a_record_of_an_rntuple_are_collections_or_left_out_in_words(tmp_path):
    file = tmp_path / "records.root"
    hits = [[{"x": i + k / 4, "layer": k} for k in range(i % 3)] for i in range(9)]
    tracks = [[{"pt": float(i), "hits": each}] for i, each in enumerate(hits)]
    entries = [
        {"event": {"met": {"pt": 2.0 * i}, "hits": hits[i]}, "track": tracks[i]} for i in range(9)
    ]
    with uproot.recreate(file) as out:
        out.mkrntuple("Events", ak.Array(entries))
    plan, events = events_of(file)
    assert {name: branch.collection for name, branch in plan.branches.items()} == {
        "event_met.pt": None,
        "event_hits.x": "event_hits",
        "event_hits.layer": "event_hits",
        "track_pt": "track",
    }
    assert plan.left_out == {"track_hits": "doubly nested (a list of records)"}
    found = events.to_awkward()
    assert found["event_hits.x"].to_list() == [[hit["x"] for hit in each] for each in hits]
    assert found["event_hits.layer"].to_list() == [[hit["layer"] for hit in each] for each in hits]


@pytest.mark.parametrize("label", [0, 1])
def test_a_number_that_is_absent_is_nan(label):
    plan, events = events_of(FAULTS / f"n02_{label}.root")
    assert plan.branches["opt"].dtype == "float32"
    values = events.contents["opt"]
    assert np.isnan(values).any()
    assert not np.isnan(values).all()
    assert plan.left_out.keys() == {"txt", "vv"}


BITS = """
#include <bitset>
#include "TFile.h"
#include "TTree.h"
#ifdef __CLING__
#pragma link C++ class std::bitset<10>+;
#endif
void bits(const char* path) {
  TFile file(path, "recreate");
  TTree tree("Events", "");
  std::bitset<10> flags;
  float met;
  tree.Branch("met", &met);
  tree.Branch("flags", &flags);
  for (int i = 0; i < 50; i++) {
    flags = i * 7;
    met = i;
    tree.Fill();
  }
  tree.Write();
}
"""
OPTIONALS = """
void optionals(const char* path) {
  using namespace std;
  auto model = ROOT::RNTupleModel::Create();
  auto flags = model->MakeField<bitset<10>>("flags");
  auto many = model->MakeField<vector<bitset<3>>>("many");
  auto opts = model->MakeField<vector<optional<float>>>("opts");
  auto hit = model->MakeField<pair<float, optional<double>>>("hit");
  auto hits = model->MakeField<vector<pair<float, optional<int32_t>>>>("hits");
  auto list = model->MakeField<optional<vector<float>>>("list");
  auto writer = ROOT::RNTupleWriter::Recreate(move(model), "Events", path);
  for (int i = 0; i < 50; i++) {
    *flags = i * 7;
    opts->clear();
    hits->clear();
    many->clear();
    for (int k = 0; k < i % 4; k++) {
      opts->push_back(k % 2 ? optional<float>() : optional<float>(i + k));
      hits->push_back({float(k), k % 2 ? optional<int32_t>(i + k) : optional<int32_t>()});
      many->push_back(bitset<3>(k));
    }
    hit->first = i;
    hit->second = i % 5 ? optional<double>(i / 2.) : optional<double>();
    writer->Fill();
  }
}
"""
WRITE_ODD = """
import os
ROOT.gROOT.LoadMacro(sys.argv[1] + "/bits.C+")
ROOT.bits(sys.argv[1] + "/tree.root")
ROOT.gInterpreter.Declare(sys.argv[2])
ROOT.optionals(sys.argv[1] + "/ntuple.root")
"""


@pytest.mark.slow
def test_bits_and_numbers_that_may_be_absent_are_read_wherever_they_stand(tmp_path):
    (tmp_path / "bits.C").write_text(BITS)
    run_in_root(WRITE_ODD, str(tmp_path), OPTIONALS)
    i, counts = np.arange(50), np.arange(50) % 4
    k, of = np.concatenate([np.arange(n) for n in counts]), np.repeat(i, counts)
    bits = 7 * i[:, None] >> np.arange(10) & 1 == 1  # the lowest comes first
    plan, events = events_of(tmp_path / "tree.root")
    assert not plan.left_out
    assert plan.branches["flags"].described() == "jagged bool (collection 'flags')"
    np.testing.assert_array_equal(events.contents["flags"].reshape(50, 10), bits)
    plan, events = events_of(tmp_path / "ntuple.root")
    assert plan.left_out.keys() == {"list"}
    expected = {f"flags[{bit}]": bits[:, bit] for bit in range(10)}
    expected |= {f"many[{bit}]": k >> bit & 1 == 1 for bit in range(3)}
    expected |= {"opts": np.where(k % 2, np.nan, of + k), "hits.0": k, "hit.0": i}
    expected |= {"hits.1": np.where(k % 2, of + k, np.nan), "hit.1": np.where(i % 5, i / 2, np.nan)}
    assert expected.keys() == plan.branches.keys()
    assert_values(events, expected)
    np.testing.assert_array_equal(np.diff(events.offsets["hits"]), counts)


CLASSES = """
#include "Math/Vector4D.h"
#include "Math/Vector3D.h"
#include "Math/Vector2D.h"
#include "TLorentzVector.h"
#include "TVector3.h"
#include "TObject.h"
#include <array>
#include <vector>
using Light = ROOT::Math::LorentzVector<ROOT::Math::PtEtaPhiM4D<float>>;
struct Jet {
  ROOT::Math::PtEtaPhiMVector p4;
  float btag;
  int id[2];
};
struct Cand {
  TLorentzVector p4;
  int charge;
};
class Part : public TObject {
 public:
  ROOT::Math::PxPyPzEVector p4;
  TLorentzVector old;
  TVector3 vtx;
  float x;
  ClassDef(Part, 1)
};
#ifdef __ROOTCLING__
#pragma link C++ struct Jet+;
#pragma link C++ struct Cand+;
#pragma link C++ class Part+;
#pragma link C++ class std::vector<Jet>+;
#pragma link C++ class std::vector<Cand>+;
#pragma link C++ class std::vector<TVector3>+;
#pragma link C++ class ROOT::Math::LorentzVector<ROOT::Math::PtEtaPhiM4D<float>>+;
#pragma link C++ class std::vector<ROOT::Math::LorentzVector<ROOT::Math::PtEtaPhiM4D<float>>>+;
#pragma link C++ class std::vector<ROOT::Math::PtEtaPhiMVector>+;
#pragma link C++ class std::vector<ROOT::Math::PxPyPzEVector>+;
#pragma link C++ class std::vector<ROOT::Math::XYZVector>+;
#endif
"""
WRITE = """
ROOT.gROOT.LoadMacro(sys.argv[2] + "+")
M = ROOT.Math
vector, clones = ROOT.std.vector, ROOT.TClonesArray
for split in (0, 1, 99):
    file = ROOT.TFile(f"{sys.argv[1]}/{split}.root", "recreate")
    tree = ROOT.TTree("Events", "")
    flat = {
        "lv": ROOT.TLorentzVector(), "ptm": M.PtEtaPhiMVector(), "pte": M.PtEtaPhiEVector(),
        "pxe": M.PxPyPzEVector(), "pxm": M.PxPyPzMVector(), "light": ROOT.Light(),
        "xyz": M.XYZVector(), "pol": M.Polar3DVector(), "rep": M.RhoEtaPhiVector(),
        "xy": M.XYVector(), "v3": ROOT.TVector3(),
    }
    many = {
        "vlv": vector["TLorentzVector"](), "vptm": vector["ROOT::Math::PtEtaPhiMVector"](),
        "vpxe": vector["ROOT::Math::PxPyPzEVector"](), "vlight": vector["Light"](),
        "vxyz": vector["ROOT::Math::XYZVector"](), "v3s": vector["TVector3"](),
        "jets": vector["Jet"](), "cands": vector["Cand"](),
    }
    arrays = {"clv": clones("TLorentzVector"), "parts": clones("Part")}
    for name, thing in {**flat, **many, **arrays}.items():
        tree.Branch(name, thing, 32000, split)
    for i in range(30):
        q = M.PtEtaPhiMVector(20.0 + i, 0.1, 0.2, 0.5)
        old = ROOT.TLorentzVector(q.px(), q.py(), q.pz(), q.E())
        flat["lv"].SetPxPyPzE(q.px(), q.py(), q.pz(), q.E())
        for name in ("ptm", "light"):
            flat[name].SetCoordinates(20.0 + i, 0.1, 0.2, 0.5)
        flat["pte"].SetCoordinates(20.0 + i, 0.1, 0.2, q.E())
        flat["pxe"].SetCoordinates(q.px(), q.py(), q.pz(), q.E())
        flat["pxm"].SetCoordinates(q.px(), q.py(), q.pz(), 0.5)
        flat["xyz"].SetCoordinates(i, 2 * i, 3 * i)
        flat["v3"].SetXYZ(i, 2 * i, 3 * i)
        flat["xy"].SetCoordinates(i, 2 * i)
        flat["pol"].SetCoordinates(1 + i, 0.5, 0.25)
        flat["rep"].SetCoordinates(1 + i, 0.5, 0.25)
        for one in many.values():
            one.clear()
        for one in arrays.values():
            one.Clear()
        for k in range(7 * i % 4):
            q = M.PtEtaPhiMVector(20.0 + i + k, 0.1 * k, 0.2 * k, 0.5 + k)
            old = ROOT.TLorentzVector(q.px(), q.py(), q.pz(), q.E())
            many["vlv"].push_back(old)
            many["vptm"].push_back(q)
            many["vpxe"].push_back(M.PxPyPzEVector(q.px(), q.py(), q.pz(), q.E()))
            many["vlight"].push_back(ROOT.Light(q.pt(), q.eta(), q.phi(), q.M()))
            many["vxyz"].push_back(M.XYZVector(i, k, i + k))
            many["v3s"].push_back(ROOT.TVector3(i, k, i + k))
            jet = ROOT.Jet()
            jet.p4.SetCoordinates(q.pt(), q.eta(), q.phi(), q.M())
            jet.btag, jet.id[0], jet.id[1] = k, i, k
            many["jets"].push_back(jet)
            cand = ROOT.Cand()
            cand.p4, cand.charge = old, k
            many["cands"].push_back(cand)
            arrays["clv"].ConstructedAt(k).SetPxPyPzE(q.px(), q.py(), q.pz(), q.E())
            part = arrays["parts"].ConstructedAt(k)
            part.p4.SetCoordinates(q.px(), q.py(), q.pz(), q.E())
            part.old.SetPxPyPzE(q.px(), q.py(), q.pz(), q.E())
            part.vtx.SetXYZ(i, k, i + k)
            part.x = k
        tree.Fill()
    tree.Write()
    file.Close()
"""


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Trees of ROOT's vectors and classes with them, by how far they were split."""
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "classes.C").write_text(CLASSES)
    run_in_root(WRITE, str(folder), str(folder / "classes.C"))
    return {split: folder / f"{split}.root" for split in (0, 1, 99)}


def momenta(pt, eta, phi, mass):
    return {
        "pt": pt, "eta": eta, "phi": phi, "mass": mass,
        "px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pt * np.sinh(eta),
        "E": np.sqrt((pt * np.cosh(eta)) ** 2 + mass**2),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("split", [0, 1, 99])
def test_vectors_have_their_components_however_they_were_split(vectors, split):
    """uproot gives pieces of the heads for those of ROOT::Math that were not split."""
    plan, events = events_of(vectors[split])
    i, counts = np.arange(30), 7 * np.arange(30) % 4
    k, of = np.concatenate([np.arange(n) for n in counts]), np.repeat(i, counts)
    flat = momenta(20.0 + i, 0.1 + 0 * i, 0.2 + 0 * i, 0.5 + 0 * i)
    jagged = momenta(20.0 + of + k, 0.1 * k, 0.2 * k, 0.5 + k)
    found = {}
    for names, values in (
        (("lv", "pxe"), {n: flat[n] for n in ("px", "py", "pz", "E")}),
        (("ptm", "light"), {n: flat[n] for n in ("pt", "eta", "phi", "mass")}),
        (("pte",), {n: flat[n] for n in ("pt", "eta", "phi", "E")}),
        (("pxm",), {n: flat[n] for n in ("px", "py", "pz", "mass")}),
        (("xyz", "v3"), {"x": i, "y": 2 * i, "z": 3 * i}),
        (("xy",), {"x": i, "y": 2 * i}),
        (("pol",), {"r": 1 + i, "theta": 0.5, "phi": 0.25}),
        (("rep",), {"rho": 1 + i, "eta": 0.5, "phi": 0.25}),
        (("vlv", "vpxe"), {n: jagged[n] for n in ("px", "py", "pz", "E")}),
        (("vptm", "vlight"), {n: jagged[n] for n in ("pt", "eta", "phi", "mass")}),
        (("vxyz", "v3s"), {"x": of, "y": k, "z": of + k}),
    ):
        found |= {f"{name}.{part}": values[part] for name in names for part in values}
    assert found.keys() <= plan.branches.keys()
    assert_values(events, found, rtol=1e-6)
    assert plan.branches["vptm.pt"].collection == "vptm"
    split_up = {f"clv.{n}": jagged[n] for n in ("px", "py", "pz", "E")}
    split_up |= {f"parts/parts.old.{n}": jagged[n] for n in ("px", "py", "pz", "E")}
    split_up |= {f"parts/parts.p4.{n}": jagged[n] for n in ("px", "py", "pz", "E")}
    split_up |= {f"jets/jets.p4.{n}": jagged[n] for n in ("pt", "eta", "phi", "mass")}
    split_up |= {f"cands/cands.p4.{n}": jagged[n] for n in ("px", "py", "pz", "E")}
    split_up |= {"jets/jets.id[1]": k, "parts/parts.vtx.z": of + k, "cands/cands.charge": k}
    if not split:
        split_up = {name.rpartition("/")[2]: values for name, values in split_up.items()}
    assert split_up.keys() <= plan.branches.keys()
    assert_values(events, split_up, rtol=1e-6)
    assert {name.rpartition(".")[2] for name in plan.left_out} <= {"fUniqueID"}


OWN = """
#include "TObject.h"
#include "TBuffer.h"
class Own : public TObject {
 public:
  float x = 1;
  ClassDef(Own, 2)
};
void Own::Streamer(TBuffer &buffer) {
  if (!buffer.IsReading()) buffer << x << x;
}
struct WithOwn {
  float y = 2;
  Own own;
};
#ifdef __ROOTCLING__
#pragma link C++ class Own-;
#pragma link C++ struct WithOwn+;
#endif
"""
WRITE_OWN = """
ROOT.gROOT.LoadMacro(sys.argv[1] + "/own.C+")
file = ROOT.TFile(sys.argv[1] + "/own.root", "recreate")
tree = ROOT.TTree("Events", "")
things = ROOT.Own(), ROOT.WithOwn()
for name, thing in zip(("own", "with"), things):
    tree.Branch(name, thing, 32000, 0)
tree.Fill()
tree.Write()
file.Close()
"""


@pytest.mark.slow
def test_a_class_that_writes_itself_is_left_out_in_words(tmp_path):
    (tmp_path / "own.C").write_text(OWN)
    run_in_root(WRITE_OWN, str(tmp_path))
    plan = plan_file(str(tmp_path / "own.root"), "Events", "s")
    assert not plan.branches
    own, other = plan.left_out["own.x"], plan.left_out["with.y"]
    assert own.startswith("of a type that uproot cannot read (Own, which was not split: attempting")
    assert "(WithOwn, which was not split: objects that do not take 12 bytes each)" in other


def recipe_on(file, **texts):
    plan, events = events_of(file)
    recipe = Recipe.of(plan.branches, **texts)
    return recipe, recipe.prepare(events, list(recipe.derived)).events


def test_expressions_take_elements_of_arrays():
    derive = {
        "flat": "p3[0] + 2 * mat[1][2]",
        "first": "jp[1][:, 0]",
        "far": "sum(jp[0][jp[2] > 3])",
        "quoted": "`p3[1]` - p3[1]",
    }
    recipe, events = recipe_on(FAULTS / "g02_1.root", derive=derive)
    assert recipe.steps(["flat"]).read == ("mat[1][2]", "p3[0]")
    assert_values(events, {"flat": I + 2 * 5 * I, "quoted": 0})
    first = np.where(COUNTS > 0, 1.0, np.nan)
    np.testing.assert_array_equal(events.contents["first"], first)
    far = [sum(3 * k for k in range(n) if 3 * k + 2 > 3) for n in COUNTS]
    np.testing.assert_array_equal(events.contents["far"], far)


def test_an_index_of_what_is_no_array_is_still_told_from_objects():
    plan, _ = events_of(FAULTS / "g02_0.root")
    with pytest.raises(ExpressionError, match=r"one object of every event is \[:, 0\]"):
        Recipe.of(plan.branches, derive={"x": "pt[0]"})
    for text in ("p3[7]", "p3 * 2"):
        expected = r"there is no branch 'p3'; it has 'p3\[0\]', 'p3\[1\]', 'p3\[2\]'$"
        with pytest.raises(ExpressionError, match=expected):
            Recipe.of(plan.branches, derive={"x": text})
    with pytest.raises(ExpressionError, match=r"'mat'; it has .*'mat\[1\]\[1\]', …$"):
        Recipe.of(plan.branches, derive={"x": "sum(mat)"})


def test_expressions_take_all_components_of_a_lorentz_vector():
    derive = {
        "pt": "muons.pt", "eta": "muons.eta", "phi": "muons.phi", "mass": "muons.mass",
        "both": "mass(muons[:, 0] + muons[:, 1])", "own": "p4.mass",
    }  # fmt: skip
    recipe, events = recipe_on(
        FAULTS / "g07_1.root", derive=derive, objects={"muons": "muons.pt > 0"}
    )
    px, py, pz, energy = (K + OF).astype(float), K.astype(float), 2.0 + 0 * K, 100.0 + K
    kept = np.hypot(px, py) > 0
    expected = {
        "pt": np.hypot(px, py),
        "eta": np.arcsinh(pz / np.where(kept, np.hypot(px, py), 1)),
        "phi": np.arctan2(py, px),
        "mass": np.copysign(
            np.sqrt(np.abs(energy**2 - px**2 - py**2 - pz**2)), energy**2 - px**2 - py**2 - pz**2
        ),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(events.contents[name], values[kept], 1e-12, err_msg=name)
    assert recipe.steps(["own"]).read == ("p4.E", "p4.px", "p4.py", "p4.pz")
    again = Recipe.of(
        {name: recipe.branches[name] for name in recipe.steps(derive).read},
        derive=recipe.to_json()["derive"],
        objects=recipe.to_json()["objects"],
    )  # as a server makes it of a bundle
    _, raw = events_of(FAULTS / "g07_1.root")
    served = again.prepare(raw, ["pt", "both"]).events
    for name in ("pt", "both"):
        np.testing.assert_array_equal(served.contents[name], events.contents[name])


@pytest.mark.slow
@pytest.mark.parametrize("split", [0, 99])
def test_components_are_made_of_whatever_the_vector_keeps(vectors, split):
    names = ("px", "py", "pz", "energy", "pt", "eta", "phi", "mass")
    i = np.arange(30)
    expected = momenta(20.0 + i, 0.1 + 0 * i, 0.2 + 0 * i, 0.5 + 0 * i)
    expected["energy"] = expected.pop("E")
    for vector in ("lv", "ptm", "pte", "pxe", "pxm", "light"):
        derive = {f"_{n}": f"{vector}.{n}" for n in names}
        _, events = recipe_on(vectors[split], derive=derive)
        for name in names:
            found = events.contents[f"_{name}"]
            np.testing.assert_allclose(found, expected[name], 1e-5, err_msg=f"{vector}.{name}")


def test_patterns_name_elements_and_members(tmp_path):
    files = [FAULTS / f"g02_{label}.root" for label in (0, 1)]
    for lines, inputs in (
        ("branches: {include: [p3]}", ["p3[0]", "p3[1]", "p3[2]"]),
        ('branches: {include: ["p3[1]", "jp*"]}', ["jp[0]", "jp[1]", "jp[2]", "p3[1]"]),
        ("branches: {exclude: [mat, jp, pt, n]}", ["met", "p3[0]", "p3[1]", "p3[2]", "single[0]"]),
        ('branches: {include: ["mat[1]"]}', ["mat[1][0]", "mat[1][1]", "mat[1][2]"]),
    ):
        assert (
            preflight(description_of(configured(tmp_path, files, lines))).selection.inputs == inputs
        )
    files = [FAULTS / f"g07_{label}.root" for label in (0, 1)]
    lines = "branches: {include: [p4, muons.pt, p4.mass]}"
    checked = preflight(description_of(configured(tmp_path, files, lines)))
    expected = ["muons.pt", "p4.E", "p4.mass", "p4.px", "p4.py", "p4.pz"]
    assert checked.selection.inputs == expected


ODD_LEAVES = """
from array import array
file = ROOT.TFile(sys.argv[1], "recreate")
tree = ROOT.TTree("Events", "")
n = array("i", [0])
tree.Branch("n", n, "n/I")
leaves = {
    "half[3]/f[0,10,8]": 3, "wide[3]/d[0,100,14]": 3, "angle[2]/d[-pi,pi,16]": 2, "plain[2]/d": 2,
    "short[n]/f[0,0,10]": 4, "range[n]/d[0,50]": 4, "pairs[n][2]/d[0,100,20]": 8, "ints[64]/S": 64,
    "bits[4]/O": 4, "huge[5000]/F": 5000, "text/C": 8, "mixed[2]/F:one/F": 3,
}
buffers = {}
for leaf, size in leaves.items():
    kind = {"d": "d", "S": "h", "O": "b", "C": "b"}.get(leaf.partition("/")[2][:1], "f")
    buffers[leaf] = array(kind, [0] * size)
    tree.Branch(leaf.partition("/")[0].partition("[")[0], buffers[leaf], leaf)
for i in range(40):
    n[0] = i % 4
    for leaf, buffer in buffers.items():
        for k in range(len(buffer)):
            buffer[k] = k % 2 if leaf.startswith(("bits", "text")) else k + (i % 3)
    tree.Fill()
tree.Write()
file.Close()
"""


@pytest.mark.slow
def test_ranges_of_reduced_precision_are_told_from_lengths_of_arrays(tmp_path):
    """uproot takes the first brackets of the title for the range: 4.6e-42 in place of 20."""
    run_in_root(ODD_LEAVES, str(tmp_path / "leaves.root"))
    plan, events = events_of(tmp_path / "leaves.root")
    i = np.arange(40)
    counts = i % 4
    k, of = np.concatenate([np.arange(n) for n in counts]), np.repeat(i, counts)
    for name, values, precision in (
        *((f"half[{j}]", j + i % 3, 10 / 2**8) for j in range(3)),
        *((f"wide[{j}]", j + i % 3, 100 / 2**14) for j in range(3)),
        *((f"angle[{j}]", j + i % 3, 2 * np.pi / 2**15) for j in range(2)),
        *((f"plain[{j}]", j + i % 3, 0) for j in range(2)),
        ("short", k + of % 3, 2**-8),
        ("range", k + of % 3, 50 / 2**31),
        *((f"pairs[{j}]", 2 * k + j + of % 3, 100 / 2**20) for j in range(2)),
        *((f"ints[{j}]", j + i % 3, 0) for j in (0, 63)),
        *((f"mixed.mixed[{j}]", j + i % 3, 0) for j in range(2)),
        ("mixed.one", 2 + i % 3, 0),
        *((f"bits[{j}]", np.full(40, j % 2), 0) for j in range(4)),
    ):
        found = events.contents[name].astype(float)
        np.testing.assert_allclose(found, values, atol=precision, err_msg=name)
    assert plan.left_out.keys() == {"huge", "text"}
    assert "5,000 elements" in plan.left_out["huge"]
    assert plan.branches["short"].dtype == "float32"
