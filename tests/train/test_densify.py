"""Rows that torch writes on a device are those of the kernels, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import encode_options, encoding_of, events, num_examples, part_of

from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.densify import host, write_rows


def bits(array):
    return np.asarray(host(array)).tobytes()


def require_same(encoded, rows, num_rows, positions, device="cpu"):
    """Some events in some rows of a window, by the kernels and by torch."""
    shape = (num_rows, *encoded.dense().shape[1:])
    x, missing = np.zeros(shape, np.float32), np.ones(shape, np.bool_)
    encoded.dense(rows, positions=positions, out=x)
    encoded.missing(rows, positions=positions, out=missing)
    ours = torch.zeros(shape, device=device)
    absent = torch.ones(shape, dtype=torch.bool, device=device)
    write_rows(encoded.taken(rows), positions, ours, absent)
    assert bits(ours) == bits(x)
    assert bits(absent) == bits(missing)
    again = torch.zeros(shape, device=device)
    write_rows(encoded.taken(rows), positions, again)
    assert bits(again) == bits(x)


@st.composite
def places(draw, num_events):
    """Events in any order, none twice, and the rows of a window for them."""
    rows = draw(st.permutations(range(num_events)))
    rows = rows[: draw(st.integers(0, num_events))]
    num_rows = len(rows) + draw(st.integers(0, 3))
    positions = draw(st.permutations(range(num_rows)))[: len(rows)]
    return np.array(rows, np.int64), num_rows, np.array(positions, np.int64)


@given(st.data())
@num_examples(60)
def test_rows_are_those_of_the_kernels(data):
    made = data.draw(events())
    encoded = encode(made, encoding_of(made, **data.draw(encode_options(made))))
    require_same(encoded, *data.draw(places(len(made))))


@given(st.data())
@num_examples(30)
def test_images_are_those_of_the_kernels(data):
    made = data.draw(events(min_events=1, finite=True))
    axes = {
        "x": {"branches": ["Jet_pt"], "range": [-900.0, 900.0], "cells": 3},
        "y": {"branches": ["Jet_id"], "range": [-(2.0**31), 2.0**31], "cells": 2},
    }
    channels = [{"collection": "Jet", "combine": "count"}, {"value": "Jet_pt", "combine": "max"}]
    flat = data.draw(st.sampled_from([[], ["met"], ["met", "trigger"]]))
    options = {"axes": axes, "planes": [["x", "y"]], "channels": channels, "flat": flat}
    encoding = Encoding.from_specs(measure(made, sample="s"), image=options)
    require_same(encode(made, encoding), *data.draw(places(len(made))))


def test_rows_of_real_files_are_those_of_the_kernels(cms_events):
    made = part_of(cms_events, 0, 3_000)
    encoded = encode(made, Encoding.from_specs(measure(made, sample="s"), width=4))
    rows = np.random.default_rng(3).permutation(3_000)[:2_000]
    require_same(encoded, rows, 2_500, np.random.default_rng(4).permutation(2_500)[:2_000])


@given(events(min_events=1), st.data())
@num_examples(30)
def test_events_that_are_taken_have_the_rows_that_they_had(made, data):
    encoded = encode(made, encoding_of(made, width=2))
    rows, _, _ = data.draw(places(len(made)))
    taken = encoded.taken(rows)
    assert bits(taken.dense()) == bits(encoded.dense(rows))
    assert bits(taken.missing()) == bits(encoded.missing(rows))
    assert not np.shares_memory(taken.values, encoded.values)


def test_tensors_of_two_devices_are_not_mixed(cms_events):
    """torch's device without memory refuses to be mixed with another, as a GPU does."""
    made = part_of(cms_events, 0, 50)
    encoded = encode(made, Encoding.from_specs(measure(made, sample="s")))
    shape = encoded.dense().shape
    x, missing = torch.empty(shape, device="meta"), torch.empty(shape, device="meta").bool()
    write_rows(encoded, np.arange(50), x, missing)
    with pytest.raises(RuntimeError, match="device"):
        write_rows(encoded, np.arange(50), x, missing.new_empty(shape, device="cpu"))
