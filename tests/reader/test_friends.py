"""Friend trees: joined by entry or by identifiers, with names that clash, and what they lack."""

import awkward as ak
import numpy as np
import pytest
import uproot
from paths import FAULTS
from steps import dataset_of

from mlaas4hep_dask.catalog import resolve_files
from mlaas4hep_dask.config import Config, given_of, load
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.errors import ConfigError, DataError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.predict.request import check_request
from mlaas4hep_dask.predict.scoring import predict_files
from mlaas4hep_dask.run import fit

EVENTS = 120


def ids(seed, events=EVENTS):
    """Run, luminosity block and event of some events; no three alike, each number often."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(40 * 40 * 3)[:events]
    run = (chosen // 1600).astype("u4") + np.uint32(100 * seed)
    event = (chosen % 40).astype("u8") + np.uint64(2**63)
    return {"run": run, "luminosityBlock": (chosen // 40 % 40).astype("u4"), "event": event}


def columns(seed, events=EVENTS):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(2, events)
    pt = ak.unflatten(rng.exponential(30, counts.sum()).astype("f4"), counts)
    return {**ids(seed, events), "met": rng.exponential(20, events), "Jet_pt": pt}


def friendly(own):
    """What a friend has of the same events, in terms of what it should be joined with."""
    return {"dnn": own["met"] * 2 + 1, "Jet_tag": -own["Jet_pt"], "met": own["met"] * 0}


def write(path, tree, made, kind="TTree"):
    with uproot.recreate(path) as file:
        (file.mktree if kind == "TTree" else file.mkrntuple)(tree, made)
    return str(path)


def shuffled(own, seed=3):
    """A friend of the same events with their identifiers, in another order and other dtypes."""
    order = np.random.default_rng(seed).permutation(len(own["met"]))
    made = {**friendly(own), **{name: own[name] for name in ("run", "luminosityBlock", "event")}}
    made["run"] = made["run"].astype("i8")
    return {name: each[order] for name, each in made.items()}


@pytest.fixture(params=["TTree", "RNTuple"])
def folder(tmp_path, request):
    """Files with friends by entry and by identifiers."""
    for seed in range(2):
        own = columns(seed)
        write(tmp_path / f"nano_{seed}.root", "Events", own, request.param)
        write(tmp_path / f"friend_{seed}.root", "fr", friendly(own), request.param)
        write(tmp_path / f"mixed_{seed}.root", "fr", shuffled(own), request.param)
    return tmp_path


def keys_of(folder, **more):
    samples = [
        {"name": f"s{seed}", "label": seed, "files": str(folder / f"nano_{seed}.root")}
        for seed in range(2)
    ]
    return {"samples": samples, "partition": {"max_events": 50}, **more}


IDENTIFIERS = ["run", "luminosityBlock", "event"]
BY_ENTRY = {"tree": "fr", "files": {"nano_*.root": "friend_*.root"}}
BY_IDS = {"tree": "fr", "files": {"nano_*.root": "mixed_*.root"}, "by": IDENTIFIERS}


def planned(keys, base="."):
    config = Config.from_mapping(keys, base=base)
    return check_files(preflight(description_of(config)), config.partition, config.max_events)


@pytest.mark.parametrize("friend", [BY_ENTRY, BY_IDS])
def test_a_friend_gives_the_same_events_more_branches(folder, client, friend):
    keys = keys_of(folder, friends=[friend], objects={"Jet": "Jet_pt > 5 & Jet_tag < -5"})
    keys["derive"] = {"check": "dnn - 2 * met", "same": "max(abs(Jet_pt + Jet_tag))"}
    dataset = dataset_of(keys, client)
    plan = dataset.plan()
    names = {branch.name: branch.collection for branch in plan.branches}
    assert names["Jet_tag"] == names["Jet_pt"] == "Jet"
    assert {"dnn", "met"} <= names.keys()
    assert not {"run", "event", "fr: met"} & names.keys()
    assert plan.selection.left_out["fr: met"].startswith("of a friend tree, and the name is taken")
    specs = dataset.specs()
    check = specs.branches["check"].moments
    assert (check.min, check.max) == pytest.approx((1, 1), abs=1e-9)
    same = specs.branches["same"].moments
    assert (same.min, same.max) == (0, 0)
    assert same.num_nan < EVENTS  # there are jets
    own = ak.concatenate([columns(seed)["met"] for seed in range(2)])
    assert specs.branches["dnn"].moments.mean == pytest.approx(np.mean(2 * own + 1), rel=1e-9)
    x = dataset.to_dask().x.compute()
    dnn = x[:, dataset.encoding().layout.columns().index("dnn")]
    met = x[:, dataset.encoding().layout.columns().index("met")]
    np.testing.assert_allclose(dnn, met, atol=1e-6)  # both between their extremes


def test_identifiers_are_looked_up_in_all_files_of_a_list(folder, client):
    listed = [str(folder / "mixed_*.root:fr")]
    keys = keys_of(folder, friends=[{"files": listed, "by": IDENTIFIERS, "prefix": "f."}])
    dataset = dataset_of(keys | {"derive": {"check": "f.dnn - 2 * met"}}, client)
    names = {branch.name for branch in dataset.plan().branches}
    assert {"f.dnn", "f.met", "f.Jet_tag", "met"} <= names
    check = dataset.specs().branches["check"].moments
    assert (check.min, check.max) == pytest.approx((1, 1), abs=1e-9)


def test_files_under_a_sample_are_the_friends_of_its_files_one_by_one(folder, client):
    keys = keys_of(folder)
    for seed, sample in enumerate(keys["samples"]):
        sample["friends"] = [{"files": str(folder / f"friend_{seed}.root:fr")}]
    dataset = dataset_of(keys | {"derive": {"check": "dnn - 2 * met"}}, client)
    assert dataset.specs().branches["check"].moments.max == pytest.approx(1, abs=1e-9)
    shared = keys_of(folder, friends=[{"files": str(folder / "friend_0.root:fr")}])
    with pytest.raises(ConfigError, match=r"friends\[0\].files: files that are joined by entry"):
        resolve_files(description_of(Config.from_mapping(shared)).listing)


def test_identifiers_with_a_prefix_are_no_inputs(folder):
    friend = {**BY_IDS, "by": ["run", "event", "luminosityBlock"], "prefix": "f."}
    with uproot.update(folder / "mixed_0.root") as file:
        del file
    plan = planned(keys_of(folder, friends=[friend]))
    assert not {"f.run", "f.event", "f.luminosityBlock"} & {b.name for b in plan.branches}
    for seed in range(2):
        made = {**friendly(columns(seed)), "event": columns(seed)["event"]}
        write(folder / f"friend_{seed}.root", "fr", made)
    plan = planned(keys_of(folder, friends=[{**BY_ENTRY, "prefix": "f."}]))
    assert "f.event" in plan.selection.identifiers
    assert "f.event" not in {branch.name for branch in plan.branches}


def test_a_friend_may_be_another_tree_of_the_same_file(tmp_path, client):
    for seed in range(2):
        own = columns(seed)
        with uproot.recreate(tmp_path / f"nano_{seed}.root") as file:
            file.mktree("Events", own)
            file.mktree("extra/fr", friendly(own))
    keys = keys_of(tmp_path, friends=[{"tree": "extra/fr"}], derive={"check": "dnn - 2 * met"})
    dataset = dataset_of(keys, client)
    assert dataset.specs().branches["check"].moments.max == pytest.approx(1, abs=1e-9)
    with pytest.raises(ConfigError, match="'Events' is no friend of itself"):
        planned(keys_of(tmp_path, friends=[{}]))


def test_joined_by_entry_both_trees_have_as_many(folder):
    write(folder / "friend_1.root", "fr", friendly(columns(1, EVENTS - 1)))
    message = f"has {EVENTS - 1} entries, and tree 'Events' of .*nano_1.root has {EVENTS}"
    with pytest.raises(DataError, match=message):
        planned(keys_of(folder, friends=[BY_ENTRY]))


@pytest.mark.parametrize(
    ("change", "what"), [("lacks", "no entry"), ("doubles", "several entries")]
)
def test_events_that_a_friend_lacks_or_has_twice_are_told(folder, client, change, what):
    own = columns(1)
    made = shuffled(own)
    picked = {name: own[name][70] for name in IDENTIFIERS}
    gone = np.ones(EVENTS, bool)
    for name, value in picked.items():
        gone &= made[name] == value
    keep = np.flatnonzero(~gone) if change == "lacks" else np.r_[0:EVENTS, np.flatnonzero(gone)]
    write(folder / "mixed_1.root", "fr", {name: each[keep] for name, each in made.items()})
    with pytest.raises(DataError) as caught:
        dataset_of(keys_of(folder, friends=[BY_IDS]), client).specs()
    message = str(caught.value)
    assert f"have {what} in the friend tree 'fr'" in message
    assert message.startswith("1 of ")
    assert f"the first is entry 70 with run {picked['run']}" in message


@pytest.mark.parametrize(
    ("friend", "error", "message"),
    [
        (
            {**BY_ENTRY, "tree": "fx"},
            DataError,
            r"tree 'fx' is not in .*friend_0.root; it holds 'fr'",
        ),
        (
            {**BY_ENTRY, "files": {"nano_*.root": "freind_*.root"}},
            ConfigError,
            r"no such file: .*freind_0.root, .* friend of .*; did you mean 'friend_0.root'\?",
        ),
        (
            {**BY_ENTRY, "files": {"mini_*.root": "f_*.root"}},
            ConfigError,
            r"friends\[0\].files: no pattern of 'mini_\*.root' matches",
        ),
        ({**BY_ENTRY, "files": {"a.root": "*.root"}}, ConfigError, "no pattern"),
        ({**BY_ENTRY, "files": {"nano_0*": "*_*"}}, ConfigError, r"has more \* than"),
        (
            {**BY_IDS, "by": ["evnt"]},
            DataError,
            "branch 'evnt', by which events are joined, is mis",
        ),
        ({**BY_IDS, "by": ["met"]}, DataError, "is flat float64 .*expected a whole number"),
        ({**BY_IDS, "by": ["Jet_pt"]}, DataError, "expected a whole number for each event"),
        ({**BY_IDS, "by": ["run"]}, DataError, "have several entries in the friend tree"),
        ({**BY_ENTRY, "files": 3}, ConfigError, "expected files, or a mapping"),
        ({**BY_ENTRY, "file": "x"}, ConfigError, "unknown key"),
    ],
)
def test_what_cannot_be_joined_says_why(folder, client, friend, error, message):
    with pytest.raises(error, match=message):
        dataset_of(keys_of(folder, friends=[friend]), client).specs()


def test_a_branch_is_of_the_friend_in_all_files_or_in_none(folder):
    own = columns(1)
    write(folder / "nano_1.root", "Events", {**own, "dnn": own["met"]})
    with pytest.raises(
        DataError, match=r"'dnn' is of a friend tree of .*nano_0.root, and of the tree"
    ):
        planned(keys_of(folder, friends=[BY_ENTRY]))


def test_another_friend_is_measured_anew(folder, client):
    keys = keys_of(folder, friends=[BY_ENTRY], branches={"include": ["dnn"]})
    first = dataset_of(keys, client)
    specs = first.specs()
    assert dataset_of(keys, client).specs() == specs
    own = columns(0)
    write(folder / "friend_0.root", "fr", {**friendly(own), "dnn": own["met"] * 5})
    again = dataset_of(keys, client)
    assert again.specs().branches["dnn"].moments.max == pytest.approx((own["met"] * 5).max())
    assert again.num_cached() == EVENTS  # of the other file
    assert again.token() != first.token()


def test_an_absolute_config_has_the_same_friends(folder, tmp_path):
    keys = keys_of(folder, friends=[BY_ENTRY])
    keys["samples"][0]["friends"] = [{"files": "mixed_0.root", "tree": "fr", "by": IDENTIFIERS}]
    config = Config.from_mapping(keys, base=folder)
    again = tmp_path / "elsewhere" / "again.yaml"
    again.parent.mkdir()
    again.write_text(config.to_yaml(absolute=True))
    assert resolve_files(description_of(load(again)).listing) == resolve_files(
        description_of(config).listing
    )


def test_a_model_of_befriended_files_scores_them_and_their_like(folder, client, tmp_path):
    training = {"epochs": 1, "batch_size": 50}
    branches = {"include": ["met", "dnn", "Jet_*"]}
    keys = keys_of(folder, friends=[BY_ENTRY], training=training, branches=branches)
    bundle = fit(dataset_of(keys, client), output=tmp_path / "run").bundle
    assert {"dnn", "Jet_tag"} <= {branch.name for branch in bundle.reads}
    whole = {**columns(0), **{n: v for n, v in friendly(columns(0)).items() if n != "met"}}
    single = write(tmp_path / "whole.root", "Events", whole)
    other = tmp_path / "nana_0.root"
    other.write_bytes((folder / "nano_0.root").read_bytes())
    given = given_of([f"friends=[{{tree: fr, files: '{folder}/friend_0.root'}}]"])
    scores = []
    for file, friends in ((folder / "nano_0.root", None), (other, given.friends), (single, [])):
        output = tmp_path / "scores.root"
        request = check_request(bundle, [str(file)], output, friends=friends, overwrite=True)
        predict_files(request, output, client=client, overwrite=True)
        with uproot.open(output) as out:
            scores.append(out["Events"]["score"].array(library="np"))
    assert len(scores[0]) == EVENTS
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])
    with pytest.raises(ConfigError, match="which has no friend then"):
        check_request(bundle, [str(other)], output, overwrite=True)


def test_roots_friend_is_joined_by_entry(client):
    samples = [
        {"name": f"s{seed}", "label": seed, "files": str(FAULTS / f"g15_{seed}.root")}
        for seed in range(2)
    ]
    friend = {"tree": "fr", "files": {"g15_*.root": "g15_friend_*.root"}}
    specs = dataset_of({"samples": samples, "friends": [friend]}, client).specs()
    for name, tree, stem in (("met", "Events", "g15_"), ("dnn", "fr", "g15_friend_")):
        files = [f"{FAULTS}/{stem}{seed}.root:{tree}" for seed in range(2)]
        values = np.concatenate([uproot.open(file)[name].array(library="np") for file in files])
        found = specs.branches[name].moments
        assert (found.min, found.max) == (values.min(), values.max())
        assert found.mean == pytest.approx(values.astype("f8").mean(), rel=1e-9)
