"""Images through the line: lazy arrays, training, bundle and serving."""

import json
import re

import awkward as ak
import numpy as np
import pytest
import torch
import uproot

from mlaas4hep_dask.bundle import open_bundle
from mlaas4hep_dask.config import Config, load
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.mean_image import images_json
from mlaas4hep_dask.errors import ConfigError, ModelError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.report import render
from mlaas4hep_dask.report.mean_images import channel_figure
from mlaas4hep_dask.run.cli import main
from mlaas4hep_dask.run.stages import fit, model_of
from mlaas4hep_dask.score.opening import open_scorer
from mlaas4hep_dask.score.parts import Records
from mlaas4hep_dask.serve.rest import description
from mlaas4hep_dask.train.given import Given
from mlaas4hep_dask.train.network import cnn
from mlaas4hep_dask.train.rank import load_state

SHAPE = (4, 16, 48)


@pytest.fixture(scope="module")
def workflow(cms_files):
    return cms_files[0].parent.parent / "images.yaml"


@pytest.fixture(scope="module")
def finished(workflow, client, tmp_path_factory):
    overrides = ["max_events=600", "training.epochs=1", "partition.max_events=250"]
    overrides += ["training.batch_size=20", "training.learning_rate=0.005", "weight=1 + NJet"]
    overrides += ["encode.normalisation=minmax"]  # as the images below are drawn
    dataset = Dataset.from_yaml(workflow, client, overrides=overrides)
    return dataset, fit(dataset, output=tmp_path_factory.mktemp("images") / "run")


def test_lazy_images_do_not_depend_on_the_partition_size(finished, workflow, client):
    arrays = finished[0].to_dask()
    assert arrays.x.shape == (1200, *SHAPE)
    assert arrays.x.numblocks[0] >= 6
    assert arrays.missing.chunks == arrays.x.chunks
    overrides = ["max_events=600", "encode.normalisation=minmax"]
    whole = Dataset.from_yaml(workflow, client, overrides=overrides).to_dask()
    assert whole.x.numblocks[0] < arrays.x.numblocks[0]
    for name in ("x", "missing", "id"):
        parts, together = getattr(arrays, name).compute(), getattr(whole, name).compute()
        np.testing.assert_array_equal(parts, together)


def test_a_served_score_is_that_of_the_trained_network(finished, cms_files):
    dataset, result = finished
    checkpoint = result.path / "checkpoints" / "epoch-1.pt"
    network = cnn(SHAPE)
    network.load_state_dict(load_state(checkpoint.read_bytes())["network"])
    x = dataset.to_dask().x[:100].compute()
    with torch.no_grad():
        trained = torch.sigmoid(network.eval()(torch.from_numpy(x))).numpy().ravel()
    served = open_scorer(result.path / "bundle")
    names = [branch["name"] for branch in description(served)["input"]["branches"]]
    with uproot.open(cms_files[0]) as file:
        records = ak.to_list(file["events"].arrays(names, entry_stop=100))
    objects = json.loads(json.dumps(records))
    (together,) = served.score([Records(objects)])
    np.testing.assert_allclose(together.values, trained, rtol=0, atol=1e-6)
    shares = served.score([Records(objects[:30]), Records(objects[30:])])
    assert shares[0].counts + shares[1].counts == together.counts
    assert together.counts.shared_cell
    assert np.ptp(trained) > 0.01  # the images differ


def test_the_counts_of_all_events_stand_in_the_summary(finished):
    dataset, result = finished
    blocks = dataset.blocks()
    blocks = [blocks.submit(dataset.cluster, n).result() for n in range(len(blocks.partitions))]
    for key in ("off_image", "shared_cell"):
        for name in ("Jet (px, py)", "Jet (py, pz)", "Jet (px, pz)"):
            expected = sum(getattr(b.encoded.counts, key).get(name, 0) for b in blocks)
            assert result.summary["counts"][key][name] == expected > 0
    notes = [note for note in result.summary["counts"]["notes"] if note.startswith("image, ")]
    assert len(notes) == 3
    assert all(re.search(r"\d+\.\d\d% of [\d,]+ objects share a cell; ", note) for note in notes)
    assert "times the cells along each axis" in notes[0]
    inputs = open_bundle(result.path / "bundle").manifest["input"]
    assert inputs["shape"] == list(SHAPE)
    assert inputs["columns"] == ["count(Jet)", "max(Jet_btag)", "MET_px", "MET_py"]


@pytest.fixture(scope="module")
def means(finished):
    """By label, channel and plane: the mean image, drawn with NumPy event by event."""
    by_label = {"0": [], "1": []}
    for part in finished[0].plan().partitions:
        entries = {"entry_start": part.entry_start, "entry_stop": part.entry_stop}
        with uproot.open(part.file) as file:
            names = ["Jet_Px", "Jet_Py", "Jet_Pz", "Jet_btag"]
            events = file["events"].arrays(names, **entries)
        by_label["1" if part.sample == "single_top" else "0"] += ak.to_list(events)
    values = [tag for events in by_label.values() for e in events for tag in e["Jet_btag"]]
    low, high = min(values), max(values)
    ends = {"Jet_Px": 150, "Jet_Py": 150, "Jet_Pz": 300}
    planes = [("Jet_Px", "Jet_Py"), ("Jet_Py", "Jet_Pz"), ("Jet_Px", "Jet_Pz")]
    found = {}
    for label, events in by_label.items():
        total = np.zeros((2, 3, 16, 16))
        for event in events:
            weight = 1 + len(event["Jet_Px"])
            for place, (x, y) in enumerate(planes):
                edges = [np.linspace(-ends[name], ends[name], 17) for name in (y, x)]
                total[0, place] += weight * np.histogram2d(event[y], event[x], bins=edges)[0]
                largest = np.zeros((16, 16))
                for y_value, x_value, tag in zip(
                    event[y], event[x], event["Jet_btag"], strict=True
                ):
                    inside = np.histogram2d([y_value], [x_value], bins=edges)[0] > 0
                    largest[inside] = np.maximum(largest[inside], (tag - low) / (high - low))
                total[1, place] += weight * largest
        found[label] = total / sum(1 + len(event["Jet_Px"]) for event in events)
    return found


def test_mean_images_are_those_drawn_event_by_event(finished, means):
    dataset, result = finished
    encoding = dataset.encoding()
    found = images_json(dataset.image_sums(), encoding.image, dataset.specs())
    assert found["num_events"] == {"0": 600, "1": 600}
    for channel, name in enumerate(["count(Jet)", "max(Jet_btag)"]):
        assert found["channels"][channel]["name"] == name
        for place, plane in enumerate(found["channels"][channel]["planes"]):
            for label, expected in means.items():
                drawn = plane["means"][label]
                np.testing.assert_allclose(drawn, expected[channel, place], rtol=1e-5, atol=1e-9)
    x, w, y = (getattr(dataset.to_dask(), name).compute() for name in "xwy")
    for number, row in enumerate(found["flat"]):
        for label, mean in row["means"].items():
            own = y == int(label)
            expected = np.average(x[own, 2 + number, 0, 0], weights=w[own])
            assert mean == pytest.approx(expected, rel=1e-5)
    page = result.report.read_text()
    for channel in found["channels"]:
        labels = {"0": "0: diboson", "1": "1: single_top"}
        assert channel_figure(channel, labels) in page
    counts = result.summary["counts"]
    for plane in ("Jet (px, py)", "Jet (py, pz)", "Jet (px, pz)"):
        off, shared = counts["off_image"][plane], counts["shared_cell"][plane]
        row = rf'<th scope="row">{re.escape(plane)}</th><td>{off}</td><td>{shared}</td>'
        assert re.search(row + r'<td>\d+\.\d\d</td><td class="text">[^<]*as many', page)


def test_the_report_is_made_again_with_its_images(finished):
    _, result = finished
    text = render(result.path)
    assert text == result.report.read_text(encoding="utf-8")
    assert "Mean of " in text
    (result.path / "images.json").rename(result.path / "images.away")
    assert "Mean of " not in render(result.path)
    (result.path / "images.away").rename(result.path / "images.json")


def test_mean_images_do_not_depend_on_the_partition_size(finished, workflow, client):
    overrides = ["max_events=600", "weight=1 + NJet", "encode.normalisation=minmax"]
    whole = Dataset.from_yaml(workflow, client, overrides=overrides).image_sums()
    parts = finished[0].image_sums()
    assert parts.num_events == whole.num_events
    assert parts.tried == whole.tried
    for label, planes in whole.planes.items():
        np.testing.assert_allclose(parts.planes[label], planes, rtol=1e-12)


def test_fine_images_are_drawn_with_several_cells_as_one(workflow, client):
    finer = ["max_events=600", "image.axes.px.cells=150"]
    coarse = Dataset.from_yaml(workflow, client, overrides=["max_events=600"])
    fine = Dataset.from_yaml(workflow, client, overrides=finer)
    (xy, *_), (fine_xy, *_) = (each.image_sums().planes["1"] for each in (coarse, fine))
    assert fine_xy.shape == (2, 16, 50)  # of 3 cells each, of which their mean is drawn
    total = fine_xy[0].sum(axis=1) * 3
    np.testing.assert_allclose(total, xy[0].sum(axis=1), rtol=1e-12)


def test_packed_images_are_smaller_than_rows_of_cells(finished):
    blocks = finished[0].blocks()
    encoded = blocks.submit(finished[0].cluster, 0).result().encoded
    assert encoded.nbytes < encoded.dense().nbytes / 20


def test_check_tries_the_network_on_an_image(workflow, capsys, tmp_path):
    assert main([str(workflow), "--check", "--output", str(tmp_path / "run")]) == 0
    assert "accepts images (tried with 4 channels of 16 by 48 cells)" in capsys.readouterr().out
    options = ["--set", "model.callable=mlaas4hep_dask.train.network:mlp"]
    assert main([str(workflow), "--check", "--output", str(tmp_path / "run"), *options]) == 2
    assert "images of shape (4, 16, 48)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Jet_btag", "Jet_btga", r"images.yaml:\d+: image.channels\[1\].value: .* mean 'Jet_btag'"),
        ("branches: Jet_Px", "branches: Muon_Px", "no channel shows the collection"),
        (
            "- [px, py]",
            "- [px, pyy]",
            r"image.planes\[0\]: there is no axis 'pyy'; did you mean 'py'",
        ),
        ("- [px, py]", "- [px]", r"expected two different axes, found px"),
        ("range: [-300, 300]", "range: [3, -3]", "a higher one, found 3 and -3"),
        ("cells: 16}", "cells: 16, size: 2}", "expected cells or size, not both"),
        ("pz: {branches: Jet_Pz, range: [-300, 300], cells: 16}", "pz: {cells: 8}", "one number"),
        ("combine: count", "combine: max", "expected a value and no collection"),
        ("training:", "encode: {width: 3}\ntraining:", "encode.width: has no meaning"),
        ("training:", "branches: {exclude: [MET_px]}\ntraining:", "'MET_px' is shown, but"),
    ],
)
def test_a_wrong_image_is_refused_before_anything_runs(workflow, tmp_path, old, new, message):
    data = workflow.parent / "data"
    text = workflow.read_text()
    assert old in text
    path = tmp_path / "images.yaml"
    path.write_text(text.replace(old, new, 1).replace("data/", f"{data}/"))
    with pytest.raises(ConfigError, match=message) as caught:
        preflight(description_of(load(path, [])))
    assert caught.value.line is not None


def test_an_image_is_given_to_a_network_of_images():
    samples = [{"name": name, "label": n, "files": f"{name}.root"} for n, name in enumerate("ab")]
    image = {"axes": {"x": None, "y": None}, "channels": [{"value": "z"}]}
    config = Config.from_mapping({"samples": samples, "image": image})
    assert config.image.planes == [["x", "y"]]
    assert config.model.callable == "mlaas4hep_dask.train.network:cnn"
    for shape in ((1, 1, 1), (3, 2, 5)):
        assert model_of(config).build(Given(shape))(torch.zeros(2, *shape)).shape == (2, 1)
    with pytest.raises(ModelError, match="failed for rows of 7 columns"):
        model_of(config).build(7)
