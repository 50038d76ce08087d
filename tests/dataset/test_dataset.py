import json
import logging
import pickle
import shutil
from pathlib import Path

import awkward as ak
import dask
import dask_awkward
import numpy as np
import pytest
import uproot
from distributed import SchedulerPlugin
from steps import dataset_of

from mlaas4hep_dask.bundle import write_bundle
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.encode import encode
from mlaas4hep_dask.encode.split import split_of
from mlaas4hep_dask.errors import ConfigError, DataError, EncodeError, UnreadableFileError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.waiting import ClusterHandle

MC = [
    "MC*",
    "EventWeight",
]


@pytest.fixture
def tutorial(cms_files):
    """Keys of a dataset.yaml for the tutorial's files."""
    single_top, *diboson = map(str, cms_files)
    return {
        "name": "tutorial",
        "tree": "events",
        "samples": [
            {"name": "single_top", "label": 1, "files": single_top},
            {"name": "diboson", "label": 0, "files": diboson},
        ],
        "branches": {"exclude": MC},
    }


def write_tree(path, *, events=20, seed=0, **extra):
    rng = np.random.default_rng(seed)
    columns = {"pt": rng.random(events), "eta": rng.random(events).astype("f4"), **extra}
    with uproot.recreate(path) as file:
        file.mktree("Events", {name: values.dtype for name, values in columns.items()})
        if events:
            file["Events"].extend(columns)
    return str(path)


def two_samples(signal, background):
    return {
        "samples": [
            {"name": "signal", "label": 1, "files": signal},
            {"name": "background", "label": 0, "files": background},
        ]
    }


@pytest.mark.parametrize("max_events", [700, 2_000, 100_000])
def test_specs_do_not_depend_on_the_partition_size(tutorial, client, cms_events, max_events):
    dataset = dataset_of(tutorial, client, partition={"max_events": max_events})
    specs = dataset.specs()
    assert len(dataset.plan().partitions) >= 16_052 // max_events
    whole = measure(cms_events, sample="all")
    assert specs.num_events == 16_052
    for name, entry in specs.branches.items():
        expected = whole.branches[name].moments
        assert entry.moments[:6] == expected[:6]  # counts and extremes are exact
        assert entry.moments.mean == pytest.approx(expected.mean, rel=1e-9, abs=1e-12)
        assert entry.moments.squares == pytest.approx(expected.squares, rel=1e-9)
    assert specs.multiplicities == {
        name: whole.multiplicities[name] for name in specs.multiplicities
    }
    assert Specs.from_json(specs.to_json()) == specs


@pytest.mark.parametrize("normalisation", ["minmax", "standard"])
def test_lazy_arrays_hold_the_encoded_events_whatever_the_partitions(
    tutorial, client, cms_events, normalisation
):
    dataset = dataset_of(
        tutorial,
        client,
        partition={"max_events": 1_500},
        encode={"normalisation": normalisation},
    )
    arrays = dataset.to_dask()
    encoding = dataset.encoding()
    width = encoding.layout.num_columns
    assert arrays.x.shape == arrays.missing.shape == (16_052, width)
    assert arrays.x.chunks[0] == tuple(map(len, dataset.plan().partitions))
    assert [array.shape for array in arrays[2:]] == [(16_052,), (16_052,), (16_052, 2), (16_052,)]
    x, missing, y, _, ids, split = client.gather(client.compute([*arrays]))
    encoded = encode(cms_events, encoding)
    np.testing.assert_array_equal(x, encoded.dense())
    np.testing.assert_array_equal(missing, encoded.missing())
    assert (x.dtype, missing.dtype, y.dtype, ids.dtype) == ("f4", "?", "f4", "u8")
    assert y.sum() == 5_684
    assert len(np.unique(ids, axis=0)) == 16_052
    np.testing.assert_array_equal(split, split_of(ids, (0.64, 0.16, 0.2), seed=0))
    assert split.dtype == "u1"


UNIFORM = """
import numpy as np


def uniform(specs):
    fractions = np.linspace(0, 1, 17)
    x, first = np.unique(specs.quantiles(fractions), return_index=True)
    return x, fractions[first]
"""


def filled(histogram):
    return sum(counts.sum() for counts in histogram.contents.values())


def test_every_option_of_encode_reaches_blocks_and_bundle(tutorial, client, cms_events, tmp_path):
    (tmp_path / "normalise.py").write_text(UNIFORM)
    tutorial["branches"] = {"exclude": [*MC, "Jet_E"]}
    tutorial["encode"] = {
        "width": {"Jet": {"quantile": 0.9}, "M*": 1},
        "sort": {"Jet": "-Jet_E"},  # which is no input
        "normalisation": {
            "Jet_btag": "normalise.py:uniform",
            "*_E": "log-standard",
            "*_P[xyz]": "symlog-robust",
        },
        "out_of_range": {"Jet_btag": "clip", "*_P[xyz]": "clip"},
    }
    rows = set()
    for max_events in (1_500, 100_000):
        keys = {**tutorial, "partition": {"max_events": max_events}}
        dataset = Dataset(Config.from_mapping(keys, base=tmp_path), client)
        rows.add(dataset.to_dask().x.compute().tobytes())
    assert len(rows) == 1
    encoding = dataset.encoding()
    assert "Jet_E" not in encoding.layout.branches
    assert "sorted by, no inputs: Jet_E" in dataset.plan().to_text()
    encoded = encode(cms_events, encoding)
    assert encoded.dense().tobytes() in rows
    array = cms_events.to_awkward()
    (jets,) = (
        n
        for n in range(10)
        if np.mean(ak.num(array.Jet_E) <= n) >= 0.9 > np.mean(ak.num(array.Jet_E) < n)
    )
    assert encoding.layout.collection_widths["Jet"] == jets
    assert encoding.layout.collection_widths["Muon"] == 1
    # The ranks of the tagged jets are spread evenly, but for the many with equal values.
    btag = ak.flatten(array.Jet_btag).to_numpy()
    found = dict(zip(encoding.layout.branches, encoding.scalings, strict=True))["Jet_btag"]
    assert found.table.at(np.quantile(btag, [0.0, 1.0])).tolist() == [0.0, 1.0]
    options = dataset.encode_options()
    assert "normalise.py" not in json.dumps(options)
    bundle = write_bundle(
        tmp_path / "bundle",
        name="all",
        model=b"",
        specs=dataset.specs(),
        encode=options,
        metrics={},
        data={},
        card="",
    )
    assert bundle.encoding == encoding
    clipped = {b.name for b, s in zip(encoding.branches, encoding.scalings, strict=True) if s.clip}
    assert clipped == {"Jet_btag"} | {n for n in encoding.layout.branches if n[-3:-1] == "_P"}
    assert [b["name"] for b in bundle.manifest["input"]["branches"]][-1] == "Jet_E"
    shown = dataset.distributions()
    assert sum(filled(part.encoded["Jet_E"]) for part in shown if "Jet_E" in part.encoded) == 0
    assert all(filled(part.encoded["Muon_E"]) > 0 for part in shown)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        ({"normalisation": {"*": "none", "MET_px": "log"}}, "'MET_px' matches no branch that ear"),
        ({"normalisation": [{"Jet_px": "none"}]}, "'Jet_px' matches no branch; did you mean 'Jet_"),
        (
            {"normalisation": {"EventWeight": "none"}},
            "'EventWeight' matches no branch; 'EventWeight' is not among the inputs that bran",
        ),
        (
            {"width": {"Top": 2}},
            "'Top' matches no collection; there are Electron, Jet, Muon, Photon",
        ),
        ({"width": {"Jets": 2}}, "encode.width: pattern 'Jets' matches no collection; did you"),
        (
            {"out_of_range": {"Jte_*": "clip"}},
            "encode.out_of_range: pattern 'Jte_*' matches no bra",
        ),
        ({"sort": {"Jet": "-Jet_PX"}}, "encode.sort: branch 'Jet_PX' is not in collection 'Jet'"),
        (
            {"normalisation": {"MET_p?": {"x": [0, 0], "y": [1, 2]}}},
            "encode.normalisation of 'MET_p?': the x of a table ascend, each larger than the one",
        ),
        ({"normalisation": {"shift": 1, "scale": 0}}, "shift and scale are finite, and scale is"),
        ({"normalisation": "nowhere.py:f"}, "nowhere.py cannot be read (No such file"),
        ({"normalisation": "no_such_module:f"}, "module 'no_such_module' cannot be found"),
        (
            {"normalisation": "json:dump_"},
            "encode.normalisation: json has no 'dump_'; did you mean 'dump",
        ),
    ],
)
def test_encode_that_does_not_fit_the_branches_is_refused_before_a_cluster_is_needed(
    tutorial, encode, message
):
    with pytest.raises(ConfigError) as caught:
        preflight(description_of(Config.from_mapping({**tutorial, "encode": encode})))
    assert message in str(caught.value)


def test_inputs_without_any_object_are_refused(tutorial, client):
    tutorial["branches"] = {"include": ["Jet_P?"]}
    dataset = dataset_of(tutorial, client, objects={"Jet": "Jet_Px > 1e9"})
    with pytest.raises(DataError, match="object in any of the inputs Jet_Px, Jet_Py, Jet_Pz: rows"):
        dataset.to_dask()


def test_a_function_that_fails_names_its_branch(tutorial, client, tmp_path):
    (tmp_path / "normalise.py").write_text("def f(specs):\n    return [1.0, 2.0]\n")
    tutorial["encode"] = {"normalisation": {"MET_px": "normalise.py:f"}}
    dataset = Dataset(Config.from_mapping(tutorial, base=tmp_path), client)
    assert (
        dataset.encoding().scalings[dataset.encoding().layout.branches.index("MET_px")].scale == 2
    )
    (tmp_path / "normalise.py").write_text("def f(specs):\n    return specs.medain\n")
    dataset = Dataset(Config.from_mapping(tutorial, base=tmp_path), client)
    with pytest.raises(
        EncodeError,
        match=r"failed in line \d+ of \w+.py for branch 'MET_px' .*medain.*; it returns shift",
    ):
        dataset.encoding()
    (tmp_path / "normalise.py").write_text("def f(specs):\n    raise SystemExit(4)\n")
    dataset = Dataset(Config.from_mapping(tutorial, base=tmp_path), client)
    with pytest.raises(EncodeError, match=r"for branch 'MET_px' .SystemExit: 4."):
        dataset.encoding()


def test_the_split_does_not_depend_on_partitions_or_the_order_of_files(tutorial, client):
    def members(keys, **more):
        dataset = dataset_of(keys, client, **more)
        blocks = dataset.blocks()
        futures = [blocks.submit(ClusterHandle(client), n) for n in range(len(blocks.partitions))]
        found = set()
        for block in client.gather(futures):
            rows = np.column_stack([block.id, block.split])
            found.update(map(tuple, rows.tolist()))
        return found

    reversed_files = {**tutorial, "samples": list(reversed(tutorial["samples"]))}
    reference = members(tutorial)
    assert len(reference) == 16_052
    assert members(tutorial, partition={"max_events": 999}) == reference
    assert members(reversed_files) == reference
    assert members(tutorial, seed=1) != reference


def test_the_awkward_view_reads_only_what_is_touched(tutorial, client, cms_events):
    view = dataset_of(tutorial, client).to_dask_awkward()
    assert len(view.fields) == 31
    [touched] = dask_awkward.necessary_columns(view.Jet_Px + 1).values()
    assert touched == {"Jet_Px"}
    total = client.compute(dask_awkward.sum(view.Jet_Px)).result()
    expected = ak.sum(ak.values_astype(cms_events.to_awkward().Jet_Px, np.float64))
    assert total == pytest.approx(expected, rel=1e-5)
    assert client.compute(dask_awkward.num(view.MET_px, axis=0)).result() == 16_052


def test_max_events_limits_every_sample_and_the_specs(tutorial, client):
    dataset = dataset_of(tutorial, client, max_events=5_000)
    plan = dataset.plan()
    assert [plan.num_events_of(name) for name in ("single_top", "diboson")] == [5_000, 5_000]
    assert dataset.specs().num_events == 10_000


def test_weights_follow_the_cross_sections(tutorial, client):
    tutorial["samples"][0] |= {"cross_section": 2.0, "weight": 3.0}
    tutorial["samples"][1] |= {"cross_section": 50.0}
    dataset = dataset_of(tutorial, client)
    weights = client.compute(dataset.to_dask().w).result()
    assert weights[:5_684].sum() == pytest.approx(6.0, rel=1e-4)
    assert weights[5_684:].sum() == pytest.approx(50.0, rel=1e-4)
    assert dataset.samples()["diboson"].sum_weights == 10_368  # of the events themselves


def test_branches_that_cannot_be_inputs_are_listed_with_the_reason(tmp_path, client):
    file = tmp_path / "a.root"
    with uproot.recreate(file) as out:
        events = ak.Array({"pt": [1.0, 2.0, 3.0], "name": ["a", "b", "c"]})
        out.mktree("Events", {"pt": "f8", "name": "string"})
        out["Events"].extend({"pt": events.pt, "name": events.name})
    other = write_tree(tmp_path / "b.root", name=np.arange(20))
    keys = two_samples(str(file), other)
    plan = dataset_of(keys, client).plan()
    assert [branch.name for branch in plan.branches] == ["pt"]
    assert plan.selection.left_out == {"name": "a string"}
    assert "name (a string)" in plan.to_text()
    with pytest.raises(ConfigError, match="name"):
        dataset_of(keys, client, branches={"include": ["name"]}).plan()


def test_a_branch_missing_in_one_file_names_both_files(tmp_path, client):
    whole = write_tree(tmp_path / "whole.root", seed=1)
    with uproot.recreate(tmp_path / "lacking.root") as out:
        out.mktree("Events", {"pt": "f8"})
        out["Events"].extend({"pt": np.ones(3)})
    lacking = str(tmp_path / "lacking.root")
    background = write_tree(tmp_path / "background.root", seed=2)
    with pytest.raises(DataError) as caught:
        dataset_of(two_samples([whole, lacking], background), client).plan()
    assert "eta" in str(caught.value)
    assert whole in str(caught.value)
    assert lacking in str(caught.value)


def test_a_branch_of_another_type_in_one_file_names_both_types(tmp_path, client):
    signal = write_tree(tmp_path / "signal.root")
    with uproot.recreate(tmp_path / "other.root") as out:
        out.mktree("Events", {"pt": "f8", "eta": "i4"})
        out["Events"].extend({"pt": np.ones(3), "eta": np.ones(3, "i4")})
    with pytest.raises(DataError, match=r"'eta' is flat int32 in .*other\.root but flat float32"):
        dataset_of(two_samples(signal, str(tmp_path / "other.root")), client).plan()


def test_a_copy_of_a_file_in_another_sample_is_an_error(tmp_path, client):
    signal = write_tree(tmp_path / "signal.root")
    shutil.copy(signal, tmp_path / "copy.root")
    with pytest.raises(DataError, match=r"copy\.root of sample 'background' has the UUID"):
        dataset_of(two_samples(signal, str(tmp_path / "copy.root")), client).plan()


def test_a_copy_of_a_file_in_the_same_sample_is_noted(tmp_path, client):
    signal = write_tree(tmp_path / "signal.root")
    copy = shutil.copy(signal, tmp_path / "copy.root")
    background = write_tree(tmp_path / "background.root", seed=1)
    plan = dataset_of(two_samples([signal, str(copy)], background), client).plan()
    assert plan.num_events == 60
    assert len(plan.notes) == 1
    assert "may count twice" in plan.notes[0]


def test_files_without_events_are_noted(tmp_path, client):
    signal, background = (write_tree(tmp_path / f"{n}.root", seed=n) for n in range(2))
    blank = write_tree(tmp_path / "blank.root", events=0)
    plan = dataset_of(two_samples([signal, blank], background), client).plan()
    assert plan.notes == (f"1 of 3 files hold no events, the first: {blank}",)


@pytest.mark.filterwarnings("ignore")  # coffea's advice on its interfaces changes with its versions
def test_a_file_that_is_not_what_its_file_set_recorded_is_told(tmp_path, client, caplog):
    from coffea.dataset_tools import preprocess

    files = {
        name: write_tree(tmp_path / f"{name}.root", seed=seed)
        for seed, name in enumerate(("signal", "kept", "longer", "again"))
    }
    background = {files[name]: "Events" for name in ("kept", "longer", "again")}
    with dask.config.set(scheduler="synchronous"):
        made, _ = preprocess({"background": {"files": background}})
    (tmp_path / "fileset.json").write_text(json.dumps(made))
    uuids = {name: str(uproot.open(file).file.uuid) for name, file in files.items()}
    write_tree(files["longer"], events=25, seed=7)
    write_tree(files["again"], seed=8)
    keys = two_samples(files["signal"], str(tmp_path / "fileset.json"))
    with caplog.at_level(logging.WARNING):  # a local cluster silences pytest's handler
        plan = dataset_of(keys, client).plan()
    assert plan.num_events == 20 + 20 + 25 + 20
    longer, again = plan.notes
    assert longer.startswith(f"{files['longer']} is not what its file set recorded")
    assert "20 entries, and it has 25" in longer
    assert again.startswith(f"{files['again']} is not what its file set recorded")
    assert "entries" not in again
    assert uuids["again"] in again
    assert str(uproot.open(files["again"]).file.uuid) in again
    (told,) = [text for text in caplog.messages if "file set" in text]
    assert told == f"{longer}; likewise 1 more"


def test_a_sample_without_events_is_an_error(tmp_path, client):
    signal = write_tree(tmp_path / "signal.root")
    empty = write_tree(tmp_path / "empty.root", events=0)
    with pytest.raises(DataError, match="sample 'background' is empty"):
        dataset_of(two_samples(signal, empty), client).plan()


def damaged(path, source):
    """A copy of a file with a stretch of its baskets overwritten."""
    content = bytearray(source.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 2_000] = b"\x5a" * 2_000
    path.write_bytes(content)
    return str(path)


def test_a_damaged_file_stops_the_run_and_is_named(tutorial, client, tmp_path, cms_files):
    bad = damaged(tmp_path / "bad.root", cms_files[1])
    tutorial["samples"][1]["files"] = [bad, str(cms_files[2])]
    with pytest.raises(UnreadableFileError) as caught:
        dataset_of(tutorial, client).specs()
    assert bad in str(caught.value)
    assert caught.value.file == bad


@pytest.mark.parametrize(
    ("bad_samples", "length", "message"),
    [
        (
            [1],
            1_000,
            "sample 'b' is empty: 0 readable files .* the first: .*bad1.root cannot",
        ),
        ([0, 1], 1_000, "no file of any sample can be read, the first: .*bad0.root cannot be read"),
        ([1], None, "no event of sample 'b' could be read; 1 could not .* the first: .*bad1.root"),
    ],
)
def test_a_sample_of_which_nothing_can_be_read_tells_why_though_it_may_be_skipped(
    client, tmp_path, cms_files, bad_samples, length, message
):
    files = [str(file) for file in cms_files[:2]]
    for number in bad_samples:
        files[number] = damaged(tmp_path / f"bad{number}.root", cms_files[number])
        if length is not None:
            Path(files[number]).write_bytes(cms_files[number].read_bytes()[:length])
    samples = [{"name": n, "label": 1 - i, "files": files[i]} for i, n in enumerate("ab")]
    keys = {"tree": "events", "samples": samples, "on_bad_file": "skip"}
    with pytest.raises(DataError, match=message):
        dataset_of(keys, client).specs()


def test_damaged_and_unopenable_files_are_skipped_and_counted_if_asked(
    tutorial, client, tmp_path, cms_files
):
    bad = damaged(tmp_path / "bad.root", cms_files[1])
    truncated = tmp_path / "truncated.root"
    truncated.write_bytes(cms_files[2].read_bytes()[:1_000])
    tutorial["samples"][1]["files"] = [bad, str(truncated), str(cms_files[3])]
    dataset = dataset_of(tutorial, client, on_bad_file="skip")
    specs = dataset.specs()
    skipped = {entry.file: entry for entry in dataset.skipped()}
    assert set(skipped) == {bad, str(truncated)}
    assert skipped[str(truncated)].entry_stop is None
    lost = skipped[bad].entry_stop - skipped[bad].entry_start
    assert specs.num_events == 5_684 + 2_421
    assert dataset.plan().num_events - lost == specs.num_events
    assert dataset.to_dask().x.shape[0] == specs.num_events


def test_a_file_that_changes_after_the_plan_is_noticed(tmp_path, client):
    signal = write_tree(tmp_path / "signal.root")
    dataset = dataset_of(
        two_samples(signal, write_tree(tmp_path / "background.root", seed=1)), client
    )
    dataset.plan()
    write_tree(tmp_path / "signal.root", events=30, seed=5)
    with pytest.raises(DataError, match="has changed since it was planned"):
        dataset.specs()


def test_reprs_show_the_data_and_escape_names(tutorial, client):
    dataset = dataset_of(tutorial, client)
    assert "not planned yet" in dataset._repr_html_()
    arrays = dataset.to_dask()
    assert "Jet_Px" in dataset._repr_html_()
    assert "16,052" in dataset.plan()._repr_html_()
    assert "single_top" in dataset.plan()._repr_html_()
    assert "float32" in arrays._repr_html_()


def test_arrays_of_one_data_set_share_their_blocks(tutorial, client):
    arrays = dataset_of(tutorial, client).to_dask()
    together = dask.optimize(arrays.x, arrays.y)
    graph = {**dict(together[0].dask), **dict(together[1].dask)}
    blocks = [key for key in graph if isinstance(key, tuple) and str(key[0]).startswith("block-")]
    assert len(blocks) == len(arrays.x.chunks[0])


class SizesOfTasks(SchedulerPlugin):
    """The bytes of every task that plans a file, as they go to a worker."""

    name = "sizes-of-tasks"

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.sizes = []

    def transition(self, key, _start, finish, *_others, **_more):
        if finish == "processing" and str(key).startswith("plan_one"):
            self.sizes.append(len(pickle.dumps(self.scheduler.tasks[key].run_spec)))


def test_what_all_files_are_compared_with_is_not_sent_with_every_file(edge_cases, client, tmp_path):
    for copy in "abcd":
        shutil.copy(edge_cases / "nano_dy.root", tmp_path / f"{copy}.root")
    files = {"signal": str(tmp_path / "[ab].root"), "background": str(tmp_path / "[cd].root")}
    # The UUIDs of copies are equal, which is an error among samples: only the tasks count.
    dataset = dataset_of({"name": "wide", **two_samples(**files)}, client)
    scheduler = client.cluster.scheduler
    plugin = SizesOfTasks(scheduler)
    scheduler.add_plugin(plugin)
    try:
        with pytest.raises(DataError, match="one is a copy of the other"):
            dataset.plan()
    finally:
        scheduler.remove_plugin(plugin.name)
    assert len(plugin.sizes) == 2  # the first file of each sample was opened before
    assert max(plugin.sizes) < 2_000
