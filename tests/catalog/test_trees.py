"""Trees of samples and files: names, cycles, several trees in one file."""

import numpy as np
import pytest
import uproot
from steps import dataset_of

from mlaas4hep_dask.catalog import resolve_files
from mlaas4hep_dask.config import Config, Places, load
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.encode.split import event_ids
from mlaas4hep_dask.errors import ConfigError, DataError
from mlaas4hep_dask.inputs.preflight import preflight


def columns(events, start):
    return {"x": np.arange(start, start + events, dtype="f4"), "run": np.ones(events, "u4")}


def add(file, name, made, kind="TTree"):
    make = file.mktree if kind == "TTree" else file.mkrntuple
    make(name, made)


@pytest.fixture(params=["TTree", "RNTuple"])
def both(tmp_path, request):
    """A file with 40 events of signal, in two cycles, and 60 of background in a directory."""
    path = tmp_path / "both.root"
    with uproot.recreate(path) as file:
        add(file, "sig", columns(30, 5000), request.param)
        add(file, "dir/bkg", columns(60, 1000), request.param)
        add(file, "sig", columns(40, 0), request.param)
    return path


def samples(signal, background, tree=None, other=None):
    return {
        "samples": [
            {"name": "signal", "label": 1, "files": signal, "tree": tree},
            {"name": "background", "label": 0, "files": background, "tree": other},
        ]
    }


@pytest.mark.parametrize(
    ("signal", "background", "start"),
    [
        (("both.root", "sig"), ("both.root", "dir/bkg"), 0),
        (("both.root", "/sig;2"), ("both.root", "/dir/bkg;1"), 0),
        (("both.root", "sig;1"), ("*.root", "dir/bkg"), 5000),
        (("both.root:sig", None), ("*.root:/dir/bkg", None), 0),
        (("both.root:sig;1", "dir/bkg"), ("both.root", "dir/bkg"), 5000),
    ],
)
def test_one_file_has_signal_and_background_in_two_trees(both, client, signal, background, start):
    keys = samples(signal[0], background[0], signal[1], background[1])
    config = Config.from_mapping(keys, base=both.parent)
    plan = check_files(preflight(description_of(config)), config.partition, config.max_events)
    num_signal = 40 if start == 0 else 30
    assert [(part.sample, len(part)) for part in plan.partitions] == [
        ("signal", num_signal),
        ("background", 60),
    ]
    dataset = dataset_of(keys | {"partition": {"max_events": 25}}, client)
    dataset.config._places = Places(base=both.parent)
    arrays = dataset.to_dask()
    ids, y = (part.result() for part in client.compute([arrays.id, arrays.y]))
    assert y.sum() == num_signal
    assert len(np.unique(ids, axis=0)) == num_signal + 60  # no entry of one tree is one of another
    specs = dataset.specs()
    expected = np.concatenate([columns(num_signal, start)["x"], columns(60, 1000)["x"]])
    moments = specs.branches["x"].moments
    assert (moments.min, moments.max) == (expected.min(), expected.max())
    assert moments.mean == pytest.approx(expected.mean(), rel=1e-9)
    # from the cache, which has an entry for either tree
    again = dataset_of(keys | {"partition": {"max_events": 25}}, client)
    again.config._places = Places(base=both.parent)
    assert again.specs() == specs
    assert again.num_cached() == num_signal + 60
    assert again.split_counts() == dataset.split_counts()


def test_a_file_with_two_trees_is_counted_once(both):
    config = Config.from_mapping(samples(str(both), str(both), "sig", "dir/bkg"))
    lines = (
        check_files(preflight(description_of(config)), config.partition, config.max_events)
        .to_text()
        .splitlines()
    )
    assert lines[0].startswith("2 trees in 1 file, 100 events")
    assert [line.split(", ")[1] for line in lines[1:3]] == ["1 files", "1 files"]


def test_ids_of_files_with_one_tree_in_use_are_those_of_the_file_alone(both, tmp_path, client):
    with uproot.recreate(tmp_path / "other.root") as file:
        file["Events"] = columns(20, 100)
    keys = samples(str(both), str(tmp_path / "other.root"), tree="sig")
    dataset = dataset_of(keys, client)
    ids = dataset.to_dask().id.compute()
    uuid = str(uproot.open(both).file.uuid)
    np.testing.assert_array_equal(ids[:40], event_ids(uuid, 0, 40))


def test_specs_of_a_subset_measure_both_trees_of_a_file(both, client):
    keys = samples(str(both), str(both), "sig", "dir/bkg")
    specs = dataset_of(keys | {"specs": {"mode": "subset", "fraction": 0.5}}, client).specs()
    assert specs.samples["signal"].num_read == 40
    assert specs.samples["background"].num_read == 60


@pytest.mark.parametrize(("first", "second"), [("sig", "sig"), ("sig", "/sig"), ("sig;1", "sig;1")])
def test_one_tree_in_two_samples_is_refused(both, first, second):
    config = Config.from_mapping(samples(str(both), str(both), first, second))
    with pytest.raises(ConfigError, match="sample 'signal' has the same files as 'background'"):
        resolve_files(description_of(config).listing)


def test_the_newest_cycle_is_the_tree_without_a_cycle(both):
    config = Config.from_mapping(samples(str(both), str(both), "sig", "sig;2"))
    with pytest.raises(DataError, match="in sample 'signal' too"):
        check_files(preflight(description_of(config)), config.partition, config.max_events)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("bkgd", "tree 'bkgd' is not in .*; it holds 'sig', 'dir/bkg'"),
        ("bkg", "did you mean 'dir/bkg'?"),
        ("sig;7", "'sig' has the cycles 1, 2"),
        ("sig;x", "'sig' has the cycles 1, 2"),
    ],
)
def test_a_tree_that_is_not_there_is_told_at_the_key_that_names_it(both, tree, message):
    path = both.parent / "dataset.yaml"
    text = "tree: dir/bkg\nsamples:\n- {{name: background, label: 0, files: both.root}}\n- {}\n"
    own = f"{{name: signal, label: 1, files: both.root,\n    tree: {tree}}}"
    path.write_text(text.format(own))
    with pytest.raises(DataError, match=message) as caught:
        preflight(description_of(load(path)))
    assert str(caught.value).startswith(f"{path}:5: samples[1].tree: ")
    path.write_text(text.format(f"{{name: signal, label: 1, files: 'both.root:{tree}'}}"))
    with pytest.raises(DataError, match=message) as caught:
        preflight(description_of(load(path)))
    assert str(caught.value).startswith(f"{path}:4: samples[1].files")


def test_an_absolute_config_names_the_same_trees(both, tmp_path):
    config = Config.from_mapping(samples("both.root:sig", "*.root:dir/bkg"), base=both.parent)
    again = tmp_path / "elsewhere" / "again.yaml"
    again.parent.mkdir()
    again.write_text(config.to_yaml(absolute=True))
    assert resolve_files(description_of(load(again)).listing) == resolve_files(
        description_of(config).listing
    )


def test_a_file_with_a_colon_in_its_name_is_that_file(tmp_path):
    for name in ("a.root:b", "c.root"):
        (tmp_path / name).touch()
    config = Config.from_mapping(samples("a.root:b", "c.root:b"), base=tmp_path)
    found = resolve_files(description_of(config).listing)
    assert [(each.file, each.tree) for of in found.values() for each in of] == [
        (str(tmp_path / "a.root:b"), "Events"),
        (str(tmp_path / "c.root"), "b"),
    ]


@pytest.mark.parametrize(
    ("entry", "file", "tree"),
    [
        ("root://h:1094//store/a.root:dir/t;1", "root://h:1094//store/a.root", "dir/t;1"),
        ("root://h.root:1094//store/a.root", "root://h.root:1094//store/a.root", "Events"),
        ("https://h/a.root:t", "https://h/a.root", "t"),
    ],
)
def test_the_tree_of_a_url_stands_behind_its_path(entry, file, tree):
    config = Config.from_mapping(samples(entry, "http://h/b.root"))
    (found,) = resolve_files(description_of(config).listing)["signal"]
    assert (found.file, found.tree) == (file, tree)


def test_a_damaged_tree_loses_its_own_events_alone(both, tmp_path, client):
    with uproot.recreate(both) as file:
        add(file, "sig", columns(40, 0))
        add(file, "dir/bkg", columns(60, 1000))
    with uproot.open(both) as file:
        basket = file["dir/bkg"]["x"].member("fBasketSeek")[0]
    content = bytearray(both.read_bytes())
    content[basket : basket + 60] = b"\x5a" * 60
    both.write_bytes(content)
    with uproot.recreate(tmp_path / "more.root") as file:
        file["bkg"] = columns(10, 0)
    keys = samples(str(both), [str(both), f"{tmp_path}/more.root:bkg"], "sig", "dir/bkg")
    dataset = dataset_of(keys | {"on_bad_file": "skip"}, client)
    specs = dataset.specs()
    assert specs.samples["signal"].num_read == 40
    assert specs.samples["background"].num_read == 10
    (lost,) = dataset.skipped()
    assert (lost.file, lost.tree, lost.entry_start, lost.entry_stop) == (
        str(both),
        "dir/bkg",
        0,
        60,
    )
