"""Users' functions of NanoEvents and of awkward records."""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from mlaas4hep_dask.config import Config, load
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.errors import ConfigError, DataError, FunctionError, UnreadableFileError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.reader import plan_file, read
from mlaas4hep_dask.writer import write_events

CODE = """
import importlib

import awkward as ak


def nano(events, min_pt=20):
    jets = events.Jet[events.Jet.pt > min_pt]
    events["HT"] = ak.sum(jets.pt, axis=1)
    events["lead"] = ak.firsts(jets.pt)
    events["GoodJet"] = jets
    return events[ak.num(jets) >= 1]


def plain(events, min_pt=20):
    good = events.Jet_pt > min_pt
    events["HT"] = ak.sum(events.Jet_pt[good], axis=1)
    events["lead"] = ak.firsts(events.Jet_pt[good])
    events["GoodJet_eta"] = events.Jet_eta[good]
    return events[ak.any(good, axis=1)]


def scaled(events):
    events["weight"] = events.weight * events.MET_pt
    return events[events.MET_pt > 20]


def turning(events, name):
    values = {"fraction": events.nJet + 0.5, "jagged": events.Jet_pt}
    events["x"] = values[name] if events.number[0] > 0 else events.nJet
    return events


def hard(events):
    events["GoodJet"] = ak.mask(events.Jet_eta, events.MET_pt > 20)
    return events[ak.firsts(events.Jet_pt) > 40]  # None without a jet


def hard_nano(events):
    events["GoodJet"] = ak.mask(events.Jet, events.MET.pt > 20)
    return ak.mask(events, ak.fill_none(ak.firsts(events.Jet.pt) > 40, False))


def rebuilt(events):
    return ak.zip({"HT": ak.sum(events.Jet_pt, axis=1)}, depth_limit=1)


def forgetful(events):
    return ak.zip({"HT": ak.sum(events.Jet_pt, axis=1)}, depth_limit=1)[:-1]


def backwards(events):
    return events[::-1]


def number(events):
    return 42


def broken(events):
    return events.Jet_Pt


def ending(events):
    raise SystemExit("no events")


def shifted(events):
    events["mlaas4hep_entry"] = events.mlaas4hep_entry - 1
    return events


def computed(events):
    return importlib.import_module("cuts_" + "2018").passed(events)
"""


@pytest.fixture
def keys(tmp_path, edge_cases):
    (tmp_path / "analysis.py").write_text(CODE)
    file = edge_cases / "nano_dy.root"
    copy = tmp_path / "copy.root"
    plan = plan_file(str(file), "Events", "a")
    ids = ("run", "luminosityBlock", "event")  # NanoEvents insist on them
    jets = ("nJet", "Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass")
    names = (*ids, *jets, "MET_pt", "MET_phi")
    branches = [plan.branches[name] for name in names]
    (part,) = plan.planned(["Jet_pt"]).partitions(
        target_bytes=1 << 40, max_events=1000, num_entries=plan.num_entries
    )
    with write_events(copy, branches, tree="Events") as out:
        out.append(read(part, branches))
    return {
        "samples": [
            {"name": "a", "label": 1, "files": str(file)},
            {"name": "b", "label": 0, "files": str(copy)},
        ],
        "branches": {"include": ["HT", "lead", "GoodJet_eta", "MET_pt"]},
        "specs": {"cache": None},
    }


def config_of(keys, tmp_path, function, **more):
    return Config.from_mapping({**keys, "function": function, **more}, base=tmp_path)


def plan_of(config):
    return check_files(preflight(description_of(config)), config.partition, config.max_events)


@pytest.mark.parametrize(
    ("function", "reads"),
    [
        ({"callable": "analysis.py:plain"}, ["Jet_eta", "Jet_pt", "MET_pt"]),
        (
            {"callable": "analysis.py:nano", "events": "nanoaod", "kwargs": {"min_pt": 20}},
            ["Jet_eta", "Jet_pt", "MET_pt", "nJet"],
        ),
    ],
)
def test_a_function_selects_and_derives_and_only_what_it_touches_is_read(
    keys, tmp_path, client, function, reads
):
    config = config_of(keys, tmp_path, function, select="HT > 60", partition={"max_events": 13})
    plan = plan_of(config)
    assert list(plan.reads) == reads
    assert f"function: {function['callable']} gets" in plan.to_text()
    dataset = Dataset(config, client)
    lazy = dataset.to_dask()
    x, ids = (future.result() for future in client.compute([lazy.x, lazy.id]))
    expected = Dataset(
        Config.from_mapping(
            keys
            | {
                "derive": {"HT": "sum(Jet_pt)", "lead": "Jet_pt[:, 0]", "GoodJet_eta": "Jet_eta"},
                "objects": {"Jet": "Jet_pt > 20"},
                "select": ["count(Jet_pt) >= 1", "HT > 60"],
            }
        ),
        client,
    )
    other = expected.to_dask()
    np.testing.assert_array_equal(ids, client.compute(other.id).result())
    np.testing.assert_allclose(x, client.compute(other.x).result(), rtol=1e-6, atol=1e-6)
    flow = dataset.samples()["a"].cut_flow
    assert [*flow.values()] == [*expected.samples()["a"].cut_flow.values()]
    assert [*flow] == [function["callable"], "HT > 60"]


@pytest.mark.parametrize(
    ("function", "branch"),
    [
        ({"callable": "analysis.py:hard"}, "GoodJet"),
        ({"callable": "analysis.py:hard_nano", "events": "nanoaod"}, "GoodJet_eta"),
    ],
)
def test_missing_events_are_not_selected_and_missing_lists_hold_no_object(
    keys, tmp_path, client, function, branch
):
    keys["branches"] = {"include": ["MET_pt", branch]}
    encode = {"normalisation": "none"}
    config = config_of(keys, tmp_path, function, encode=encode, partition={"max_events": 13})
    dataset = Dataset(config, client)
    lazy = dataset.to_dask()
    x, missing, y = client.gather(client.compute([lazy.x, lazy.missing, lazy.y]))
    with uproot.open(keys["samples"][0]["files"]) as file:
        tree = file["Events"].arrays(["Jet_pt", "Jet_eta", "MET_pt"])
    kept = tree[ak.fill_none(ak.firsts(tree.Jet_pt) > 40, False)]
    jets = ak.where(kept.MET_pt > 20, kept.Jet_eta, kept.Jet_eta[:, :0])
    assert 0 < len(kept) < len(tree)
    assert 0 < ak.sum(ak.num(jets)) < ak.sum(ak.num(kept.Jet_eta))
    for label in (0, 1):  # the same events, copied
        rows = y == label
        np.testing.assert_array_equal(x[rows, 0], kept.MET_pt)
        np.testing.assert_array_equal((~missing[rows, 1:]).sum(axis=1), ak.num(jets))
        np.testing.assert_array_equal(x[rows, 1:][~missing[rows, 1:]], ak.flatten(jets))
    assert dataset.samples()["a"].num_read == len(tree)


def test_weights_that_a_function_returns_are_divided_by_the_sum_of_those_in_the_files(
    tmp_path, client
):
    (tmp_path / "analysis.py").write_text(CODE)
    weight = np.array([1.0, -2.0, 3.0, 4.0])
    met = np.array([10.0, 30.0, 50.0, 70.0])
    for name in "ab":
        with uproot.recreate(tmp_path / f"{name}.root") as file:
            file["Events"] = {"weight": weight, "MET_pt": met}
    samples = [
        {"name": name, "label": label, "files": f"{name}.root", "cross_section": 2.0}
        for label, name in enumerate("ab")
    ]
    keys = {"samples": samples, "branches": {"include": ["MET_pt"]}, "specs": {"cache": None}}
    config = config_of(keys, tmp_path, {"callable": "analysis.py:scaled"}, weight="weight")
    dataset = Dataset(config, client)
    expected = (weight * met)[1:] * 2.0 / weight.sum()
    np.testing.assert_allclose(
        client.compute(dataset.to_dask().w).result(), np.tile(expected, 2), rtol=1e-6
    )
    sample = dataset.samples()["a"]
    assert (sample.weights_read, sample.sum_weights) == (6.0, (weight * met)[1:].sum())


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("fraction", DataError, "'x' is int32 in the first events, and float64 with values that"),
        ("jagged", FunctionError, "returned a jagged 'x' for .*-1500, and a flat one for"),
    ],
)
def test_what_a_function_returns_does_not_change_its_type(tmp_path, client, name, error, message):
    (tmp_path / "analysis.py").write_text(CODE)
    jets = ak.unflatten(ak.zip({"pt": np.ones(3_000, dtype=np.float32)}), np.full(1_500, 2))
    for sample in "ab":
        with uproot.recreate(tmp_path / f"{sample}.root") as file:
            tree = file.mktree("Events", {"Jet": jets.type, "number": "int32"})
            tree.extend({"Jet": jets, "number": np.arange(1_500, dtype=np.int32)})
    samples = [
        {"name": sample, "label": label, "files": f"{sample}.root"}
        for label, sample in enumerate("ab")
    ]
    keys = {"samples": samples, "branches": {"include": ["x"]}, "specs": {"cache": None}}
    function = {"callable": "analysis.py:turning", "kwargs": {"name": name}}
    config = config_of(keys, tmp_path, function, partition={"max_events": 1_000})
    with pytest.raises(error, match=message):
        Dataset(config, client).specs()


def test_a_function_that_returns_all_events_may_build_new_records(keys, tmp_path):
    config = config_of(
        keys, tmp_path, {"callable": "analysis.py:rebuilt"}, branches={"include": ["HT"]}
    )
    assert plan_of(config).read_only == ["Jet_pt"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("forgetful", "nothing tells which"),
        ("backwards", "changed the order of events"),
        ("number", "returned int, expected an array"),
        ("broken", "AttributeError: no field named 'Jet_Pt'"),
        ("ending", "SystemExit: no events"),
        ("shifted", "gives events the 'mlaas4hep_entry' -1 to "),
        ("computed", "imported by a computed name is not sent: name it in an import statement"),
    ],
)
def test_a_function_that_fails_is_named(keys, tmp_path, name, message):
    with pytest.raises(FunctionError) as raised:
        preflight(description_of(config_of(keys, tmp_path, {"callable": f"analysis.py:{name}"})))
    assert f"'analysis.py:{name}'" in str(raised.value)
    assert message in str(raised.value)


def test_an_unknown_function_is_an_error_with_its_line(keys, tmp_path):
    path = tmp_path / "dataset.yaml"
    files = [sample["files"] for sample in keys["samples"]]
    path.write_text(
        "samples:\n"
        f"  - {{name: a, label: 1, files: {files[0]}}}\n"
        f"  - {{name: b, label: 0, files: {files[1]}}}\n"
        "function:\n"
        "  callable: analysis.py:plane\n"
    )
    with pytest.raises(ConfigError, match=r"function.callable: .*; did you mean 'analysis.py'\?"):
        preflight(description_of(config_of(keys, tmp_path, {"callable": "anlysis.py:plain"})))
    with pytest.raises(ConfigError, match=r"dataset.yaml:5: function.callable: .*'plain'\?"):
        preflight(description_of(load(path)))


def test_an_argument_that_a_function_does_not_take_is_named(keys, tmp_path):
    function = {"callable": "analysis.py:nano", "events": "nanoaod", "kwargs": {"min_Pt": 3}}
    expected = r"function.kwargs: .* no parameter 'min_Pt', it takes .*; did you mean 'min_pt'\?"
    with pytest.raises(ConfigError, match=expected):
        preflight(description_of(config_of(keys, tmp_path, function)))


@pytest.mark.parametrize("events", ["awkward", "nanoaod"])
def test_a_file_that_a_function_cannot_read_is_a_bad_file(keys, tmp_path, events):
    name = "plain" if events == "awkward" else "nano"
    function = {"callable": f"analysis.py:{name}", "events": events}
    good, bad = keys["samples"][0]["files"], tmp_path / "bad.root"
    with uproot.open(good) as opened:
        cursor = opened["Events"]["Jet_pt"].basket_key(0).data_cursor
    data = bytearray(Path(good).read_bytes())
    data[cursor.index : cursor.index + 40] = bytes(40)
    bad.write_bytes(data)
    samples = [keys["samples"][0] | {"files": str(bad)}, keys["samples"][1]]
    with pytest.raises(UnreadableFileError, match=r"bad\.root"):
        preflight(description_of(config_of(keys, tmp_path, function, samples=samples)))
