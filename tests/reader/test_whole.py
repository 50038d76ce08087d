"""Objects that were not split, of all kinds: their values are those that ROOT itself reads."""

import json
import re

import numpy as np
import pytest
import uproot
from root_process import run_in_root

from mlaas4hep_dask.reader import plan_file, read
from mlaas4hep_dask.reader.shapes import UnfitShapeError
from mlaas4hep_dask.reader.whole import Whole

pytestmark = pytest.mark.slow  # ROOT is a process of its own

NUM_ENTRIES = 40
CLASSES = """
#include "Math/Vector4D.h"
#include "TClonesArray.h"
#include "TFile.h"
#include "TLorentzVector.h"
#include "TObject.h"
#include "TRef.h"
#include "TString.h"
#include "TTree.h"
#include <map>
#include <string>
#include <vector>
struct Point { float x; int layer; unsigned short bits; long long id; };
struct Jet {
  ROOT::Math::PtEtaPhiMVector p4;
  float btag;
  int id[2][2];
  Double32_t pull[2]; //[-5,5,10] in units of its error
  Float16_t half;
  Double32_t few; //[0,0,8]
  Double32_t plain;
};
struct Lepton { TLorentzVector p4; char charge; bool is_good; Point at; };
class Hit : public TObject {
 public:
  float x = 0;
  int q[2] = {0, 0};
  Double32_t t = 0; //[0,100,15]
  bool is_good = false;
  TVector3 at;
  ClassDef(Hit, 2)
};
class Base { public: float b = 0; float c = 0; ClassDef(Base, 3) };
class Derived : public Base { public: int d = 0; ClassDef(Derived, 4) };
class Named : public TObject { public: float x = 1; TString name; ClassDef(Named, 1) };
class Heir : public Hit { public: float more = 0; ClassDef(Heir, 1) };
struct WithList { float y = 1; std::map<int, float> values; };

std::map<std::string, std::vector<std::vector<double>>> found;
int entry = -1;
void put(const char *name, double value) {
  auto &of = found[name];
  of.resize(entry + 1);
  of.back().push_back(value);
}
void put(const std::string &name, const TLorentzVector &v) {
  put((name + ".px").c_str(), v.Px()); put((name + ".py").c_str(), v.Py());
  put((name + ".pz").c_str(), v.Pz()); put((name + ".E").c_str(), v.E());
}
void put(const std::string &name, const Point &p) {
  put((name + ".x").c_str(), p.x); put((name + ".layer").c_str(), p.layer);
  put((name + ".bits").c_str(), p.bits); put((name + ".id").c_str(), p.id);
}
void put(const std::string &name, const Jet &j) {
  put((name + ".p4.pt").c_str(), j.p4.Pt()); put((name + ".p4.eta").c_str(), j.p4.Eta());
  put((name + ".p4.phi").c_str(), j.p4.Phi()); put((name + ".p4.mass").c_str(), j.p4.M());
  put((name + ".btag").c_str(), j.btag); put((name + ".half").c_str(), j.half);
  put((name + ".few").c_str(), j.few); put((name + ".plain").c_str(), j.plain);
  for (int a = 0; a < 2; ++a) {
    put(Form("%s.pull[%d]", name.c_str(), a), j.pull[a]);
    for (int b = 0; b < 2; ++b) put(Form("%s.id[%d]", name.c_str(), 2 * a + b), j.id[a][b]);
  }
}
void put(const std::string &name, const Lepton &c) {
  put(name + ".p4", c.p4); put(name + ".at", c.at);
  put((name + ".charge").c_str(), c.charge); put((name + ".is_good").c_str(), c.is_good);
}
void put(const std::string &name, const Hit &h) {
  put((name + ".x").c_str(), h.x); put((name + ".t").c_str(), h.t);
  put((name + ".q[0]").c_str(), h.q[0]); put((name + ".q[1]").c_str(), h.q[1]);
  put((name + ".is_good").c_str(), h.is_good); put((name + ".at.x").c_str(), h.at.X());
  put((name + ".at.y").c_str(), h.at.Y()); put((name + ".at.z").c_str(), h.at.Z());
}
void put(const std::string &name, const Derived &o) {
  put((name + ".b").c_str(), o.b); put((name + ".c").c_str(), o.c);
  put((name + ".d").c_str(), o.d);
}
Point point(int i, int k) {
  return {k + i / 3.f, k - i, (unsigned short)(60000 + i), 1LL << (40 + k)};
}
Jet jet(int i, int k) {
  Jet j;
  j.p4.SetCoordinates(20. + i / 3., .1 * k, .2 * k, .5 + k);
  j.btag = k / 7.f;
  for (int a = 0; a < 2; ++a) {
    j.pull[a] = a + k / 3. - 2;
    for (int b = 0; b < 2; ++b) j.id[a][b] = 100 * i + 10 * a + b;
  }
  j.half = i / 3.; j.few = -i / 7.; j.plain = i / 11. + k;
  return j;
}
Lepton cand(int i, int k) {
  return {TLorentzVector(k + i / 3., k / 7., -i, 300 + k), (char)(k - 1), k % 2 == 0, point(i, k)};
}
void fill(Hit &h, int i, int k) {
  h.x = k + i / 3.f; h.q[0] = i; h.q[1] = -k; h.t = 10 * k + i / 7.; h.is_good = k % 2;
  h.at.SetXYZ(i, k, i / 7.);
}
struct All {
  TClonesArray lv{"TLorentzVector"}, hits{"Hit"}, own{"Hit"}, named{"Named"}, heirs{"Heir"};
  std::vector<Point> points; std::vector<Jet> jets; std::vector<Lepton> cands;
  std::vector<Derived> derived;
  Jet jet; Lepton cand; Derived one; WithList list;
};
void write(const char *path, int size) {
  TFile file(path, "recreate", "", 0);
  auto tree = new TTree("Events", "");
  All a;
  TClonesArray *arrays[] = {&a.lv, &a.hits, &a.own, &a.named, &a.heirs};
  const char *names[] = {"lv", "hits", "own", "named", "heirs"};
  a.own.BypassStreamer(false);
  for (int n = 0; n < 5; ++n) tree->Branch(names[n], arrays[n], 900, 0);
  tree->Branch("points", &a.points, 900, 0); tree->Branch("jets", &a.jets, 900, 0);
  tree->Branch("cands", &a.cands, 900, 0); tree->Branch("derived", &a.derived, 900, 0);
  tree->Branch("jet", &a.jet, 900, 0); tree->Branch("cand", &a.cand, 900, 0);
  tree->Branch("one", &a.one, 900, 0); tree->Branch("list", &a.list, 900, 0);
  for (int i = 0; i < size; ++i) {
    for (auto array : arrays) array->Clear("C");
    a.points.clear(); a.jets.clear(); a.cands.clear(); a.derived.clear();
    for (int k = 0; k < 7 * i % 4; ++k) {
      auto v = (TLorentzVector *)a.lv.ConstructedAt(k);
      v->SetPxPyPzE(k + i / 3., k, -i / 7., 100 + k);
      fill(*(Hit *)a.hits.ConstructedAt(k), i, k);
      fill(*(Hit *)a.own.ConstructedAt(k), i, k);
      ((Named *)a.named.ConstructedAt(k))->x = k;
      fill(*(Hit *)a.heirs.ConstructedAt(k), i, k);
      a.points.push_back(point(i, k)); a.jets.push_back(jet(i, k)); a.cands.push_back(cand(i, k));
      Derived d; d.b = k; d.c = i; d.d = i + k; a.derived.push_back(d);
    }
    a.jet = jet(i, 1); a.cand = cand(i, 2); a.one.b = i; a.one.c = i / 3.f; a.one.d = -i;
    tree->Fill();
  }
  tree->Write();
}
void values(const char *path) {
  TFile file(path);
  auto tree = file.Get<TTree>("Events");
  TClonesArray *lv = nullptr, *hits = nullptr, *own = nullptr;
  std::vector<Point> *points = nullptr; std::vector<Jet> *jets = nullptr;
  std::vector<Lepton> *cands = nullptr;
  Jet *jet = nullptr; Lepton *cand = nullptr; Derived *one = nullptr;
  tree->SetBranchAddress("lv", &lv); tree->SetBranchAddress("hits", &hits);
  tree->SetBranchAddress("own", &own); tree->SetBranchAddress("points", &points);
  tree->SetBranchAddress("jets", &jets); tree->SetBranchAddress("cands", &cands);
  tree->SetBranchAddress("jet", &jet); tree->SetBranchAddress("cand", &cand);
  tree->SetBranchAddress("one", &one);
  for (entry = 0; entry < tree->GetEntries(); ++entry) {
    tree->GetEntry(entry);
    for (auto o : *lv) put("lv", *(TLorentzVector *)o);
    for (auto o : *hits) put("hits", *(Hit *)o);
    for (auto o : *own) put("own", *(Hit *)o);
    for (auto &o : *points) put("points", o);
    for (auto &o : *jets) put("jets", o);
    for (auto &o : *cands) put("cands", o);
    put("jet", *jet); put("cand", *cand); put("one", *one);
  }
  for (auto &[name, lists] : found) {
    printf("\\nvalues [\\"%s\\", [", name.c_str());
    for (int i = 0; i < entry; ++i) {
      printf("%s[", i ? ", " : "");
      if (i < (int)lists.size())
        for (size_t k = 0; k < lists[i].size(); ++k) printf("%s%.17g", k ? ", " : "", lists[i][k]);
      printf("]");
    }
    printf("]]");
  }
  printf("\\n");
  fflush(stdout);
}
#ifdef __ROOTCLING__
#pragma link C++ struct Point+;
#pragma link C++ struct Jet+;
#pragma link C++ struct Lepton+;
#pragma link C++ struct WithList+;
#pragma link C++ class Hit+;
#pragma link C++ class Base+;
#pragma link C++ class Derived+;
#pragma link C++ class Named+;
#pragma link C++ class Heir+;
#pragma link C++ class std::vector<Point>+;
#pragma link C++ class std::vector<Jet>+;
#pragma link C++ class std::vector<Lepton>+;
#pragma link C++ class std::vector<Derived>+;
#pragma link C++ function write;
#pragma link C++ function values;
#endif
"""
RUN = """
ROOT.gROOT.LoadMacro(sys.argv[1] + "/classes.C+")
ROOT.write(sys.argv[1] + "/whole.root", int(sys.argv[2]))
ROOT.values(sys.argv[1] + "/whole.root")
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file, and by branch the values that ROOT reads of every entry."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "classes.C").write_text(CLASSES)
    said = run_in_root(RUN, str(folder), str(NUM_ENTRIES)).splitlines()
    lines = [line.removeprefix("values ") for line in said if line.startswith("values ")]
    return folder / "whole.root", dict(map(json.loads, lines))


@pytest.mark.parametrize(("start", "stop"), [(0, NUM_ENTRIES), (11, 32), (0, 1), (4, 5), (5, 5)])
def test_objects_that_were_not_split_have_the_bits_that_root_reads(written, start, stop):
    file, expected = written
    plan = plan_file(str(file), "Events", "s")
    assert plan.branches.keys() == expected.keys()
    branches = list(plan.branches.values())
    events = read(plan.planned(list(plan.branches)).partition(start, stop), branches)
    for name, values in expected.items():
        branch, own = plan.branches[name], values[start:stop]
        if branch.kind == "jagged":
            assert branch.collection == name.split(".")[0]
            counts = np.diff(events.offsets[branch.collection])
            assert counts.tolist() == [len(each) for each in own], name
        flat = np.array([value for each in own for value in each], branch.dtype)
        assert events.contents[name].tobytes() == flat.tobytes(), name


def test_objects_that_are_left_out_say_what_they_are_and_what_to_do(written):
    told = plan_file(str(written[0]), "Events", "s").left_out
    end = "; write the branch with a split level of 99"
    has = ", which was not split, and has "
    assert told["named"] == f"a TClonesArray of Named{has}'name' of type TString{end}"
    assert told["heirs"] == f"a TClonesArray of Heir{has}the base class Hit{end}"
    assert {name.split(".")[0] for name in told} == {"named", "heirs", "list", "derived"}
    assert "(WithList, which was not split: " in told["list.y"]
    assert "members of the base class Base, one by one" in told["derived.b"]
    assert all(why.endswith(end) for why in told.values())


@pytest.mark.parametrize("name", ["lv", "hits", "own", "jets", "cands", "jet", "cand", "one"])
def test_bytes_that_are_not_those_of_such_objects_are_refused(written, tmp_path, name):
    """One bit of a head is changed: of the list, and of an object in it."""
    content = written[0].read_bytes()
    with uproot.open({str(written[0]): "Events"}) as tree:
        branch = tree[name]
        begin = int(branch.member("fBasketSeek")[0]) + branch.basket(0).member("fKeylen")
        stop = int(branch.entry_offsets[1])
        data = branch.array(uproot.AsJagged(uproot.AsDtype("u1")), entry_stop=stop, library="np")
    size = sum(map(len, data))
    found = re.finditer(rb"\x40\0\0[^\0]\0", content[begin : begin + size])  # and a version
    heads = [begin + each.start() for each in found]
    assert heads
    for place in {*heads[:1], *heads[-1:]}:
        for byte, bit in ((0, 0x40), (3, 1), (5, 8)):
            changed = bytearray(content)
            changed[place + byte] ^= bit
            (tmp_path / "damaged.root").write_bytes(changed)
            plan = plan_file(str(tmp_path / "damaged.root"), "Events", "s")
            assert not [each for each in plan.branches if each.split(".")[0] == name]


def test_another_class_than_the_entries_have_is_refused(written):
    with uproot.open({str(written[0]): "Events"}) as tree:
        with pytest.raises(UnfitShapeError, match="objects of Hit;2, which is no TLorentzVector"):
            Whole("TClonesArray", "TLorentzVector").read(tree["hits"], 0, NUM_ENTRIES)
        with pytest.raises(UnfitShapeError, match="another Lepton than the file describes"):
            Whole("vector", "Lepton").read(tree["jets"], 0, NUM_ENTRIES)
        with pytest.raises(UnfitShapeError, match="Lepton"):
            Whole("object", "Lepton").read(tree["jet"], 0, NUM_ENTRIES)


SWAPPED = """
folder, name, members = sys.argv[1:]
with open(f"{folder}/{name}.C", "w") as file:
    file.write("struct Swapped { %s };\\n" % members)
    file.write("#ifdef __ROOTCLING__\\n#pragma link C++ struct Swapped+;\\n#endif\\n")
ROOT.gROOT.LoadMacro(f"{folder}/{name}.C+")
ROOT.gInterpreter.Declare('''
void write(const char *path) {
  TFile file(path, "recreate");
  auto tree = new TTree("Events", "");
  Swapped one;
  tree->Branch("one", &one, 32000, 0);
  for (int i = 0; i < 20; ++i) { one.x = i / 2.f; one.n = 100 + i; tree->Fill(); }
  tree->Write();
}''')
ROOT.write(f"{folder}/{name}.root")
"""


def test_classes_of_one_name_in_two_files_are_not_mixed_up(tmp_path):
    """uproot reads the second file with the members of the first one's class."""
    for name, members in (("first", "float x; int n;"), ("second", "int n; float x;")):
        run_in_root(SWAPPED, str(tmp_path), name, members)
    for name in ("first", "second", "first"):
        plan = plan_file(str(tmp_path / f"{name}.root"), "Events", "s")
        part = plan.planned(list(plan.branches)).partition(0, 20)
        events = read(part, list(plan.branches.values()))
        assert events.contents["one.x"].tolist() == [i / 2 for i in range(20)]
        assert events.contents["one.n"].tolist() == [100 + i for i in range(20)]
