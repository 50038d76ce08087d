"""Notes on the inputs of a data set."""

import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.inputs.leaks import leak_notes
from mlaas4hep_dask.inputs.notes import FEW, together
from mlaas4hep_dask.inputs.preflight import preflight


@given(st.lists(st.text(), max_size=3 * FEW))
def test_no_note_is_lost_when_they_are_put_together(notes):
    lines = together(notes)
    assert len(lines) <= FEW
    if len(notes) <= FEW:
        assert lines == notes
    else:
        assert lines == [f"{notes[0]}; likewise {len(notes) - 1} more"]


@pytest.mark.parametrize(
    ("include", "words"),
    [
        (["x"], []),
        (["*"], []),
        (["x", "w"], ["weight is made of w"]),
        (["x", "half"], ["target is made of half"]),
        (["x", "w", "half"], ["target is made of half", "weight is made of w"]),
    ],
)
def test_an_input_that_tells_of_target_or_weight_is_warned_of(tmp_path, include, words):
    values = np.arange(100) % 2
    branches = {"x": values / 7, "w": values + 1.0, "kind": values.astype("int32")}
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("t", {name: v.dtype for name, v in branches.items()}).extend(branches)
    keys = {
        "tree": "t",
        "samples": [{"name": "all", "files": str(tmp_path / "a.root")}],
        "derive": {"half": "kind / 2"},
        "target": {"branch": "kind", "classes": ["light", "heavy"]},
        "weight": "w",
        "branches": {"include": include},
    }
    notes = leak_notes(preflight(description_of(Config.from_mapping(keys))))
    assert len(notes) == len(words)
    for note, text in zip(notes, words, strict=True):
        assert note.startswith(f"WARNING: {text}")
