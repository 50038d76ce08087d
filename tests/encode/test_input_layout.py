import pickle

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import encode_options, encoding_of, events, num_examples

from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.encode.input_layout import MOST_VALUES, InputLayout, input_layout
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.specs.measure import measure

MADE = {
    "met": np.array([10.5, 20.25, 30.0, np.nan]),
    "trigger": np.array([True, False, True, True]),
    "run": np.array([1, 7, 1_000, 2_000_000]),
    "charge": np.array([-1.0, 1.0, np.nan, 1.0], np.float32),
    "Jet_pt": ak.Array([[50.5, 40.0], [], [30.0], [20.0, 10.0, 5.0]]),
    "Jet_id": ak.values_astype(ak.Array([[4, 2], [], [0], [4, 4, 2]]), np.int32),
    "Mu_pt": ak.Array([[7.5], [3.5], [], []]),
}


def laid_out(columns=None, **options):
    specs = measure(Events.from_awkward(ak.Array(MADE if columns is None else columns)), sample="s")
    encoding = Encoding.from_specs(specs, **options)
    return input_layout(encoding, specs), encoding


def test_the_layout_tells_the_columns_collection_and_object_of_every_branch():
    layout, encoding = laid_out()
    assert layout.columns() == encoding.layout.columns()
    assert layout.num_columns == encoding.layout.num_columns == len(layout.columns())
    assert [branch.name for branch in layout.flat] == ["charge", "met", "run", "trigger"]
    assert [(each.name, each.width) for each in layout.collections] == [("Jet", 3), ("Mu", 1)]
    assert [branch.name for branch in layout.collections[0].branches] == ["Jet_id", "Jet_pt"]
    for column, name in enumerate(layout.columns()):
        branch, place = layout.at(column)
        assert name == (branch.name if place is None else f"{branch.name}[{place}]")
        assert branch is layout.branch(branch.name)
        assert branch.columns[place or 0] == column
    with pytest.raises(IndexError):
        layout.at(layout.num_columns)
    with pytest.raises(EncodeError, match=r"'Jet_Pt' is an input; did you mean 'Jet_pt'\?"):
        layout.branch("Jet_Pt")


def test_it_travels_and_compares():
    layout, _ = laid_out()
    assert pickle.loads(pickle.dumps(layout)) == layout  # noqa: S301  # our own bytes
    assert layout != laid_out(width=2)[0]


def test_whole_numbers_are_told_with_their_values():
    layout, _ = laid_out()
    whole = {branch.name: branch.values for branch in layout.branches if branch.is_whole}
    # All that there are of the run, and of the others all from the smallest to the largest.
    assert whole == {
        "run": (1, 7, 1_000, 2_000_000),
        "trigger": (0, 1),
        "charge": (-1, 0, 1),
        "Jet_id": (0, 1, 2, 3, 4),
    }
    assert layout.branch("charge").num_categories == 4
    assert layout.branch("met").num_categories == 0
    assert [layout.columns()[column] for column in layout.flags] == ["trigger"]
    many, _ = laid_out({"id": np.arange(MOST_VALUES + 1) * 100})
    assert many.branch("id").is_whole
    assert many.branch("id").values == ()


def test_a_branch_that_is_no_whole_number_somewhere_is_not_whole():
    layout, _ = laid_out({"x": np.append(np.ones(20_000), [0.5, 2.0])})  # perhaps not drawn
    assert not layout.branch("x").is_whole
    assert layout.branch("x").values == ()


def test_a_placeholder_that_is_encoded_as_missing_is_no_value():
    columns = {"n": np.tile([1, 2, 3, -99], 50)}
    how = {"n": {"shift": 1, "scale": 1, "missing": -99}}
    layout, _ = laid_out(columns, normalisation=how)
    assert layout.branch("n").values == (1, 2, 3)
    counted = Events.from_awkward(ak.Array({"n": np.arange(4)}))
    encoding = encoding_of(counted, normalisation="log-standard")
    layout = input_layout(encoding, measure(counted, sample="s"))
    assert layout.branch("n").values == (1, 2, 3)  # 0 has no logarithm


def test_numbers_that_single_precision_does_not_tell_apart_are_no_values():
    numbers = np.array([-211, -13, -11, 11, 13, 211, 1_000_010_020, 1_000_020_040])
    layout, _ = laid_out({"id": np.repeat(numbers, 50)}, normalisation="standard")
    branch = layout.branch("id")
    assert set(branch.alike) >= {11, 13}
    assert sorted(branch.values + branch.alike) == numbers.tolist()
    ends = [end for interval in sorted(branch.bounds) for end in interval]
    assert all(one < other for one, other in zip(ends[1::2], ends[2::2], strict=False))
    far, _ = laid_out(
        {"n": np.repeat([0, 1, 10**9, 10**9 + 1], 50)},
        normalisation={"n": {"shift": 0, "scale": 1}},
    )
    assert (far.branch("n").values, far.branch("n").alike) == ((0, 1), (10**9, 10**9 + 1))
    assert not far.branch("n").is_flag


@given(st.data())
@num_examples(15)
def test_a_value_lies_within_its_bounds_however_it_is_normalised(data):
    made = data.draw(events(min_events=1, finite=True))
    encoding = encoding_of(made, **data.draw(encode_options(made)))
    layout = input_layout(encoding, measure(made, sample="s"))
    encoded = encode(made, encoding)
    for branch in layout.branches:
        code_of = dict(zip(branch.values, branch.bounds, strict=True))
        original, contents = made.contents[branch.name], encoded.contents()[branch.name]
        if branch.collection is not None:  # sorted, cut
            original = original[: contents.size]
            if any(sort.collection == branch.collection for sort in encoding.sorts):
                continue
            if contents.size < made.contents[branch.name].size:
                continue
        for value, x in zip(original.tolist(), contents.tolist(), strict=True):
            if value in code_of and not np.isnan(x):
                low, high = code_of[value]
                assert low <= x <= high


def test_a_layout_is_made_of_branches_alone_where_no_event_is_known():
    branches = [Branch("met", "flat", "float32"), Branch("Jet_id", "jagged", "int16", "Jet")]
    layout = InputLayout.of(zip(branches, (1, 4), strict=True))
    assert layout.columns() == ["met", "Jet_id[0]", "Jet_id[1]", "Jet_id[2]", "Jet_id[3]"]
    assert [branch.is_whole for branch in layout.branches] == [False, True]
