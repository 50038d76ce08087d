"""Images: the kernels against NumPy's histograms, and what becomes of every object."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import num_examples, part_of

from mlaas4hep_dask.encode import EncodeCounts, Encoding, encode
from mlaas4hep_dask.encode.encoded_images import granularity, suggested_factor
from mlaas4hep_dask.encode.image import Image
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.events import offsets_of
from mlaas4hep_dask.score.counts import counts_of_parts
from mlaas4hep_dask.specs.measure import measure

BRANCHES = (
    Branch("MET", "flat", "float32"),
    Branch("Jet_eta", "jagged", "float32", "Jet"),
    Branch("Jet_phi", "jagged", "float64", "Jet"),
    Branch("Jet_pt", "jagged", "float32", "Jet"),
    Branch("Muon_eta", "jagged", "float64", "Muon"),
    Branch("Muon_phi", "jagged", "float32", "Muon"),
    Branch("Muon_charge", "jagged", "int32", "Muon"),
)
OPTIONS = {
    "axes": {
        "eta": {"branches": ["Jet_eta", "Muon_eta"], "range": [-2.0, 2.0], "cells": 4},
        "phi": {"branches": ["Jet_phi", "Muon_phi"], "periodic": True, "cells": 3},
    },
    "planes": [["eta", "phi"]],
    "channels": [
        {"value": "Jet_pt", "combine": "sum"},
        {"value": "Jet_pt", "combine": "max"},
        {"collection": "Jet", "combine": "count"},
        {"value": "Muon_charge", "combine": "max"},
        {"collection": "Muon", "combine": "count"},
    ],
    "flat": ["MET"],
}


@st.composite
def drawn_events(draw):
    """Events whose coordinates lie on edges of cells, beyond the ends, or nowhere."""
    num_events = draw(st.integers(1, 6))
    offsets, contents = {}, {}
    for name in ("Jet", "Muon"):
        counts = draw(st.lists(st.integers(0, 5), min_size=num_events, max_size=num_events))
        offsets[name] = offsets_of(np.array(counts, dtype=np.int64))
    edges = [-2.0, -1.0, 0.0, 1.0, 2.0, np.pi, -np.pi, np.pi / 3, -np.pi / 3, 3 * np.pi]
    for branch in BRANCHES:
        size = num_events if branch.collection is None else int(offsets[branch.collection][-1])
        if branch.dtype == "int32":
            elements = st.integers(-1, 1)
        else:
            width = 8 * np.dtype(branch.dtype).itemsize
            elements = st.floats(-7, 7, width=width) | st.just(np.nan)
            elements |= st.sampled_from(np.array(edges, branch.dtype).tolist())
        contents[branch.name] = draw(hnp.arrays(branch.dtype, size, elements=elements))
    return Events(num_events, BRANCHES, contents, offsets)


def by_numpy(events, encoding):
    """Images, mask and counts of the encoding, from NumPy's histogram and ufunc.at."""
    image = encoding.image
    eta, phi = image.axes["eta"].edges, image.axes["phi"].edges
    shape = (len(events), *image.shape)
    x, missing = np.zeros(shape), np.ones(shape, bool)
    lost, shared = {"Jet": 0, "Muon": 0}, {"Jet": 0, "Muon": 0}
    scalings = dict(zip(encoding.layout.branches, encoding.scalings, strict=True))
    for event in range(len(events)):
        one = part_of(events, event, event + 1)
        for number, channel in enumerate(image.channels):
            c = channel.collection
            a = one.contents[f"{c}_eta"].astype(float)
            b = one.contents[f"{c}_phi"].astype(float)
            b = (b + math.pi) % math.tau - math.pi
            b[math.pi - b < 1e-7 * math.tau] = -math.pi
            inside = (a >= -2) & (a <= 2) & np.isfinite(b)
            if number in (0, 3):  # once per collection
                lost[c] += int((~inside).sum())
                held = np.histogram2d(b[inside], a[inside], (phi, eta))[0]
                shared[c] += int(np.maximum(held - 1, 0).sum())
            if channel.value is None:
                values = np.ones(a.size, np.float32)
            else:
                scaling = scalings[channel.value]
                raw = one.contents[channel.value].astype(float)
                values = ((raw - scaling.shift) * scaling.scale).astype(np.float32)
            inside &= np.isfinite(values)
            a, b, values = a[inside], b[inside], values[inside]
            held = np.histogram2d(b, a, (phi, eta))[0]
            missing[event, number] = held == 0
            if channel.combine == "max":
                row = np.minimum(np.searchsorted(phi, b, "right") - 1, 2)
                column = np.minimum(np.searchsorted(eta, a, "right") - 1, 3)
                plane = np.full(held.shape, -np.inf)
                np.maximum.at(plane, (row, column), values)
                x[event, number] = np.where(held > 0, plane, 0)
            else:
                x[event, number] = np.histogram2d(b, a, (phi, eta), weights=values)[0]
        met = (float(one.contents["MET"][0]) - scalings["MET"].shift) * scalings["MET"].scale
        missing[event, 5] = math.isnan(met)
        x[event, 5] = 0 if math.isnan(met) else met
    return x, missing, lost, shared


@pytest.mark.slow
@num_examples(60)
@given(drawn_events())
def test_images_are_those_of_numpy(events):
    specs = measure(events, sample="s")
    for how in ("minmax", {"*": "none"}):  # with the latter, values may be below an empty cell's 0
        encoding = Encoding.from_specs(specs, image=OPTIONS, normalisation=how)
        found = encode(events, encoding)
        x, missing, lost, shared = by_numpy(events, encoding)
        np.testing.assert_allclose(found.dense(), x, rtol=2e-6, atol=1e-6)
        np.testing.assert_array_equal(found.missing(), missing)
        for one, both in zip((found.dense(), found.missing()), found.inputs(), strict=True):
            np.testing.assert_array_equal(both, one)
        named = {f"{name} (eta, phi)": number for name, number in lost.items() if number}
        assert found.counts.off_image == named
        named = {f"{name} (eta, phi)": number for name, number in shared.items() if number}
        assert found.counts.shared_cell == named
        for branch in ("Jet_phi", "Muon_eta", "MET"):
            nans = int(np.isnan(events.contents[branch]).sum())
            assert found.counts.not_finite.get(branch, 0) == nans


@num_examples(30)
@given(drawn_events(), st.data())
def test_an_image_depends_on_its_event_alone(events, data):
    encoding = Encoding.from_specs(measure(events, sample="s"), image=OPTIONS)
    whole = encode(events, encoding)
    cut = data.draw(st.integers(0, len(events)))
    parts = [encode(part_of(events, *ends), encoding) for ends in ((0, cut), (cut, len(events)))]
    for form in ("dense", "missing"):
        together = np.concatenate([getattr(part, form)() for part in parts])
        np.testing.assert_array_equal(getattr(whole, form)(), together)
    assert parts[0].counts + parts[1].counts == whole.counts
    shares = counts_of_parts(whole.counts, events, encoding, sizes=[cut, len(events) - cut])
    assert shares == [part.counts for part in parts]
    selected = np.array([data.draw(st.booleans()) for _ in range(len(events))], dtype=bool)
    chosen = whole.chosen(selected)
    np.testing.assert_array_equal(chosen.dense(), whole.dense()[selected])
    np.testing.assert_array_equal(chosen.missing(), whole.missing()[selected])
    order = np.array(data.draw(st.permutations(range(len(events)))))
    out = np.full((len(events) + 1, *encoding.row_shape), np.nan, np.float32)
    whole.dense(np.arange(len(events)), positions=order, out=out)
    np.testing.assert_array_equal(out[order], whole.dense())
    assert np.isnan(out[-1]).all()


def events_of(**contents):
    """One event with a collection Jet, of the given branches."""
    arrays = {name: np.asarray(values) for name, values in contents.items()}
    branches = tuple(
        Branch(name, "jagged", array.dtype.name, "Jet") for name, array in arrays.items()
    )
    size = next(iter(arrays.values())).size
    return Events(1, branches, arrays, {"Jet": np.array([0, size])})


def eta_phi(**options):
    """Options of an image that counts jets in eta and phi."""
    axes = {
        "Jet_eta": {"range": [-1.0, 1.0], "cells": 2},
        "Jet_phi": {"periodic": True, "cells": 8},
    }
    image = {
        "axes": axes,
        "planes": [["Jet_eta", "Jet_phi"]],
        "channels": [{"collection": "Jet", "combine": "count"}],
    }
    return {**image, **options}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_ends_of_a_periodic_axis_are_one_point(dtype):
    phi = np.array([np.pi, -np.pi, 3 * np.pi, -3 * np.pi], dtype)
    events = events_of(Jet_eta=np.zeros(4), Jet_phi=phi)
    encoding = Encoding.from_specs(measure(events, sample="s"), image=eta_phi())
    encoded = encode(events, encoding)
    assert encoded.dense()[0, 0, 0].tolist() == [0.0, 4.0]
    assert encoded.counts == EncodeCounts(shared_cell={"Jet (Jet_eta, Jet_phi)": 3})


def test_planes_stand_side_by_side_along_x():
    events = events_of(Jet_Px=[1.0, 0.0], Jet_Py=[2.0, 0.0], Jet_Pz=[3.0, 0.0])
    axis = {"range": [-4.0, 4.0], "size": 1.0}
    image = {
        "axes": {"Jet_Px": axis, "Jet_Py": axis, "Jet_Pz": axis},
        "planes": [["Jet_Px", "Jet_Py"], ["Jet_Py", "Jet_Pz"], ["Jet_Px", "Jet_Pz"]],
        "channels": [{"collection": "Jet", "combine": "count"}],
    }
    encoding = Encoding.from_specs(measure(events, sample="s"), image=image)
    assert encoding.row_shape == (1, 8, 24)
    assert encoding.columns() == ["count(Jet)"]
    occupied = np.argwhere(encode(events, encoding).dense()[0, 0]).tolist()
    # Where the three planes have (x, y) = (1, 2), (2, 3), (1, 3), and the origin.
    assert sorted(occupied) == sorted([[4, 4], [4, 12], [4, 20], [6, 5], [7, 14], [7, 21]])


def test_ranges_come_from_the_specs_and_objects_beyond_them_are_counted():
    seen = events_of(Jet_eta=[-3.0, 5.0], Jet_phi=[0.0, 1.0])
    image = eta_phi(axes={"Jet_eta": {"size": 1.0}, "Jet_phi": {"size": 0.1, "periodic": True}})
    encoding = Encoding.from_specs(measure(seen, sample="s"), image=image)
    assert encoding.row_shape == (1, 63, 8)  # 2π / 0.1, and 8 / 1
    later = events_of(Jet_eta=[5.5, 5.0, -3.1, np.nan], Jet_phi=[0.0, 0.0, np.nan, 0.0])
    encoded = encode(later, encoding)
    assert encoded.dense().sum() == 1
    assert encoded.counts == EncodeCounts(
        not_finite={"Jet_eta": 1, "Jet_phi": 1},
        out_of_range={"Jet_eta": 2},
        off_image={"Jet (Jet_eta, Jet_phi)": 3},
    )


def test_values_of_images_are_clipped_by_pattern():
    place = {"Jet_eta": [0.0, 0.0], "Jet_phi": [0.0, 0.0]}
    seen = events_of(Jet_pt=[0.0, 10.0], Jet_mass=[0.0, 10.0], **place)
    image = eta_phi(channels=[{"value": "Jet_pt"}, {"value": "Jet_mass"}])
    specs = measure(seen, sample="s")
    encoding = Encoding.from_specs(specs, image=image, out_of_range={"*_pt": "clip"})
    encoded = encode(
        events_of(Jet_pt=[30.0], Jet_mass=[30.0], **{k: [0.0] for k in place}), encoding
    )
    assert encoded.dense()[0].max(axis=(1, 2)).tolist() == [1.0, 3.0]
    assert encoded.counts == EncodeCounts(out_of_range={"Jet_pt": 1, "Jet_mass": 1})


def test_the_suggested_granularity_is_the_coarsest_that_keeps_objects_apart():
    # 100 jets in a row: cells as wide as their distance hold one each.
    events = events_of(Jet_eta=(np.arange(100) + 0.5) / 50 - 1, Jet_phi=np.zeros(100))
    image = eta_phi(
        axes={"Jet_eta": {"range": [-1.0, 1.0], "cells": 25}, "Jet_phi": {"periodic": True}}
    )
    drawn = Image.from_specs(image, measure(events, sample="s"))
    tried = granularity(events, drawn)["Jet (Jet_eta, Jet_phi)"]
    assert tried["1"] == [100, 75]
    assert tried["2"] == [100, 50]
    assert suggested_factor(tried) == 4.0
    assert suggested_factor({"1": [100, 75]}) is None


@pytest.mark.parametrize(
    ("change", "option", "text"),
    [
        ({"flat": ["Jet_eta"]}, "image.flat.0", "is jagged"),
        ({"flat": ["MET"]}, "image.flat.0", "not in the tree"),
        ({"channels": [{"value": "Jet_ta"}]}, "image.channels.0.value", "mean 'Jet_eta'"),
        (
            {"channels": [{"collection": "Jat", "combine": "count"}]},
            "image.channels.0.collection",
            "mean 'Jet'",
        ),
        ({"axes": {"eta": {}}}, "image.axes.eta", "not in the tree"),
        ({"axes": {"a": {"branches": ["Jet_eta", "Jet_phi"]}}}, "image.axes.a", "both of"),
        ({"axes": {"Jet_eta": {}, "Jet_phi": {}}}, "image.axes.Jet_phi", "a range of its own"),
        (
            {"planes": [["Jet_eta", "Jet_phi"], ["Jet_phi", "Jet_eta"]]},
            "image.planes",
            "Jet_phi has 8, Jet_eta has 2",
        ),
        (
            {"axes": {"Jet_eta": {"size": 1e-7}, "Jet_phi": {"periodic": True}}},
            "image.axes",
            "more than",
        ),
        (
            {"axes": {"Jet_eta": {"size": 1e-320}, "Jet_phi": {"periodic": True}}},
            "image.axes.Jet_eta.size",
            "cells of 9.99989e-321 from 0 to 0.5 are more than",
        ),
        ({"planes": [["Jet_eta"]]}, "image", "cannot be used"),
    ],
)
def test_options_that_do_not_fit_are_refused(change, option, text):
    events = events_of(Jet_eta=[0.0, 0.5], Jet_phi=[0.0, 0.0])
    with pytest.raises(EncodeError, match=text) as caught:
        Encoding.from_specs(measure(events, sample="s"), image=eta_phi(**change))
    assert caught.value.option == option
