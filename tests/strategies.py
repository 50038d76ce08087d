"""Events that hypothesis makes, and parts of events."""

import math
from itertools import pairwise

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.encode.encoding import transforms_of
from mlaas4hep_dask.encode.precision import inexact_branches
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.events import offsets_of
from mlaas4hep_dask.formulas import NAMES
from mlaas4hep_dask.specs.measure import measure

BRANCHES = (
    Branch("met", "flat", "float32", None, "GeV"),
    Branch("mass", "flat", "float64"),
    Branch("run", "flat", "int64"),
    Branch("trigger", "flat", "bool"),
    Branch("Jet_pt", "jagged", "float32", "Jet"),
    Branch("Jet_id", "jagged", "int32", "Jet"),
    Branch("Muon_pt", "jagged", "float64", "Muon"),
)


def num_examples(number, **options):
    """As many of every 100 that the profile makes: `make check` makes fewer."""
    return settings(max_examples=max(number * settings.default.max_examples // 100, 5), **options)


def values(dtype, size, *, finite=False):
    """Arrays of any values, of equal values and, for floats, of NaN."""
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        anything = hnp.from_dtype(dtype)
        return st.one_of(
            hnp.arrays(dtype, size, elements=anything),
            anything.map(lambda value: np.full(size, value, dtype)),
        )
    limit = 2.0**100 if dtype.itemsize == 4 else 2.0**300  # squares stay below 2**1024
    width = 8 * dtype.itemsize
    numbers = st.floats(-limit, limit, width=width, allow_subnormal=False)
    anything = numbers if finite else numbers | st.sampled_from([np.nan, np.inf, -np.inf])
    constants = numbers if finite else anything
    return st.one_of(
        hnp.arrays(dtype, size, elements=anything),
        hnp.arrays(dtype, size, elements=st.floats(-1000, 1000, width=width)),
        constants.map(lambda value: np.full(size, value, dtype)),
    )


@st.composite
def events(draw, *, min_events=0, max_events=12, finite=False):
    """Events with the branches `BRANCHES`; possibly none, possibly without any object."""
    num_events = draw(st.integers(min_events, max_events))
    offsets = {}
    for collection in ("Jet", "Muon"):
        counts = st.lists(st.integers(0, 4), min_size=num_events, max_size=num_events)
        offsets[collection] = offsets_of(np.array(draw(counts), dtype=np.int64))
    contents = {}
    for branch in BRANCHES:
        flat = branch.collection is None
        size = num_events if flat else int(offsets[branch.collection][-1])
        contents[branch.name] = draw(values(branch.dtype, size, finite=finite))
    return Events(num_events, BRANCHES, contents, offsets)


def part_of(events, start, stop):
    """The events [start, stop)."""
    contents = {}
    for branch in events.branches:
        content = events.contents[branch.name]
        if branch.collection is None:
            contents[branch.name] = content[start:stop]
        else:
            own = events.offsets[branch.collection]
            contents[branch.name] = content[own[start] : own[stop]]
    offsets = {name: own[start : stop + 1] - own[start] for name, own in events.offsets.items()}
    return Events(stop - start, events.branches, contents, offsets)


@st.composite
def split_events(draw, **options):
    """Events, and the same events in up to five parts, some of which may be empty."""
    whole = draw(events(**options))
    cuts = draw(st.lists(st.integers(0, len(whole)), max_size=4))
    edges = [0, *sorted(cuts), len(whole)]
    return whole, [part_of(whole, start, stop) for start, stop in pairwise(edges)]


def encoding_of(events, **options):
    """The encoding of events by their own specs, with the logarithms that its options ask for."""
    names = [branch.name for branch in events.branches]
    transforms = transforms_of(options.get("normalisation", "minmax"), names)
    return Encoding.from_specs(measure(events, sample="s", transforms=transforms), **options)


@st.composite
def tables(draw):
    """Points of a piecewise linear function that ascends or descends."""
    steps = st.lists(st.integers(1, 1000), min_size=1, max_size=5)
    x = np.cumsum([draw(st.integers(-1000, 1000)), *draw(steps)])
    y = np.linspace(0, draw(st.sampled_from([1.0, -3.0])), x.size) ** 3
    return {"x": x.tolist(), "y": y.tolist()}


@st.composite
def encode_options(draw, events):
    """Options of `Encoding.from_specs` that can encode events with the branches `BRANCHES`."""
    affine = st.sampled_from([{"shift": 3.0, "scale": 0.25}, {"shift": 0.0, "scale": -2.0}])
    how = st.sampled_from(NAMES) | tables() | affine
    hows = {branch.name: draw(how) for branch in BRANCHES}
    width = st.just("max") | st.integers(0, 5)
    width |= st.floats(0.01, 1).map(lambda q: {"quantile": q})
    ends = st.sampled_from(["pass", "clip"])
    options = {
        "normalisation": hows,
        "width": draw(width | st.fixed_dictionaries({"J*": width, "Muon": width})),
        "out_of_range": draw(
            ends | st.fixed_dictionaries({}, optional={"Jet_*": ends, "m*": ends})
        ),
        "sort": draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "Jet": st.sampled_from(["Jet_pt", "-Jet_pt", "-Jet_id"]),
                    "Muon": st.sampled_from(["Muon_pt", "-Muon_pt"]),
                },
            )
        ),
    }
    while True:
        try:
            inexact = inexact_branches(encoding_of(events, **options))
            hows.update(dict.fromkeys(inexact, "minmax"))
        except EncodeError as error:  # such as 2**300 as it is
            hows[error.branch] = "minmax"
        else:
            return options


def sorted_by_python(events, sort):
    """The same events with their objects sorted one event at a time, NaN last."""
    contents = dict(events.contents)
    for collection, key in sort.items():
        values, offsets = events.contents[key.removeprefix("-")], events.offsets[collection]
        sign = -1 if key.startswith("-") else 1
        order = []
        for start, stop in pairwise(offsets.tolist()):
            number = {i: sign * values[i].item() for i in range(start, stop)}
            order += sorted(number, key=lambda i: (math.isnan(number[i]), number[i]))
        for branch in events.branches:
            if branch.collection == collection:
                contents[branch.name] = events.contents[branch.name][np.array(order, dtype=int)]
    return Events(events.num_events, events.branches, contents, events.offsets)
