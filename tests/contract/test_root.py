"""Files that we write are opened by ROOT itself, and files that it writes are read by us."""

import numpy as np
import pytest
from root_process import run_in_root

from mlaas4hep_dask.reader import plan_file, read

pytestmark = pytest.mark.slow

WRITE = """
file = ROOT.TFile(sys.argv[1], 'RECREATE')
tree = ROOT.TTree('Events', '')
from array import array
met, n, pt = array('f', [0]), array('i', [0]), array('f', [0] * 4)
tree.Branch('met', met, 'met/F')
tree.Branch('nJet', n, 'nJet/I')
tree.Branch('Jet_pt', pt, 'Jet_pt[nJet]/F')
for i in range(100):
    met[0], n[0] = i / 2, i % 4
    for k in range(n[0]):
        pt[k] = 10 * i + k
    tree.Fill()
tree.Write()
file.Close()
"""


def test_a_tree_that_root_writes_has_the_values_that_went_in(tmp_path):
    file = tmp_path / "by_root.root"
    run_in_root(WRITE, str(file))
    plan = plan_file(str(file), "Events", "s")
    assert plan.num_entries == 100
    partition = plan.planned(list(plan.branches)).partition(0, 100)
    events = read(partition, list(plan.branches.values()))
    np.testing.assert_array_equal(events.contents["met"], np.arange(100, dtype="f4") / 2)
    counts = np.arange(100) % 4
    np.testing.assert_array_equal(np.diff(events.offsets["Jet"]), counts)
    expected = [10 * i + k for i in range(100) for k in range(i % 4)]
    np.testing.assert_array_equal(events.contents["Jet_pt"], np.float32(expected))
