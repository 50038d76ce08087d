"""Containers of numbers, as ROOT writes them: decoded here, with the values that went in."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st
from root_process import run_in_root

from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.reader import counting, opened, plan_file, read
from mlaas4hep_dask.reader.lists import lists_in
from mlaas4hep_dask.reader.uncompress import Basket
from mlaas4hep_dask.specs.measure import measure

NUM_ENTRIES = 300
DEFINITIONS = """
#include <deque>
#include <list>
#include <set>
#include <vector>
#include "Rtypes.h"
struct Held {
  float a;
  std::vector<float> v;
  std::vector<Double32_t> d; //[0,100,10]
  std::vector<bool> b;
  std::deque<short> q;
  std::list<int> l;
};
#ifdef __ROOTCLING__
#pragma link C++ struct Held+;
#pragma link C++ class std::deque<float>+;
#pragma link C++ class std::deque<short>+;
#pragma link C++ class std::list<double>+;
#pragma link C++ class std::list<int>+;
#pragma link C++ class std::set<int>+;
#pragma link C++ class std::multiset<int>+;
#endif
"""
#: By branch: what ROOT calls its container, and the dtype of its numbers here.
KINDS = {
    "v_float": ("vector<float>", "float32"),
    "v_double": ("vector<double>", "float64"),
    "v_char": ("vector<char>", "int8"),
    "v_schar": ("vector<signed char>", "int8"),
    "v_uchar": ("vector<unsigned char>", "uint8"),
    "v_short": ("vector<short>", "int16"),
    "v_ushort": ("vector<unsigned short>", "uint16"),
    "v_int": ("vector<int>", "int32"),
    "v_uint": ("vector<unsigned int>", "uint32"),
    "v_long": ("vector<long>", "int64"),
    "v_ulong": ("vector<unsigned long>", "uint64"),
    "v_longlong": ("vector<long long>", "int64"),
    "v_root64": ("vector<Long64_t>", "int64"),
    "v_bool": ("vector<bool>", "bool"),
    "v_reduced": ("vector<Double32_t>", "float64"),
    "deque": ("deque<float>", "float32"),
    "list": ("list<double>", "float64"),
    "set": ("set<int>", "int32"),
    "multiset": ("multiset<int>", "int32"),
    "rvec": ("ROOT::VecOps::RVec<float>", "float32"),
}
FILES = {"zlib": 101, "lzma": 207, "lz4": 404, "zstd": 505, "none": 0, "embedded": 101}
WRITE = """
import json
folder, size, kinds, files = sys.argv[1], int(sys.argv[2]), *map(json.loads, sys.argv[3:])
ROOT.gROOT.LoadMacro(folder + "/classes.C+")
ROOT.gInterpreter.Declare('''
template <class T> void fill(T &to, int i) {
  to.clear();
  for (int k = 0; k < 7 * i % 5; ++k) to.insert(to.end(), (i + k) % 100);
}
template <> void fill(std::vector<bool> &to, int i) {
  to.clear();
  for (int k = 0; k < 7 * i % 5; ++k) to.push_back((i + k) % 3 == 0);
}
template <> void fill(ROOT::VecOps::RVec<float> &to, int i) {
  to.clear();
  for (int k = 0; k < 7 * i % 5; ++k) to.push_back((i + k) % 100);
}
void fill_held(Held &to, int i) {
  to.a = i; fill(to.v, i); fill(to.d, i); fill(to.b, i); fill(to.q, i); fill(to.l, i);
}
''')
for branch, kind in kinds.items():
    prefix = "" if kind.startswith("ROOT") else "std::"
    known = prefix + kind.replace("Double32_t", "double")
    ROOT.gInterpreter.Declare(f"using T_{branch} = {known};")
for name, compression in files.items():
    file = ROOT.TFile(f"{folder}/{name}.root", "recreate", "", compression)
    tree = ROOT.TTree("Events", "")
    tree.SetAutoFlush(0)
    one = {}
    for branch, kind in kinds.items():
        one[branch] = getattr(ROOT, f"T_{branch}")()
        tree.Branch(branch, kind, one[branch], 600, 0)
    held = ROOT.Held()
    tree.Branch("held.", held, 600, 99)
    for i in range(size):
        for thing in one.values():
            ROOT.fill(thing, i)
        ROOT.fill_held(held, i)
        tree.Fill()
    if name == "embedded":
        file.WriteTObject(tree)
    else:
        tree.FlushBaskets()
        tree.Write()
    file.Close()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import json

    path = tmp_path_factory.mktemp("lists")
    (path / "classes.C").write_text(DEFINITIONS)
    kinds = json.dumps({name: kind for name, (kind, _) in KINDS.items()})
    run_in_root(WRITE, str(path), str(NUM_ENTRIES), kinds, json.dumps(FILES))
    return path


def lists(start, stop, *, is_bool=False):
    """Multiplicities and values of the entries, as they were filled."""
    counts = [7 * i % 5 for i in range(start, stop)]
    numbers = [i + k for i, n in zip(range(start, stop), counts, strict=True) for k in range(n)]
    return counts, [n % 3 == 0 if is_bool else n % 100 for n in numbers]


def expected_of(name, start, stop):
    counts, values = lists(start, stop, is_bool=KINDS.get(name, ("", name))[1] in ("bool", "b"))
    if name in ("set", "multiset"):  # in ascending order
        ends = np.cumsum([0, *counts])
        values = [v for begin, end in pairwise(ends) for v in sorted(values[begin:end])]
    return counts, values


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_containers_of_numbers_have_the_values_that_root_filled(folder, file):
    plan = plan_file(str(folder / f"{file}.root"), "Events", "s")
    assert not plan.left_out
    members = {"v": "float32", "d": "float64", "b": "bool", "q": "int16", "l": "int32"}
    dtypes = {name: dtype for name, (_, dtype) in KINDS.items()}
    dtypes |= {f"held./held.{name}": dtype for name, dtype in members.items()}
    assert {n: b.dtype for n, b in plan.branches.items() if b.kind == "jagged"} == dtypes
    branches = list(plan.branches.values())
    planned = plan.planned(list(plan.branches))
    assert len(plan.baskets) > 10
    edge = plan.baskets[2]
    for start, stop in ((0, NUM_ENTRIES), (edge - 1, edge + 1), (0, edge), (77, 250), (5, 5)):
        with counting() as counts:
            events = read(planned.partition(start, stop), branches)
        assert not counts.by_uproot
        for branch in branches:
            name = branch.name.removeprefix("held./held.")
            found = events.contents[branch.name]
            assert found.dtype == branch.dtype
            if branch.kind == "flat":
                assert found.tolist() == list(range(start, stop))
                continue
            multiplicities, values = expected_of(name, start, stop)
            assert np.diff(events.offsets[branch.collection]).tolist() == multiplicities, name
            assert found.tolist() == values, name


@pytest.mark.slow
def test_what_uproot_reads_of_vectors_has_the_same_bits(folder):
    plan = plan_file(str(folder / "zlib.root"), "Events", "s")
    events = read(plan.planned([]).partition(0, NUM_ENTRIES), list(plan.branches.values()))
    with uproot.open({str(folder / "zlib.root"): "Events"}) as tree:
        for name in [name for name in KINDS if name.startswith("v_") and name != "v_reduced"]:
            content = tree[name].array().layout.to_ListOffsetArray64(True).to_packed().content
            assert events.contents[name].tobytes() == np.asarray(content.data).tobytes(), name


@pytest.mark.slow
def test_a_planned_partition_of_vectors_is_read_without_a_look_at_its_tree(folder):
    for file in ("zstd", "embedded"):
        path = str(folder / f"{file}.root")
        plan = plan_file(path, "Events", "s")
        branches = list(plan.branches.values())
        made = pickle.dumps(plan.planned(list(plan.branches)).partition(77, 250))
        opened.forget(path)
        events = read(pickle.loads(made), branches)  # noqa: S301  # our own bytes
        (entry,) = (entry for key, entry in opened._open.items() if key[0] == path)
        assert "tree" not in vars(entry.opened)  # it was not parsed
        for name in KINDS:
            multiplicities, values = expected_of(name, 77, 250)
            assert events.contents[name].tolist() == values
            collection = plan.branches[name].collection
            assert np.diff(events.offsets[collection]).tolist() == multiplicities


@pytest.mark.slow
def test_vectors_are_measured_as_other_lists_are(folder):
    plan = plan_file(str(folder / "lz4.root"), "Events", "s")
    branches = list(plan.branches.values())
    events = read(plan.planned([]).partition(0, NUM_ENTRIES), branches)
    specs = measure(events, sample="s").branches
    for name in KINDS:
        counts, values = expected_of(name, 0, NUM_ENTRIES)
        assert specs[name].moments.num_values == sum(counts)
        assert specs[name].moments.mean == pytest.approx(np.mean(values), 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "change", "what"),
    [
        (3, 4, "says another number of bytes"),
        (9, 1, "says another number of values"),
        (9, 128, "says another number of values"),
        (0, 64, "says another number of bytes"),
    ],
)
def test_a_list_whose_head_tells_another_size_is_refused(folder, tmp_path, place, change, what):
    """uproot takes off the heads and does not look at them."""
    path = tmp_path / "damaged.root"
    content = bytearray((folder / "none.root").read_bytes())
    with uproot.open({str(folder / "none.root"): "Events"}) as tree:
        branch = tree["v_float"]
        begin = int(branch.member("fBasketSeek")[0]) + branch.basket(0).member("fKeylen")
        last = int(branch.entry_offsets[1])
    # Entry 0 is empty: its head is followed by that of entry 1.
    content[begin + 10 + place] ^= change
    path.write_bytes(content)
    plan = plan_file(str(path), "Events", "s")
    part = plan.planned(["v_float"]).partition(0, NUM_ENTRIES)
    expected = rf"damaged\.root.*'v_float' with entries 0-{last}: the list of entry 1 {what}"
    with pytest.raises(UnreadableFileError, match=expected):
        read(part, [plan.branches["v_float"]])


def basket_of(values, itemsize, keylen=80):
    """A basket of lists, and its bytes: heads and values, and behind them the offsets."""
    pieces = []
    for each in values:
        size = len(each) * itemsize
        head = (0x40000000 + 6 + size).to_bytes(4, "big") + b"\0\n" + len(each).to_bytes(4, "big")
        pieces.append(head + b"".join(v.to_bytes(itemsize, "big") for v in each))
    border = sum(map(len, pieces))
    places = np.cumsum([keylen, *map(len, pieces)])[:-1]
    offsets = np.array([len(values) + 1, *places, 0], ">i4").tobytes()
    data = memoryview(b"".join([*pieces, offsets]))
    size = len(data)
    return Basket("v", 10, 10 + len(values), data, 0, size, keylen, size, border, []), data


@given(st.data())
def test_lists_are_what_was_put_in_or_an_error(data):
    itemsize = data.draw(st.sampled_from([1, 2, 4, 8]))
    numbers = st.integers(0, 256**itemsize - 1)
    values = data.draw(st.lists(st.lists(numbers, max_size=5), min_size=1, max_size=6))
    basket, content = basket_of(values, itemsize)
    found = lists_in(basket, content, np.dtype(f">u{itemsize}"))
    flat = [v for each in values for v in each]
    assert found.multiplicities.tolist() == list(map(len, values))
    assert found.values.tolist() == flat
    low = data.draw(st.integers(10, basket.last))
    high = data.draw(st.integers(low, basket.last))
    part = found.within(low, high)
    assert part.multiplicities.tolist() == list(map(len, values[low - 10 : high - 10]))
    assert part.values.tolist() == [v for each in values[low - 10 : high - 10] for v in each]
    heads = np.cumsum([0, *(10 + itemsize * len(each) for each in values)])[:-1]
    changed = bytearray(content)  # one bit of what a head tells
    place = int(data.draw(st.sampled_from(heads.tolist()))) + data.draw(
        st.sampled_from([0, 1, 2, 3, 6, 7, 8, 9])
    )
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match="the list of entry"):
        lists_in(basket, memoryview(changed), np.dtype(f">u{itemsize}"))
