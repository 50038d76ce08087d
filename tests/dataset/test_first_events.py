"""What the plan tells before anything is measured."""

import numpy as np
import pytest
import uproot

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.dataset.trial import first_notes, require_splits
from mlaas4hep_dask.errors import TrainingError
from mlaas4hep_dask.inputs.preflight import preflight


def plan_of(folder, values, **more):
    """The plan of one file with these values, and of another with small ones."""
    samples = []
    for label, of in enumerate((values, np.arange(len(values), dtype=values.dtype))):
        path = folder / f"{label}.root"
        with uproot.recreate(path) as file:
            file.mktree("t", {"x": of.dtype}).extend({"x": of})
        samples.append({"name": f"s{label}", "label": label, "files": str(path)})
    config = Config.from_mapping({"tree": "t", "samples": samples, **more})
    return check_files(preflight(description_of(config)), config.partition, config.max_events)


def test_whole_numbers_that_float32_does_not_hold_are_told_of(tmp_path):
    (note,) = first_notes(plan_of(tmp_path, 2**24 + np.arange(8, dtype="int64")))
    assert note.startswith("the first events have ")
    assert "x" in note
    assert first_notes(plan_of(tmp_path, np.arange(8, dtype="int16"))) == []


def test_a_split_without_an_event_names_its_place_and_fraction(tmp_path):
    values = np.arange(1_000, dtype="float32")
    require_splits(plan_of(tmp_path, values), "a.yaml:3")
    split = {"train": 0.5, "validation": 0.5 - 1e-9, "test": 1e-9}
    plan = plan_of(tmp_path, values, split=split)
    with pytest.raises(TrainingError, match=r"^a\.yaml:3: the test split has no event") as error:
        require_splits(plan, "a.yaml:3")
    assert error.value.facts["split"] == "test"
