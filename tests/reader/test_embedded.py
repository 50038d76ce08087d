"""Trees whose last baskets were never written on their own: they lie in the tree itself."""

import sys

import awkward as ak
import numpy as np
import pytest
import uproot
from root_process import run_in_root
from uproot.behaviors.TBranch import HasBranches, TBranch

from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.reader import counting, plan_file, read
from mlaas4hep_dask.reader.byuproot import read_by_uproot
from mlaas4hep_dask.reader.joins import Agreement
from mlaas4hep_dask.reader.opened import open_data

NUM_ENTRIES = 500
WRITE = """
from array import array

# (name, how the tree is written, compression, size of baskets in bytes)
for name, how, compression, size in (
    ("small", "object", 101, 32000),
    ("partly", "autosave", 101, 1000),
    ("lzma", "autosave", 207, 1000),
    ("plain", "object", 0, 1000),
):
    file = ROOT.TFile(f"{sys.argv[1]}/{name}.root", "RECREATE", "", compression)
    tree = ROOT.TTree("Events", "")
    tree.SetAutoFlush(0)
    kinds = {"B": "b", "b": "B", "S": "h", "s": "H", "I": "i", "i": "I", "F": "f", "D": "d"}
    flat = {code: array(kind, [0]) for code, kind in kinds.items()}
    jagged = {code: array(kind, [0] * 8) for code, kind in kinds.items()}
    count = array("i", [0])
    tree.Branch("nJet", count, "nJet/I", size)
    for code in kinds:
        tree.Branch(f"flat_{ord(code)}", flat[code], f"flat_{ord(code)}/{code}", size)
        tree.Branch(f"Jet_{ord(code)}", jagged[code], f"Jet_{ord(code)}[nJet]/{code}", size)
    for entry in range(int(sys.argv[2])):
        count[0] = (7 * entry) % 5 if entry < 400 else 0
        for code in kinds:
            flat[code][0] = entry % 100
            for k in range(count[0]):
                jagged[code][k] = (entry + 11 * k) % 100
        tree.Fill()
    if how == "object":
        file.WriteTObject(tree)
    else:
        tree.AutoSave()
    file.Close()
"""


pytestmark = pytest.mark.slow  # ROOT is a process of its own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("embedded")
    run_in_root(WRITE, str(path), str(NUM_ENTRIES))
    return path


def num_embedded(path):
    with uproot.open({str(path): "Events"}) as tree:
        return {branch.name: len(branch.embedded_baskets) for branch in tree.branches}


@pytest.mark.parametrize("name", ["small", "partly", "lzma", "plain"])
def test_embedded_baskets_are_decoded_here_as_uproot_reads_them(folder, name):
    path = folder / f"{name}.root"
    assert set(num_embedded(path).values()) == {1}
    plan = plan_file(str(path), "Events", "s")
    branches = list(plan.branches.values())
    assert len(branches) == 17
    planned = plan.planned([branch.name for branch in branches])
    with uproot.open({str(path): "Events"}) as tree, counting() as counts:
        for start, stop in ((0, NUM_ENTRIES), (0, 100), (155, 333), (450, NUM_ENTRIES), (7, 7)):
            events = read(planned.partition(start, stop), branches)
            expected = tree.arrays(entry_start=start, entry_stop=stop)
            for branch in branches:
                wanted = expected[branch.name]
                if branch.collection is not None:
                    multiplicities = np.diff(events.offsets[branch.collection])
                    assert multiplicities.tolist() == ak.num(wanted).to_list()
                    wanted = ak.flatten(wanted)
                found = events.contents[branch.name]
                assert found.tobytes() == ak.to_numpy(wanted).tobytes(), branch.name
    assert not counts.by_uproot


def test_the_values_of_embedded_baskets_are_those_that_were_written(folder):
    plan = plan_file(str(folder / "small.root"), "Events", "s")
    branches = [plan.branches["flat_70"], plan.branches["Jet_68"]]
    events = read(plan.planned(["flat_70", "Jet_68"]).partition(0, NUM_ENTRIES), branches)
    counts = [(7 * entry) % 5 if entry < 400 else 0 for entry in range(NUM_ENTRIES)]
    expected = [(e + 11 * k) % 100 for e, count in enumerate(counts) for k in range(count)]
    assert events.contents["flat_70"].tolist() == [entry % 100 for entry in range(NUM_ENTRIES)]
    assert np.diff(events.offsets["Jet"]).tolist() == counts
    assert events.contents["Jet_68"].tolist() == expected


def test_embedded_baskets_end_a_partition_as_others_do(folder):
    plan = plan_file(str(folder / "partly.root"), "Events", "s")
    assert plan.baskets[-1] == NUM_ENTRIES
    assert len(plan.baskets) > 10


def test_a_damaged_tree_with_embedded_baskets_is_refused(folder, tmp_path):
    content = (folder / "small.root").read_bytes()
    with uproot.open(folder / "small.root") as file:
        key = file.key("Events")
        begin, size = key.fSeekKey + key.fKeylen, key.fNbytes - key.fKeylen
        assert key.fObjlen > size  # compressed, with a checksum
    path = tmp_path / "damaged.root"
    for place in np.linspace(begin + 9, begin + size - 1, 20).astype(int).tolist():
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(UnreadableFileError, match=r"damaged\.root"):
            plan_file(str(path), "Events", "s")


def test_what_is_left_to_uproot_it_reads_in_one_call(cms_files):
    plan = plan_file(str(cms_files[0]), "events", "s")
    part = plan.planned([]).partition(0, 100)
    catalogue = open_data(part.file, part.file, part.tree, plan.access).catalogue
    calls = []

    def profile(frame, event, _):
        if event == "call" and frame.f_code in (
            TBranch.array.__code__,
            HasBranches.arrays.__code__,
        ):
            calls.append(frame.f_code.co_name)

    contents, offsets = {}, {}
    sys.setprofile(profile)
    try:
        sources = list(catalogue.sources.values())
        read_by_uproot(catalogue, part, sources, contents, offsets, Agreement())
    finally:
        sys.setprofile(None)
    assert calls == ["arrays"]
    expected = read(part, list(plan.branches.values()))
    assert all(contents[n].tobytes() == each.tobytes() for n, each in expected.contents.items())
