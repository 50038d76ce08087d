"""Users' functions of NanoEvents, with files in the layouts of several experiments."""

from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.nanoevents import schemas

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.errors import DataError, FunctionError
from mlaas4hep_dask.formats import SCHEMAS
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.inputs.prepare import prepare
from mlaas4hep_dask.reader import require_same_branches

CODE = """
import awkward as ak


def physlite(events):
    electrons = events.Electrons[events.Electrons.pt > 15_000]
    jets = events.Jets[events.Jets.pt > 25_000]
    events["HT"] = ak.sum(jets.pt, axis=1)
    events["GoodElectron"] = ak.zip({"pt": electrons.pt, "eta": electrons.eta})
    return events[ak.num(jets) >= 2]


def links(events):
    events["HT"] = ak.sum(events.Electrons.pt, axis=1)
    events["Track"] = ak.zip({"z0": ak.firsts(events.Electrons.trackParticles.z0, axis=-1)})
    return events


def delphes(events):
    jets = events.Jet[(events.Jet.pt > 30) & (abs(events.Jet.eta) < 2)]
    events["HT"] = ak.sum(jets.pt, axis=1)
    events["GoodJet"] = ak.zip({"mass": jets.mass})
    events["met"] = events.MissingET.MET
    return events[ak.num(jets) >= 1]


def treemaker(events):
    jets = events.Jets[events.Jets.pt > 30]
    events["HT"] = ak.sum(jets.pt, axis=1)
    events["GoodJet"] = ak.zip({"mass": jets.mass, "charge": jets.jetcharge})
    return events[ak.num(jets) >= 1]


def particles(events):
    found = events.ReconstructedParticles
    events["HT"] = ak.sum(found.E, axis=1)
    events["number"] = ak.num(found)
    return events


def collection(events):
    found = events.ReconstructedParticleCollection
    events["HT"] = ak.sum(found.E, axis=1)
    events["number"] = ak.num(found)
    return events


def muons(events):
    good = events.Muon[events.Muon.pt > 5]
    events["HT"] = ak.sum(good.pt, axis=1)
    events["number"] = ak.num(good)
    return events[ak.num(good) >= 1]


def typo(events):
    good = events.Electrons[
        events.Electron.pt > 0
    ]
    return good
"""


def config_of(tmp_path, file, tree, function, schema, *, include=("number",), **more):
    (tmp_path / "analysis.py").write_text(CODE)
    keys = {
        "samples": [{"name": "a", "files": str(file)}],
        "tree": tree,
        "target": {"branch": "HT", "kind": "regression"},
        "function": {"callable": f"analysis.py:{function}", "events": schema},
        "branches": {"include": list(include)},
        "specs": {"cache": None},
        **more,
    }
    return Config.from_mapping(keys, base=tmp_path)


def prepared(config):
    """What the configuration selects, as one array, and the branches that the plan reads."""
    plan = check_files(preflight(description_of(config)), config.partition, config.max_events)
    parts = [prepare(part, plan.preparation) for part in plan.partitions]
    arrays = [part.events.to_awkward() for part in parts]
    selected = np.concatenate([part.selected for part in parts])
    return ak.concatenate(arrays), np.flatnonzero(selected), plan


def test_physlite_is_selected_by_its_collections(tmp_path, edge_cases, client):
    file = edge_cases / "PHYSLITE_example.root"
    config = config_of(
        tmp_path,
        file,
        "CollectionTree",
        "physlite",
        "physlite",
        include=["GoodElectron_*"],
        partition={"max_events": 30},
    )
    dataset = Dataset(config, client)
    with uproot.open(file) as opened:
        tree = opened["CollectionTree"]
        electron = {name: tree[f"AnalysisElectronsAuxDyn.{name}"].array() for name in ("pt", "eta")}
        jet_pt = tree["AnalysisJetsAuxDyn.pt"].array()
    good = jet_pt[jet_pt > 25_000]
    keep = ak.num(good) >= 2
    assert 0 < ak.sum(keep) < len(keep)
    block = client.compute(dataset.to_dask().y).result()
    np.testing.assert_allclose(block[:, 0], ak.sum(good, axis=1)[keep], rtol=1e-6)
    found, entries, plan = prepared(config)
    assert len(plan.partitions) > 3
    np.testing.assert_array_equal(entries, np.flatnonzero(keep))
    for name, values in electron.items():
        expected = values[electron["pt"] > 15_000][keep]
        assert ak.array_equal(found[f"GoodElectron_{name}"], expected, check_parameters=False)


def test_the_plan_says_what_a_function_reads_though_it_be_no_input(tmp_path, edge_cases):
    file = edge_cases / "PHYSLITE_example.root"
    config = config_of(tmp_path, file, "CollectionTree", "links", "physlite", include=["Track_z0"])
    found, _, plan = prepared(config)
    links = "AnalysisElectronsAuxDyn.trackParticleLinks"
    assert links in plan.read_only
    assert links in plan.to_text()
    assert not any("Jets" in name for name in plan.reads)
    with uproot.open(file) as opened:
        tree = opened["CollectionTree"]
        linked = tree[links].array().tolist()
        z0 = tree["GSFTrackParticlesAuxDyn.z0"].array().tolist()
    expected = [
        [
            np.nan if not own or own[0]["m_persKey"] == 0 else tracks[own[0]["m_persIndex"]]
            for own in electrons
        ]
        for electrons, tracks in zip(linked, z0, strict=True)
    ]
    assert ak.sum(np.isfinite(ak.flatten(expected))) > 10
    assert ak.array_equal(
        found.Track_z0,
        ak.values_astype(expected, "float32"),
        equal_nan=True,
        check_parameters=False,
    )


def test_a_branch_read_for_a_function_alone_is_alike_in_all_files(tmp_path, edge_cases):
    file = edge_cases / "PHYSLITE_example.root"
    config = config_of(tmp_path, file, "CollectionTree", "links", "physlite", include=["Track_z0"])
    checked = preflight(description_of(config))
    links = "AnalysisElectronsAuxDyn.trackParticleLinks"
    other = replace(checked.reference, file="other.root", left_out={links: "a string"})
    with pytest.raises(
        DataError, match=r"Links' is a string in tree .* of other\.root; it is doub"
    ):
        require_same_branches(checked.reference.narrowed(checked.reads), other, checked.reads)


@pytest.fixture
def jets():
    random = np.random.default_rng(5)
    number = random.poisson(3, 200)
    columns = {
        "pt": random.exponential(40, number.sum()),
        "eta": random.normal(0, 2, number.sum()),
        "phi": random.uniform(-3, 3, number.sum()),
        "mass": random.exponential(5, number.sum()),
        "charge": random.normal(0, 1, number.sum()),
    }
    return {name: ak.unflatten(values, number) for name, values in columns.items()}


def test_delphes_collections_have_their_counters(tmp_path, jets):
    names = {"PT": "pt", "Eta": "eta", "Phi": "phi", "Mass": "mass"}
    met = np.arange(200.0)
    one = {name: ak.unflatten(met, np.ones(200, int)) for name in ("MET", "Eta", "Phi")}
    write_tree(
        tmp_path / "delphes.root",
        "Delphes",
        {"Jet": {name: ak.values_astype(jets[own], "float32") for name, own in names.items()}}
        | {"MissingET": one},
        counter_name=lambda collection: f"{collection}_size",
        field_name=lambda outer, inner: f"{outer}/{outer}.{inner}",
    )
    config = config_of(
        tmp_path,
        tmp_path / "delphes.root",
        "Delphes",
        "delphes",
        "delphes",
        include=["GoodJet_mass", "met"],
        partition={"max_events": 70},
    )
    found, entries, plan = prepared(config)
    good = (jets["pt"] > 30) & (abs(jets["eta"]) < 2)
    keep = ak.any(good, axis=1)
    np.testing.assert_array_equal(entries, np.flatnonzero(keep))
    np.testing.assert_allclose(found.HT, ak.sum(jets["pt"][good], axis=1)[keep], rtol=1e-6)
    np.testing.assert_array_equal(found.met, met[keep])
    expected = ak.values_astype(jets["mass"][good][keep], "float32")
    assert ak.array_equal(found.GoodJet_mass, expected, check_parameters=False)
    sub = [f"Jet/Jet.{name}" for name in ("Eta", "Mass", "PT")]
    assert plan.read_only == [*sub, "Jet_size", "MissingET/MissingET.MET"]


def test_treemaker_joins_the_parts_of_vectors_and_their_extras(tmp_path, jets):
    energy = np.sqrt((jets["pt"] * np.cosh(jets["eta"])) ** 2 + jets["mass"] ** 2)
    parts = {"fPt": jets["pt"], "fEta": jets["eta"], "fPhi": jets["phi"], "fE": energy}
    flat = {f"Jets/Jets.fCoordinates.{name}": values for name, values in parts.items()}
    file = tmp_path / "treemaker.root"
    with uproot.recreate(file) as out:
        out.mktree(
            "PreSelection",
            dict.fromkeys((*flat, "Jets_jetcharge"), "var * float64"),
            counter_name=lambda name: f"n{name}".replace("_", ""),
        ).extend({**flat, "Jets_jetcharge": jets["charge"]})
    config = config_of(
        tmp_path, file, "PreSelection", "treemaker", "treemaker", include=["GoodJet_*"]
    )
    found, entries, plan = prepared(config)
    good = jets["pt"] > 30
    keep = ak.any(good, axis=1)
    np.testing.assert_array_equal(entries, np.flatnonzero(keep))
    np.testing.assert_allclose(found.HT, ak.sum(jets["pt"][good], axis=1)[keep])
    for name in ("mass", "charge"):
        expected = jets[name][good][keep]
        np.testing.assert_allclose(
            ak.flatten(found[f"GoodJet_{name}"]), ak.flatten(expected), rtol=1e-6, atol=1e-4
        )
    assert plan.read_only == ["Jets.E", "Jets.eta", "Jets.phi", "Jets.pt", "Jets_jetcharge"]


def write_tree(file, tree, collections, **names):
    arrays = {name: ak.zip(columns) for name, columns in collections.items()}
    with uproot.recreate(file) as out:
        made = out.mktree(
            tree, {name: array.type.content for name, array in arrays.items()}, **names
        )
        made.extend(arrays)


@pytest.mark.parametrize(
    ("file", "function", "schema", "prefix"),
    [
        (
            "edm4hep_example_v01-01_podio_v01-07.root",
            "collection",
            "edm4hep",
            "ReconstructedParticleCollection",
        ),
        ("p8_ee_WW_ecm240_edm4hep.root", "particles", "fcc-edm4hep1", "ReconstructedParticles"),
    ],
)
def test_podio_files_have_four_vectors(tmp_path, edge_cases, file, function, schema, prefix):
    file = edge_cases / file
    found, _, plan = prepared(config_of(tmp_path, file, "events", function, schema))
    with uproot.open(file) as opened:
        tree = opened["events"]
        parts = [f"momentum.{axis}" for axis in "xyz"] + ["mass"]
        values = [tree[f"{prefix}/{prefix}.{name}"].array() for name in parts]
    energy = np.sqrt(sum(ak.values_astype(value, "float64") ** 2 for value in values))
    np.testing.assert_allclose(found.HT, ak.sum(energy, axis=1), rtol=1e-6)
    assert all(name.startswith(f"{prefix}/") for name in plan.reads)


@pytest.mark.slow
def test_nanoaod_is_read_from_an_rntuple_too(tmp_path, edge_cases):
    file = edge_cases / "nano_dimuon_rntuple.root"
    config = config_of(tmp_path, file, "Events", "muons", "nanoaod", partition={"max_events": 15})
    found, entries, plan = prepared(config)
    assert len(plan.partitions) == 3
    assert plan.read_only == ["Muon_pt", "nMuon"]
    with uproot.open(file) as opened:
        pt = opened["Events"]["Muon_pt"].array()
    pt = pt[pt > 5]
    np.testing.assert_array_equal(entries, np.flatnonzero(ak.num(pt)))
    np.testing.assert_allclose(found.HT, ak.sum(pt, axis=1)[entries], rtol=1e-6)


@pytest.mark.parametrize(
    ("file", "tree", "schema", "message"),
    [
        ("PHYSLITE_example.root", "CollectionTree", "nanoaod", "missing event ID fields"),
        ("nano_dy.root", "Events", "delphes", "KeyError"),
        ("p8_ee_WW_ecm240_edm4hep.root", "events", "fcc", "later need 'fcc-edm4hep1'"),
    ],
)
def test_a_file_that_does_not_fit_the_schema_is_named(
    tmp_path, edge_cases, file, tree, schema, message
):
    config = config_of(tmp_path, edge_cases / file, tree, "muons", schema)
    with pytest.raises(FunctionError) as raised:
        preflight(description_of(config))
    text = str(raised.value)
    assert message in text
    assert f"{file} does not fit the schema {schema!r}" in text
    assert "\n" not in text


def test_a_wrong_field_is_named_with_its_line_and_the_nearest(tmp_path, edge_cases):
    file = edge_cases / "PHYSLITE_example.root"
    config = config_of(tmp_path, file, "CollectionTree", "typo", "physlite")
    line = 1 + CODE[: CODE.index("events.Electron.pt")].count("\n")
    expected = f"failed in line {line} of analysis.py for .*'Electron'; did you mean 'Electrons'"
    with pytest.raises(FunctionError, match=expected):
        preflight(description_of(config))


def test_every_schema_of_the_configuration_is_one_of_coffea():
    for schema in SCHEMAS.values():
        assert issubclass(getattr(schemas, schema), schemas.BaseSchema)


def test_physlite_is_read_by_patterns_without_a_function(tmp_path, edge_cases):
    file = edge_cases / "PHYSLITE_example.root"
    config = Config.from_mapping(
        {
            "samples": [{"name": "a", "files": str(file)}],
            "tree": "CollectionTree",
            "target": {"branch": "HT", "kind": "regression"},
            "branches": {"include": ["AnalysisElectronsAuxDyn.pt", "AnalysisJetsAuxDyn.e*"]},
            "derive": {"HT": "sum(AnalysisJetsAuxDyn.pt)"},
            "select": "count(AnalysisElectronsAuxDyn.pt) > 0",
        }
    )
    found, entries, plan = prepared(config)
    names = ["AnalysisElectronsAuxDyn.pt", "AnalysisJetsAuxDyn.eta"]
    assert [branch.name for branch in plan.branches] == names
    with uproot.open(file) as opened:
        tree = opened["CollectionTree"]
        values = {name: tree[name].array() for name in (*names, "AnalysisJetsAuxDyn.pt")}
    np.testing.assert_array_equal(entries, np.flatnonzero(ak.num(values[names[0]])))
    for name in names:
        assert ak.array_equal(found[name], values[name][entries], check_parameters=False)
    np.testing.assert_allclose(
        found.HT, ak.sum(values["AnalysisJetsAuxDyn.pt"], axis=1)[entries], rtol=1e-6
    )
