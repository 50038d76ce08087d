"""What is said of a bundle."""

import json

import awkward as ak
import pytest

from mlaas4hep_dask.bundle import open_bundle, write_bundle
from mlaas4hep_dask.bundle.listing import facts, show
from mlaas4hep_dask.errors import BundleError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.specs.measure import measure

EVENTS = Events.from_awkward(ak.Array({"met": [1.0, 2.0], "Jet_pt": [[1.0, 2.0, 3.0], []]}))


@pytest.fixture
def path(tmp_path):
    return write_bundle(
        tmp_path / "bundle",
        name="higgs",
        model=b"a TorchScript file, as far as a bundle is concerned",
        specs=measure(EVENTS, sample="ttH"),
        encode={"normalisation": "minmax", "width": 2, "out_of_range": "clip"},
        metrics={"test": {"auc": 0.75}},
        data={"files": ["a.root"]},
        card="# higgs\n",
    ).path


def test_the_facts_of_a_bundle_are_those_of_its_manifest_and_encoding(path):
    bundle = open_bundle(path)
    said = facts(bundle, source=path)
    assert [each["name"] for each in said["inputs"]] == [b.name for b in bundle.reads]
    assert said["shape"] == list(bundle.encoding.row_shape)
    assert said["files"].keys() == bundle.manifest["files"].keys()
    assert all(each["verified"] for each in said["files"].values())


def test_json_and_table_say_the_same_of_several_bundles(path, capsys):
    show([path, path], in_json=True)
    first, second = json.loads(capsys.readouterr().out)
    assert first == second
    show([path], in_json=False)
    table = capsys.readouterr().out
    assert "model higgs" in table
    assert "Jet_pt (float64[])" in table
    assert "auc 0.75" in table
    for member, recorded in first["files"].items():
        assert member in table
        assert recorded["sha256"] in table


def test_a_bundle_with_an_altered_file_is_not_listed(path, capsys):
    (path / "model.pt").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"model\.pt"):
        show([path], in_json=True)
    assert capsys.readouterr().out == ""
