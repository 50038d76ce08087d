"""Numbers of which ROOT keeps fewer bits, in lists: the values are those that ROOT itself reads."""

import json

import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st
from root_process import run_in_root

from mlaas4hep_dask.reader import plan_file, read
from mlaas4hep_dask.reader.shapes import UnfitShapeError
from mlaas4hep_dask.reader.truncated import Lists, Truncated

pytestmark = pytest.mark.slow  # ROOT is a process of its own

NUM_ENTRIES = 60
CLASSES = """
#include <vector>
struct Holder {
  float a;
  std::vector<Float16_t> f;
  std::vector<Float16_t> r; //[0,10,8]
  std::vector<Double32_t> d; //[0,10,8]
};
#ifdef __ROOTCLING__
#pragma link C++ class std::vector<Float16_t>+;
#pragma link C++ struct Holder+;
#endif
"""
LEAVES = {
    "ranged": "ranged[n][2]/d[0,10,12]",
    "all_bits": "all_bits[n][2]/d[-5,50]",
    "few_bits": "few_bits[n][2]/f[0,10,3]",
    "deep": "deep[n][2][1]/f[0,twopi,30]",
    "half": "half[n][2]/f",
    "wide": "wide[n][2]/d",
}
DOUBLES = {name for name, title in LEAVES.items() if "/d" in title}
WRITE = """
import json
import numpy as np
folder, size, leaves = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
ROOT.gROOT.LoadMacro(folder + "/classes.C+")
file = ROOT.TFile(folder + "/lists.root", "recreate")
tree = ROOT.TTree("Events", "")
n = np.zeros(1, "i4")
tree.Branch("n", n, "n/I")
arrays = {}
for name, title in leaves.items():
    arrays[name] = np.zeros(20, "f8" if "/d" in title else "f4")
    tree.Branch(name, arrays[name], title, 700)
lists = {"v": ROOT.std.vector["Float16_t"]()}
tree.Branch("v", "vector<Float16_t>", lists["v"], 700, 0)
held = ROOT.Holder()
tree.Branch("held.", held, 700, 99)
random = np.random.default_rng(7)
for i in range(size):
    n[0] = 7 * i % 4
    for array in arrays.values():
        array[:] = random.uniform(0, 6, 20)
    for one in (*lists.values(), held.f, held.r, held.d):
        one.clear()
        for value in random.normal(0, 1000, 5 * i % 7):
            one.push_back(value)
    held.a = i
    tree.Fill()
tree.Write()
file.Close()
file = ROOT.TFile(folder + "/lists.root")
tree = file.Get("Events")
found = {}
for i in range(size):
    tree.GetEntry(i)
    for name in leaves:
        leaf = tree.GetLeaf(name)
        for k in range(2):
            values = [leaf.GetValue(2 * m + k) for m in range(7 * i % 4)]
            found.setdefault(f"{name}[{k}]" + "[0]" * (name == "deep"), []).append(values)
    for name in lists:
        found.setdefault(name, []).append(list(map(float, getattr(tree, name))))
    for name in "frd":
        read = getattr(getattr(tree, "held."), name)
        found.setdefault(f"held./held.{name}", []).append(list(map(float, read)))
print("values", json.dumps(found))
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file, and by branch the values that ROOT reads of every entry."""
    folder = tmp_path_factory.mktemp("truncated")
    (folder / "classes.C").write_text(CLASSES)
    said = run_in_root(WRITE, str(folder), str(NUM_ENTRIES), json.dumps(LEAVES))
    found = json.loads(said.split("values ", 1)[1])
    return folder / "lists.root", found


@pytest.mark.parametrize(("start", "stop"), [(0, NUM_ENTRIES), (11, 42), (0, 1), (4, 5), (5, 5)])
def test_truncated_numbers_in_lists_have_the_bits_that_root_reads(written, start, stop):
    file, expected = written
    plan = plan_file(str(file), "Events", "s")
    assert not plan.left_out
    assert plan.branches.keys() == {*expected, "n", "held./held.a"}
    branches = list(plan.branches.values())
    events = read(plan.planned(list(plan.branches)).partition(start, stop), branches)
    for name, values in expected.items():
        branch = plan.branches[name]
        own = values[start:stop]
        assert branch.dtype == ("float64" if name[:-3] in DOUBLES or name[-1] == "d" else "float32")
        counts = np.diff(events.offsets[branch.collection])
        assert counts.tolist() == [len(each) for each in own], name
        flat = np.array([value for each in own for value in each], branch.dtype)
        assert events.contents[name].tobytes() == flat.tobytes(), name
    assert plan.branches["ranged[1]"].collection == plan.branches["half[0]"].collection


@given(st.integers(0, 255), st.integers(0, 2**16 - 1), st.integers(2, 14))
def test_a_short_mantissa_is_what_its_bits_say(exponent, stored, bits):
    number = Truncated(0.0, 0.0, bits, "float32")
    found = number.values(np.array([(exponent, stored)], number.stored))[0]
    mantissa = stored % 2 ** (bits + 1)
    carry, fraction = divmod(mantissa, 2**bits)
    exponent |= carry
    sign = -1.0 if stored >> (bits + 1) & 1 else 1.0
    if exponent == 255:
        assert np.isnan(found) if fraction else found == sign * np.inf
    elif exponent:
        assert found == sign * (1 + fraction / 2**bits) * 2.0 ** (exponent - 127)
    else:
        assert found == sign * fraction / 2**bits * 2.0**-126


def test_lists_whose_bytes_are_not_those_of_their_numbers_are_refused(written):
    number = Truncated(0.0, 0.0, 12, "float32")
    with uproot.open({str(written[0]): "Events"}) as tree:
        counts = np.array([7 * i % 4 for i in range(NUM_ENTRIES)])
        with pytest.raises(UnfitShapeError, match="other bytes than 9 for each object"):
            Lists(number, (3,)).read(tree["half"], 0, NUM_ENTRIES, counts)
        with pytest.raises(UnfitShapeError, match="lists without"):
            Lists(number, head=10).read(tree["half"], 0, NUM_ENTRIES, None)
