"""Arrays that belong together and are of different lengths: an error everywhere, never a value."""

import warnings
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import encoding_of, events, num_examples

from mlaas4hep_dask.derive.recipe import Prepared, Recipe
from mlaas4hep_dask.encode import Block, decode, encode
from mlaas4hep_dask.encode.split import event_ids, split_of
from mlaas4hep_dask.errors import BundleError, DataError, EncodeError, MLaaSError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.score.script import Script
from mlaas4hep_dask.specs.measure import measure

MANY = num_examples(25)
CHANGES = st.sampled_from(["shorter", "longer", "empty", "another axis"])


def changed(array, change):
    """An array of another length; None if there is no such one."""
    if change == "shorter":
        return array[:-1] if len(array) else None
    if change == "longer":
        return np.concatenate([array, np.zeros((1, *array.shape[1:]), array.dtype)])
    if change == "empty":
        return array[:0] if len(array) else None
    return array[:, None] if array.ndim == 1 else array[:, 0]


def unchecked(events, contents, offsets):
    """Events that somebody changed after they were made."""
    made = object.__new__(Events)
    for name, value in zip(Events.__slots__, (events.num_events, events.branches), strict=False):
        object.__setattr__(made, name, value)
    object.__setattr__(made, "contents", contents)
    object.__setattr__(made, "offsets", offsets)
    return made


@st.composite
def broken_events(draw):
    """Events, the same ones whose contents or offsets disagree, and the name of what was changed.

    Offsets may also be of the right length and fall.
    """
    whole = draw(events(min_events=1))
    contents, offsets = dict(whole.contents), dict(whole.offsets)
    of = draw(st.sampled_from([*contents, *offsets]))
    arrays = offsets if of in offsets else contents
    if of in offsets and draw(st.booleans()):
        own = arrays[of].copy()
        place = draw(st.integers(0, len(own) - 1))
        own[place] += draw(st.sampled_from([-1, 1, 1000]))
        is_fine = own[0] == 0 and (np.diff(own) >= 0).all() and own[-1] == arrays[of][-1]
        arrays[of] = own
    else:
        other = changed(arrays[of], draw(CHANGES))
        is_fine = other is None
        if other is not None:
            arrays[of] = other
    return whole, unchecked(whole, contents, offsets), of, is_fine


@given(broken_events())
@MANY
def test_no_room_takes_events_whose_arrays_disagree(case):
    whole, broken, _, is_fine = case
    if is_fine:
        assert len(measure(broken, sample="s").branches) == len(whole.branches)
        return
    encoding = encoding_of(whole)
    recipe = Recipe.of(
        {branch.name: branch for branch in whole.branches}, derive={"twice": "2 * met"}
    )
    with pytest.raises(DataError):
        measure(broken, sample="s")
    with pytest.raises(DataError):
        encode(broken, encoding)
    with pytest.raises(DataError):
        recipe.prepare(broken, ["twice", *encoding.layout.branches])
    with pytest.raises(DataError):
        broken.checked()


@given(events(min_events=1), st.data())
@MANY
def test_events_cannot_be_made_of_arrays_of_other_lengths(whole, data):
    of = data.draw(st.sampled_from([*whole.contents, *whole.offsets]))
    arrays = dict(whole.offsets if of in whole.offsets else whole.contents)
    other = changed(arrays[of], data.draw(CHANGES))
    if other is None:
        return
    kind = "offsets" if of in whole.offsets else "contents"
    with pytest.raises(DataError, match=of) as caught:
        replace(whole, **{kind: {**arrays, of: other}})
    assert "expected" in caught.value.message
    with pytest.raises(DataError, match=of):
        replace(whole, **{kind: {name: own for name, own in arrays.items() if name != of}})


def block_of(whole):
    ids = event_ids("a file", 0, len(whole))
    split = split_of(ids, (0.5, 0.25, 0.25), seed=0)
    numbers = np.arange(len(whole), dtype=np.float32)
    return Block(encode(whole, encoding_of(whole)), numbers, numbers, ids, split)


@given(events(min_events=1), st.sampled_from(["y", "w", "id", "split"]), CHANGES)
@MANY
def test_a_block_is_of_as_many_events_in_all_its_arrays(whole, of, change):
    block = block_of(whole)
    other = changed(getattr(block, of), change)
    if other is None or len(other) == len(whole):
        return
    with pytest.raises(DataError, match="of a block"):
        replace(block, **{of: other})
    state = {**vars(block), of: other}
    with pytest.raises(DataError, match="of a block"):  # as one that arrives from another process
        object.__new__(Block).__setstate__(state)


@given(events(min_events=1), st.sampled_from(["values", "starts", "offsets"]), CHANGES)
@MANY
def test_encoded_events_are_whole_before_rows_are_made_of_them(whole, of, change):
    encoded = encode(whole, encoding_of(whole))
    other = changed(getattr(encoded, of), change)
    if of == "offsets" and change in ("shorter", "longer"):
        other = encoded.offsets[:, :-1] if change == "shorter" else np.hstack([encoded.offsets] * 2)
    if other is None:
        return
    with pytest.raises((DataError, EncodeError)):
        replace(encoded, **{of: other})
    with pytest.raises((DataError, EncodeError)):
        object.__new__(type(encoded)).__setstate__({**vars(encoded), of: other})


@given(events(min_events=2), st.data())
@MANY
def test_offsets_of_encoded_events_cannot_fall(whole, data):
    encoded = encode(whole, encoding_of(whole))
    offsets = encoded.offsets.copy()
    row = data.draw(st.integers(0, len(offsets) - 1))
    place = data.draw(st.integers(1, offsets.shape[1] - 2))
    offsets[row, place] = offsets[row, place + 1] + 1
    with pytest.raises(DataError, match="not to become less"):
        replace(encoded, offsets=offsets)


@given(events(min_events=2), st.data())
@MANY
def test_no_encoded_event_has_more_objects_than_there_is_room_for(whole, data):
    encoded = encode(whole, encoding_of(whole))
    row = data.draw(st.integers(0, len(encoded.offsets) - 1))
    width = encoded.layout.collection_widths[encoded.layout.collections[row]]
    assume(encoded.offsets[row, -1] > width)
    offsets = encoded.offsets.copy()
    offsets[row, 1:-1] = 0  # the last event has all
    with pytest.raises(DataError, match=f"objects in an event, and room for {width}"):
        replace(encoded, offsets=offsets)


@given(events(min_events=1), CHANGES)
@MANY
def test_ids_are_of_as_many_events_as_are_measured(whole, change):
    ids = changed(event_ids("a file", 0, len(whole)), change)
    if ids is None or ids.shape == (len(whole), 2):
        return
    with pytest.raises(DataError, match="ids"):
        measure(whole, sample="s", ids=ids)


@given(events(min_events=1), CHANGES)
@MANY
def test_rows_mask_and_multiplicities_are_of_the_same_events_to_be_decoded(whole, change):
    encoding = encoding_of(whole)
    encoded = encode(whole, encoding)
    x, missing, counts = encoded.dense(), encoded.missing(), encoded.multiplicities()
    other = changed(counts.T, change)
    if other is not None:
        with pytest.raises(MLaaSError):
            decode(x, missing, encoding, multiplicities=other.T)
    for cut in (changed(x, change), changed(missing, change)):
        if cut is not None:
            pair = (cut, missing) if cut.dtype == x.dtype else (x, cut)
            with pytest.raises(MLaaSError):
                decode(*pair, encoding)


@given(events(min_events=1), st.data())
@MANY
def test_a_selection_is_one_of_the_events_that_it_leaves(whole, data):
    selected = np.array(data.draw(st.lists(st.booleans(), max_size=2 * len(whole))), dtype=bool)
    if np.count_nonzero(selected) == len(whole):
        assert Prepared(whole, selected).events is whole
        return
    with pytest.raises(DataError, match="selected"):
        Prepared(whole, selected)


def test_what_a_wrong_length_says():
    branches = (Branch("met", "flat", "float32"), Branch("Jet_pt", "jagged", "float32", "Jet"))
    offsets = {"Jet": np.array([0, 1, 3])}
    contents = {"met": np.zeros(2, np.float32), "Jet_pt": np.zeros(2, np.float32)}
    with pytest.raises(DataError) as caught:
        Events(2, branches, contents, offsets)
    assert caught.value.message == (
        "branch 'Jet_pt': values of shape (2,) in 2 events; expected jagged float32 (collection "
        "'Jet') of shape (3,)"
    )
    assert caught.value.branch == "Jet_pt"
    with pytest.raises(DataError, match=r"'Jet': offsets 3, 1 at event 1"):
        Events(3, (), {}, {"Jet": np.array([0, 3, 1, 4])}).checked()
    assert len(Events.from_awkward(ak.Array({"x": [[1.0], []]})).checked()) == 2


class PerBatch(torch.nn.Module):
    """Gives one number for all events of a batch."""

    @torch.jit.export
    def score_encoded(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return x.sum(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_network_gives_as_many_scores_as_there_are_events(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(PerBatch())
        torch.jit.save(scripted, str(tmp_path / "model.pt"))
    network = Script(tmp_path / "model.pt")
    x = np.zeros((5, 3), np.float32)
    with pytest.raises(BundleError, match=r"shape \(3,\) for 5 events"):
        network.scores_of(x, x.astype(bool))
