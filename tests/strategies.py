"""Events that hypothesis makes, and parts of events."""

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlaas4hep_dask.specs import Branch, Events
from mlaas4hep_dask.specs.events import offsets_of

BRANCHES = (
    Branch("met", "flat", "float32", None, "GeV"),
    Branch("mass", "flat", "float64"),
    Branch("run", "flat", "int64"),
    Branch("trigger", "flat", "bool"),
    Branch("Jet_pt", "jagged", "float32", "Jet"),
    Branch("Jet_id", "jagged", "int32", "Jet"),
    Branch("Muon_pt", "jagged", "float64", "Muon"),
)


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
