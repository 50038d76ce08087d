import html
import math
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import uproot
from dask.sizeof import sizeof
from servers import http_server

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config import Cluster, Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.cache import SUFFIX, prune
from mlaas4hep_dask.dataset.collecting import collect
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.dataset.reduce import FAN_IN, Groups
from mlaas4hep_dask.dataset.specs_pass import file_pieces
from mlaas4hep_dask.dataset.subset import subset_units
from mlaas4hep_dask.dataset.tasks import make_block, measure_partition
from mlaas4hep_dask.encode import EncodeCounts
from mlaas4hep_dask.errors import ConfigError, DataError, SpecsError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.reader import PlannedFile, read
from mlaas4hep_dask.report.page import render_page
from mlaas4hep_dask.run.specs_notes import specs_notes
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.specs.specs import merge_all
from mlaas4hep_dask.waiting import ClusterHandle

NUM_EVENTS = 16_052


@pytest.fixture
def keys(cms_files, tmp_path):
    """Keys of a dataset.yaml for copies of the tutorial's files, with a cache of its own."""
    signal, *background = (shutil.copy2(file, tmp_path) for file in cms_files)
    return {
        "name": "tutorial",
        "tree": "events",
        "samples": [
            {"name": "single_top", "label": 1, "files": str(signal)},
            {"name": "diboson", "label": 0, "files": list(map(str, background))},
        ],
        "branches": {"exclude": ["MC*", "EventWeight"]},
        "specs": {"cache": str(tmp_path / "cache")},
    }


def dataset_of(keys, client, **more):
    return Dataset(Config.from_mapping({**keys, **more}), client)


def entries(keys):
    return sorted(Path(keys["specs"]["cache"]).glob(f"??/*{SUFFIX}"))


def assert_same(a, b):
    """Equal specs but for rounding, and equal draws."""
    a, b = a.in_order(), b.in_order()
    assert a.multiplicities == b.multiplicities
    assert a.draws == b.draws
    assert a.samples == b.samples
    for name, entry in a.branches.items():
        other = b.branches[name]
        assert entry.moments[:6] == other.moments[:6]
        assert entry.drawn.tobytes() == other.drawn.tobytes()
        assert entry.moments.mean == pytest.approx(other.moments.mean, rel=1e-9, abs=1e-12)


def fill_with_garbage(file):
    """Overwrite what a file holds, but neither its header nor what a stat call tells."""
    before = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 3 : len(content) // 2] = b"\x5a" * (
        len(content) // 2 - len(content) // 3
    )
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_added_file_is_read_and_no_other(keys, client):
    left_out = keys["samples"][1]["files"].pop()
    first = dataset_of(keys, client)
    num_first = first.plan().num_events
    first.specs()
    assert first.num_cached() == 0
    assert len(entries(keys)) == 3

    known = [Path(keys["samples"][0]["files"]), *map(Path, keys["samples"][1]["files"])]
    reference = Dataset(
        Config.from_mapping({**_with_file(keys, left_out), "specs": {"cache": None}}), client
    ).specs()
    for file in known:  # reading any of them again would fail
        fill_with_garbage(file)
    grown = dataset_of(_with_file(keys, left_out), client)
    specs = grown.specs()
    assert grown.num_cached() == num_first
    assert grown.plan().num_events == NUM_EVENTS
    assert_same(specs, reference)
    assert len(entries(keys)) == 4

    fresh = dataset_of(_with_file(keys, left_out), client, specs={"cache": None})
    with pytest.raises(DataError):
        fresh.specs()


def _with_file(keys, file):
    signal, background = keys["samples"]
    return {**keys, "samples": [signal, {**background, "files": [*background["files"], file]}]}


def test_a_changed_file_is_measured_again(keys, client):
    dataset_of(keys, client).specs()
    changed = Path(keys["samples"][1]["files"][0])
    os.utime(changed)  # a copy in its place, perhaps
    again = dataset_of(keys, client)
    again.specs()
    assert again.num_cached() == NUM_EVENTS - num_entries_of(again, changed)
    shutil.copy(keys["samples"][1]["files"][1], changed)  # has another UUID
    keys["samples"][1]["files"].pop(1)
    third = dataset_of(keys, client)
    third.specs()
    assert third.plan().num_events - third.num_cached() == num_entries_of(third, changed)


@pytest.mark.server
def test_a_file_on_a_server_that_is_written_to_again_is_measured_again(keys, client, tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    file = folder / "a.root"
    uuids = []
    with http_server(folder) as (_, base):
        own = {
            **keys,
            "samples": [{"name": "one", "files": f"{base}/a.root"}],
            "target": {"kind": "regression", "branch": "y"},
            "branches": {"include": ["x"]},
        }
        for largest in (1.0, 2.0):
            columns = {"x": np.arange(1_000) // (700 / largest), "y": np.arange(1_000.0)}
            if uuids:
                columns["z"] = columns["y"]  # so that the file ends elsewhere
            with uproot.recreate(file) as out:
                out.mktree("events", {name: column.dtype for name, column in columns.items()})
                out["events"].extend(columns)
            with uproot.open(file) as made:
                uuids.append(made.file.uuid.bytes)
            file.write_bytes(file.read_bytes().replace(uuids[-1], uuids[0]))
            dataset = dataset_of(own, client)
            assert dataset.specs().branches["x"].max == largest
            assert dataset.num_cached() == 0
            again = dataset_of(own, client)
            assert again.specs().branches["x"].max == largest
            assert again.num_cached() == 1_000
    assert uuids[0] != uuids[1]


def num_entries_of(dataset, path):
    return next(file.num_entries for file in dataset.plan().files if file.file == str(path))


@pytest.mark.parametrize(
    ("change", "num_cached"),
    [
        ({"branches": {"exclude": ["MC*", "EventWeight", "Jet_*"]}}, 0),
        ({"max_events": 3_000}, 0),
        ({"seed": 5}, NUM_EVENTS),
        ({"split": {"train": 0.5, "validation": 0.25, "test": 0.25}}, NUM_EVENTS),
        ({"partition": {"max_events": 900}}, 0),  # means have other last digits
        ({"encode": {"normalisation": "standard"}}, NUM_EVENTS),
        ({"training": {"epochs": 9}}, NUM_EVENTS),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_only_what_changes_the_specs_of_a_file_makes_it_be_measured_again(
    keys, client, change, num_cached
):
    dataset_of(keys, client, partition={"max_events": 3_000}).specs()
    change = {"partition": {"max_events": 3_000}, **change}
    dataset = dataset_of(keys, client, **change)
    fresh = dataset_of(keys, client, **change, specs={"cache": None})
    assert dataset.specs().to_json() == fresh.specs().to_json()
    assert dataset.num_cached() == num_cached
    assert dataset.split_counts() == fresh.split_counts()


SELECTION = {"select": "NJet >= 2", "objects": {"Jet": "Jet_E > 50"}}


@pytest.mark.parametrize(
    ("change", "is_cached"),
    [
        ({"encode": {"normalisation": "standard"}}, True),
        ({"seed": 5}, False),
        ({"partition": {"max_events": 900}}, False),
        ({"select": "NJet >= 3"}, False),
        ({"objects": {}}, False),
        ({"derive": {"HT": "sum(Jet_E)"}}, False),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_cached_files_are_not_read_to_count_what_is_selected(keys, client, change, is_cached):
    selected = {**keys, **SELECTION}
    first = dataset_of(selected, client, partition={"max_events": 3_000})
    first.specs()
    assert first.num_cached() == 0
    change = {"partition": {"max_events": 3_000}, **change}
    fresh = dataset_of(selected, client, specs={"cache": None}, **change)
    expected, counts = fresh.specs(), fresh.split_counts()
    files = [keys["samples"][0]["files"], *keys["samples"][1]["files"]]
    if is_cached:
        for file in files:
            fill_with_garbage(Path(file))
    again = dataset_of(selected, client, **change)
    assert again.specs().to_json() == expected.to_json()
    assert again.num_cached() == (NUM_EVENTS if is_cached else 0)
    assert again.split_counts() == counts


def test_weights_of_cached_files_are_those_of_the_new_run(keys, client):
    dataset_of(keys, client).specs()
    signal, background = keys["samples"]
    samples = [{**signal, "weight": 2.0, "name": "renamed"}, {**background, "weight": 0.5}]
    dataset = dataset_of(keys, client, samples=samples)
    found = dataset.specs().samples
    assert dataset.num_cached() == NUM_EVENTS
    assert found["renamed"].sum_weights == found["renamed"].num_selected
    assert dataset.factors() == {"renamed": 2.0, "diboson": 0.5}


def test_cached_specs_know_the_classes_that_samples_have_in_the_new_run(keys, client):
    specs = dataset_of(keys, client).specs()
    counts = np.bincount(specs.draws[""].classes, minlength=256)
    shares = [sample.num_selected / NUM_EVENTS for _, sample in sorted(specs.samples.items())]
    assert counts[2:].sum() == 0
    np.testing.assert_allclose(counts[:2] / counts.sum(), shares, atol=0.04)  # 5 standard errors
    signal, background = keys["samples"]
    keys["samples"] = [{**signal, "label": 0}, {**background, "label": 1}]
    again = dataset_of(keys, client)
    for group, draw in again.specs().draws.items():
        np.testing.assert_array_equal(draw.classes, 1 - specs.draws[group].classes)
    assert again.num_cached() == NUM_EVENTS


def test_classes_of_a_branch_are_those_of_the_drawn_events_and_their_objects(keys, client):
    keys["samples"] = [
        {key: value for key, value in sample.items() if key != "label"}
        for sample in keys["samples"]
    ]
    keys["target"] = {"branch": "NJet > 2", "classes": ["few", "many"]}
    keys["branches"] = {**keys.get("branches", {}), "include": ["*", "Jet_*"]}
    specs = dataset_of(keys, client).specs()
    files = [keys["samples"][0]["files"], *keys["samples"][1]["files"]]
    multiplicities = np.concatenate(
        [
            part["NJet"]
            for part in uproot.iterate([f"{file}:events" for file in files], "NJet", library="np")
        ]
    )
    for group, of_all in (("", np.ones(NUM_EVENTS)), ("Jet", multiplicities)):
        classes = specs.draws[group].classes
        expected = of_all[multiplicities > 2].sum() / of_all.sum()
        assert np.isin(classes, [0, 1]).all()
        assert classes.mean() == pytest.approx(expected, abs=0.04)  # 5 standard errors


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "of another file"])
def test_a_damaged_entry_is_noticed_measured_again_and_mended(keys, client, damage):
    whole = dataset_of(keys, client).specs()
    bad, other, *_ = entries(keys)
    content = bytearray(bad.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0x10
    elif damage == "emptied":
        content.clear()
    else:
        content = other.read_bytes()
    bad.write_bytes(content)
    dataset = dataset_of(keys, client)
    assert_same(dataset.specs(), whole)
    assert 0 < dataset.num_cached() < NUM_EVENTS
    mended = dataset_of(keys, client)
    mended.specs()
    assert mended.num_cached() == NUM_EVENTS


def test_the_oldest_entries_are_deleted_when_the_cache_is_full(keys, client):
    dataset_of(keys, client).specs()
    folder = Path(keys["specs"]["cache"])
    oldest = entries(keys)[2]
    os.utime(oldest, (1, 1))
    sizes = sum(entry.stat().st_size for entry in entries(keys))
    assert prune(folder, sizes) == 0
    assert prune(folder, sizes - 1) == 1
    assert not oldest.exists()
    dataset_of(keys, client, specs={**keys["specs"], "cache_bytes": 1}).specs()
    assert entries(keys) == []


def test_specs_of_a_file_that_could_not_be_read_whole_are_not_kept(keys, client):
    bad = Path(keys["samples"][1]["files"][0])
    fill_with_garbage(bad)
    dataset = dataset_of(keys, client, on_bad_file="skip", partition={"max_events": 500})
    dataset.specs()
    assert {lost.file for lost in dataset.skipped()} == {str(bad)}
    assert len(entries(keys)) == 3
    again = dataset_of(keys, client, on_bad_file="skip", partition={"max_events": 500})
    again.specs()
    assert {lost.file for lost in again.skipped()} == {str(bad)}
    assert again.split_counts() == dataset.split_counts()


def test_a_cache_that_cannot_be_written_is_an_error_that_names_the_key(keys, client, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"specs\.cache") as caught:
        dataset_of(keys, client, specs={"cache": str(tmp_path / "file" / "cache")}).specs()
    assert caught.value.key == "specs.cache"


@pytest.mark.parametrize("max_tasks", [1, 3, 7, 1000])
def test_coarser_tasks_give_the_same_specs_and_fill_the_cache_too(keys, client, max_tasks):
    dataset = dataset_of(keys, client, partition={"max_events": 900})
    plan, context = dataset.plan(), dataset.plan().context
    folder = Path(keys["specs"]["cache"])
    for num_cached in (0, NUM_EVENTS):
        pieces = file_pieces(plan, folder, {})
        tasks = [task for group in Groups(pieces, max_tasks=max_tasks) for task in group.tasks]
        assert sum(len(piece) for task in tasks for piece in task) == len(plan.partitions)
        measured = collect(
            ClusterHandle(client),
            pieces,
            context,
            token="any",  # noqa: S106
            max_tasks=max_tasks,
        )
        assert len(tasks) <= min(max_tasks, len(plan.partitions)) + len(plan.files)
        assert measured.num_cached == num_cached
        assert sorted(measured.split_counts) == list(range(len(plan.partitions)))
        assert_same(measured.specs, dataset_of(keys, client, specs={"cache": None}).specs())
    assert len(entries(keys)) == 4


@pytest.mark.parametrize(("threads", "size"), [(1, 4), (5, 4), (6, 3), (10, 2), (12, 1), (999, 1)])
def test_tasks_take_several_partitions_if_all_threads_have_enough_of_them(
    keys, client, threads, size
):
    dataset = dataset_of(keys, client, partition={"max_events": 100})
    plan = dataset.plan()
    assert len(plan.partitions) == 165
    pieces = file_pieces(plan, None, {})
    groups = list(Groups(pieces, threads=threads))
    assert max(len(group.tasks) for group in groups) == max(2, min(FAN_IN, threads))
    tasks = [task for group in groups for task in group.tasks]
    numbers = []
    for (piece,) in tasks:
        last = piece.first + len(piece)
        assert piece.partitions == plan.partitions[piece.first : last]
        if len(piece) != size:  # what is left of a file
            following = plan.partitions[last : last + 1]
            assert all(part.file != piece.partitions[0].file for part in following)
        numbers += range(piece.first, last)
    assert numbers == list(range(165))


def test_dask_knows_the_size_of_what_tasks_return(keys, client):
    dataset = dataset_of(keys, client)
    blocks = dataset.blocks()
    block = make_block(blocks.partitions[0], blocks.context)
    assert sizeof(block) == pytest.approx(block.nbytes, rel=0.01)
    measured = measure_partition(blocks.partitions[0], 0, blocks.context)
    assert sizeof(measured) == pytest.approx(len(pickle.dumps(measured)), rel=0.1)
    events = read(blocks.partitions[0], dataset.plan().branches)
    held = [*events.contents.values(), *events.offsets.values()]
    assert sizeof(events) == pytest.approx(sum(array.nbytes for array in held), rel=0.01)


# Sampling


def planned(name, clusters, sample="s"):
    return PlannedFile(
        name, "Events", f"uuid of {name}", sample, clusters[-1], tuple(clusters), (), 400.0
    )


FILES = [
    *(planned(f"a{n}", range(5_000, 5_000 * 40 + 1, 5_000), "a") for n in range(10)),
    *(planned(f"b{n}", [3_000], "b") for n in range(30)),
    planned("c", [40], "c"),
]
USED = {(file.file, file.tree): file.num_entries for file in FILES}


def test_the_clusters_of_a_subset_are_spread_over_samples_and_files():
    units = subset_units(FILES, USED, fraction=0.1, seed=0)
    by_sample = {name: [u for u in units if u.sample == name] for name in "abc"}
    assert [len(found) for found in by_sample.values()] == [40, 3, 1]
    for file in FILES[:10]:
        assert sum(unit.file == file.file for unit in by_sample["a"]) == 4
    assert all(unit.entry_start % 5_000 == 0 and len(unit) == 5_000 for unit in by_sample["a"])
    assert len({(unit.file, unit.entry_start) for unit in units}) == len(units)


def test_which_clusters_a_subset_has_depends_on_seed_and_files_but_not_on_their_order():
    def chosen(files, seed=0):
        units = subset_units(files, USED, fraction=0.1, seed=seed)
        return {(unit.file, unit.sample, unit.entry_start) for unit in units}

    assert chosen(FILES) == chosen(FILES[::-1])
    assert chosen(FILES) != chosen(FILES, seed=1)
    covered = set().union(*(chosen(FILES, seed) for seed in range(60)))
    assert len({start for _, sample, start in covered if sample == "a"}) == 40


@pytest.fixture(scope="module")
def large_files(tmp_path_factory):
    """Two files of 40 clusters of 2,500 events."""
    folder = tmp_path_factory.mktemp("large")
    random = np.random.default_rng(3)
    files = []
    for name, shift in (("signal", 0.3), ("background", 0.0)):
        path = folder / f"{name}.root"
        with uproot.recreate(path) as file:
            file.mktree("Events", {"normal": "f4", "heavy": "f8", "flag": "i4", "empty": "f4"})
            for _ in range(40):
                file["Events"].extend(
                    {
                        "normal": random.normal(shift, size=2_500).astype("f4"),
                        "heavy": random.standard_cauchy(2_500),
                        "flag": random.integers(0, 2, 2_500, dtype="i4"),
                        "empty": np.full(2_500, np.nan, "f4"),
                    }
                )
        files.append(str(path))
    return files


@pytest.fixture
def large(large_files):
    signal, background = large_files
    return {
        "samples": [
            {"name": "signal", "label": 1, "files": signal},
            {"name": "background", "label": 0, "files": background},
        ],
        "specs": {"cache": None},
    }


def test_specs_of_a_subset_have_the_uncertainty_that_they_state(large, client):
    full = dataset_of(large, client)
    subset = dataset_of(large, client, specs={"mode": "subset", "fraction": 0.1})
    specs = subset.specs()
    assert specs.num_events == 20_000
    assert specs.coverage == pytest.approx(0.1)
    assert subset.samples() == full.samples()
    assert subset.split_counts() == full.split_counts()
    for name, entry in specs.branches.items():
        whole = full.specs().branches[name]
        if whole.mean is None:
            assert (entry.mean, specs.mean_error(name)) == (None, 0)
            continue
        if name != "heavy":  # has no mean
            error = specs.mean_error(name)
            assert abs(entry.mean - whole.mean) < 5 * error
            assert error == pytest.approx(math.sqrt(whole.variance / 20_000 * 0.9), rel=0.05)
        low, high = full_values(large, name, entry.min, entry.max)
        assert (low + high) / 200_000 <= 10 * specs.outside(name)
    assert specs.outside("normal") == pytest.approx(0.9 * 2 / 20_001)
    assert full.specs().outside("normal") == full.specs().mean_error("normal") == 0
    assert Specs.from_json(specs.to_json()) == specs
    assert '"mean_error"' in specs.to_json()
    assert '"mean_error"' not in full.specs().to_json()


def full_values(large, name, low, high):
    values = np.concatenate(
        [
            uproot.open(sample["files"])["Events"][name].array(library="np")
            for sample in large["samples"]
        ]
    )
    return int((values < low).sum()), int((values > high).sum())


def notes_of(dataset):
    encode = dataset.config.encode
    return specs_notes(
        dataset.specs(),
        path=dataset.config.specs.path,
        normalisation=encode.normalisation,
        out_of_range=encode.out_of_range,
    )


def test_the_report_and_the_notebook_say_that_specs_are_those_of_a_subset(large, client):
    subset = dataset_of(large, client, specs={"mode": "subset", "fraction": 0.1})
    note, unseen = notes_of(subset)
    assert "a subset of 10.00% of the events" in note
    assert f"up to {subset.specs().outside('normal'):.2g} of the values are expected" in note
    assert unseen == "the subset of the specs has no value of empty"
    assert "standard deviations, and values outside are clipped" in note
    page = render_page({"counts": {"notes": [note]}}, subset.specs(), {"branches": {}})
    assert "a subset of 10.00 % of the data" in page
    assert note in html.unescape(page)
    assert "a subset of 10.00% of the data" in subset.specs()._repr_html_()
    full = dataset_of(large, client)
    assert notes_of(full) == []
    assert "a subset of" not in render_page({}, full.specs(), {"branches": {}})


def test_what_lies_outside_a_subset_is_clipped_and_counted(large, client):
    encode = {"normalisation": "minmax"}
    specs = {"mode": "subset", "fraction": 0.05}
    subset = dataset_of(large, client, specs=specs, encode=encode)
    assert subset.config.encode.out_of_range == "clip"
    expected = {}
    for name, entry in subset.specs().branches.items():
        if entry.min is not None and (num := sum(full_values(large, name, entry.min, entry.max))):
            expected[name] = num
    assert expected.keys() >= {"heavy"}
    counts = subset.encode_counts()
    assert counts.out_of_range == expected
    assert counts.not_finite == {"empty": 200_000}
    known = {0: EncodeCounts({"empty": 7})}
    num_first = len(subset.blocks().partitions[0])
    assert subset.encode_counts(known).not_finite == {"empty": 200_000 - num_first + 7}
    x = subset.to_dask().x.compute()
    assert x.shape[0] == 200_000
    assert (x.min(), x.max()) == (0, 1)


def test_a_subset_does_not_depend_on_partitions_or_the_order_of_samples(large, client):
    subset = {"mode": "subset", "fraction": 0.1}
    first = dataset_of(large, client, specs=subset).specs()
    turned = dataset_of(
        large,
        client,
        specs=subset,
        partition={"max_events": 7_000},
        samples=large["samples"][::-1],
    ).specs()
    assert_same(first, turned)
    # Of a few parts of each file, two seeds may draw the same.
    others = (dataset_of(large, client, specs=subset, seed=seed).specs() for seed in range(1, 7))
    assert any(other.branches["normal"].mean != first.branches["normal"].mean for other in others)


def test_what_is_selected_is_counted_in_all_files_though_a_subset_is_measured(large, client):
    selected = {**large, "select": "normal > 0"}
    full = dataset_of(selected, client)
    subset = dataset_of(selected, client, specs={"mode": "subset", "fraction": 0.1})
    specs = subset.specs()
    assert specs.branches["normal"].min > 0
    assert sum(sample.num_read for sample in specs.samples.values()) == 20_000
    assert 0.4 < specs.num_events / 20_000 < 0.8
    assert subset.samples() == full.samples()
    assert subset.split_counts() == full.split_counts()
    assert subset.to_dask().x.shape[0] == full.specs().num_events


def test_partitions_around_an_unreadable_unit_of_a_subset_are_left_out(keys, client):
    bad = Path(keys["samples"][1]["files"][0])
    fill_with_garbage(bad)
    subset = {"mode": "subset", "fraction": 0.99}
    dataset = dataset_of(keys, client, specs=subset, on_bad_file="skip")
    dataset.specs()
    assert {lost.file for lost in dataset.skipped()} == {str(bad)}
    num_lost = sum(lost.entry_stop - lost.entry_start for lost in dataset.skipped())
    found = dataset.samples()
    assert sum(s.num_read for s in found.values()) <= NUM_EVENTS - num_lost
    assert dataset.to_dask().x.compute().shape[0] == sum(s.num_read for s in found.values())


def test_all_events_around_an_unreadable_unit_of_a_subset_are_reported(large, client, tmp_path):
    bad = tmp_path / "background.root"
    shutil.copy(large["samples"][1]["files"], bad)
    with uproot.open(bad) as file:
        seek = int(file["Events"]["heavy"].member("fBasketSeek")[20])
    with bad.open("r+b") as file:
        file.seek(seek + 500)
        file.write(b"\x5a" * 500)
    large["samples"][1]["files"] = str(bad)
    subset = {"specs": {"mode": "subset", "fraction": 0.99, "cache": None}}
    partition = {"max_events": 25_000}
    dataset = dataset_of(large, client, **subset, on_bad_file="skip", partition=partition)
    specs = dataset.specs()
    (lost,) = dataset.skipped()
    assert (lost.entry_start, lost.entry_stop) == (50_000, 75_000)
    assert "cannot be read" in lost.reason
    assert sum(s.num_read for s in dataset.samples().values()) == 200_000 - 25_000
    assert specs.coverage <= 1
    assert all(found.num_unread >= 0 for found in specs.samples.values())


def test_an_explicit_out_of_range_is_kept_when_specs_are_of_a_subset(large):
    config = Config.from_mapping(
        {**large, "specs": {"mode": "subset"}, "encode": {"out_of_range": "pass"}}
    )
    assert config.encode.out_of_range == "pass"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"normal": "pass"}, [{"normal": "pass"}, {"*": "clip"}]),
        ([{"normal": "pass"}], [{"normal": "pass"}, {"*": "clip"}]),
        ({"heavy": "clip", "*": "pass"}, [{"heavy": "clip"}, {"*": "pass"}]),
    ],
)
def test_what_no_pattern_names_is_clipped_when_specs_are_of_a_subset(large, given, expected):
    keys = {**large, "specs": {"mode": "subset"}, "encode": {"out_of_range": given}}
    config = Config.from_mapping(keys)
    assert config.encode.out_of_range == expected
    again = Config.from_mapping(config.model_dump(mode="json"))
    assert again.encode.out_of_range == expected


# Specs of an earlier run


def test_specs_of_an_earlier_run_give_the_same_blocks_without_measuring(keys, client, tmp_path):
    first = dataset_of(keys, client)
    (tmp_path / "specs.json").write_text(first.specs().to_json())
    keys = {**keys, "specs": str(tmp_path)}
    again = dataset_of(keys, client, partition={"max_events": 900})
    assert again.specs().branches == first.specs().branches
    assert again.samples() == first.samples()
    assert again.specs().provenance["reused"]["path"] == str(tmp_path)
    x, expected = again.to_dask().x, first.to_dask().x
    np.testing.assert_array_equal(x.compute(), expected.compute())
    assert again.encode_counts() == first.encode_counts()
    assert again.token() != first.token()


def test_specs_that_do_not_agree_are_refused_with_every_difference(keys, client, tmp_path):
    specs = dataset_of(keys, client).specs()
    branches = dict(specs.branches)
    met = branches.pop("MET_px")
    branches["unknown"] = replace(met, branch=replace(met.branch, name="unknown"))
    jets = branches["NJet"]
    branches["NJet"] = replace(jets, branch=replace(jets.branch, dtype="uint32"))
    other = replace(specs, branches=branches).with_provenance(events={"select": "NJet > 2"})
    path = tmp_path / "other.json"
    path.write_text(other.to_json())
    config = Config.from_mapping({**keys, "specs": str(path)})
    with pytest.raises(SpecsError, match=r"other\.json do not agree") as caught:
        preflight(description_of(config))
    assert caught.value.differences == [
        "branch 'MET_px' is an input, but not in the specs",
        "branch 'NJet' is flat int32, in the specs flat uint32",
        "branch 'unknown' is in the specs, but not an input",
        "select is not given, in the specs 'NJet > 2'",
    ]


def test_specs_of_the_same_selection_agree_however_it_is_written(keys, client, tmp_path):
    first = {"select": ["NJet>=2 and MET_px<50"], "derive": {"HT": "sum(Jet_Px)*2"}}
    (tmp_path / "specs.json").write_text(dataset_of({**keys, **first}, client).specs().to_json())
    keys = {**keys, "specs": str(tmp_path)}
    again = {"select": ["MET_px < 50", "(NJet >= 2)"], "derive": {"HT": "2.0 * sum(Jet_Px)"}}
    with pytest.raises(SpecsError, match="do not agree") as caught:
        preflight(description_of(Config.from_mapping({**keys, **again})))
    assert caught.value.differences == [
        "derive is {'HT': '(2.0 * sum(Jet_Px))'}, in the specs {'HT': '(sum(Jet_Px) * 2)'}"
    ]
    again["derive"] = {"HT": "sum( Jet_Px ) * 2"}
    assert preflight(description_of(Config.from_mapping({**keys, **again}))).specs is not None


def test_specs_that_are_not_there_are_refused_before_anything_runs(keys, tmp_path):
    config = Config.from_mapping({**keys, "specs": {"path": str(tmp_path / "none.json")}})
    with pytest.raises(SpecsError, match=r"none\.json does not exist"):
        check_files(preflight(description_of(config)), config.partition, config.max_events)
    (tmp_path / "nine.json").write_text("{}")
    with pytest.raises(SpecsError, match=r"specs: .*none\.json .*; did you mean 'nine.json'\?"):
        preflight(description_of(config))


def test_a_path_that_starts_from_the_wrong_folder_is_mended(keys, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "specs.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    config = Config.from_mapping({**keys, "specs": "runs"}, base=tmp_path / "elsewhere")
    with pytest.raises(SpecsError, match=r"elsewhere.*does not exist.*did you mean") as caught:
        preflight(description_of(config))
    assert repr(str(tmp_path / "runs")) in str(caught.value)


@pytest.mark.timeout(280)
def test_specs_are_the_same_bits_whatever_cluster_and_cache(keys, client, tmp_path):
    """Workers, tasks of other sizes, and a cache that is cold, warm or warm for some files."""
    more = {
        "partition": {"max_events": 400},
        "weight": "EventWeight",
        "derive": {"MET": "hypot(MET_px, MET_py)"},
        "encode": {"normalisation": {"MET": "log"}},
    }
    plain = dataset_of(keys, client, **more, specs={"cache": None}).specs().to_json()
    assert dataset_of(keys, client, **more).specs().to_json() == plain
    warm = dataset_of(keys, client, **more)
    assert warm.specs().to_json() == plain
    assert warm.num_cached() == NUM_EVENTS
    for path in entries(keys)[1:3]:
        path.unlink()
    partly = dataset_of(keys, client, **more)
    assert partly.specs().to_json() == plain
    assert 0 < partly.num_cached() < NUM_EVENTS
    for workers in (1, 4):
        with connect(Cluster(workers=workers), ranks=1) as other:
            own = dataset_of(keys, other, **more, specs={"cache": None})
            assert own.specs().to_json() == plain
    context, partitions = warm.plan().context, warm.plan().partitions
    parts = [measure_partition(part, 0, context).specs for part in partitions]
    expected = merge_all(parts)
    random = np.random.default_rng(3)
    for _ in range(5):
        left = [parts[place] for place in random.permutation(len(parts))]
        while len(left) > 1:
            place, size = random.integers(len(left)), random.integers(2, 9)
            left[place : place + size] = [merge_all(left[place : place + size])]
        assert left[0].to_json() == expected.to_json()
