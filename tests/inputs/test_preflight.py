"""The check before a cluster is started, called with values as a notebook may do."""

import numpy as np
import pytest
import uproot

from mlaas4hep_dask.catalog import Listing
from mlaas4hep_dask.config import Branches, Places, Sample
from mlaas4hep_dask.errors import ConfigError, UnreadableFileError
from mlaas4hep_dask.inputs.description import Description
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.inputs.prepare import Texts
from mlaas4hep_dask.inputs.supervision import Supervision
from mlaas4hep_dask.objective import TwoClasses
from mlaas4hep_dask.reader import Access


@pytest.fixture
def folder(tmp_path):
    for name in ("signal", "background"):
        with uproot.recreate(tmp_path / f"{name}.root") as file:
            file["Events"] = {"x": np.arange(20.0), "y": np.arange(20.0) / 2}
    return tmp_path


def described(folder, **values):
    samples = [
        Sample(name=name, label=label, files=f"{name}.root")
        for label, name in enumerate(("background", "signal"))
    ]
    places = Places("analysis", {"derive.z": 7}, folder)
    supervision = Supervision.of(TwoClasses(("background", "signal")), samples, [], None, places)
    return Description(Listing(samples, places=places), Access(), supervision, **values)


def test_a_data_set_is_checked_from_values_without_a_configuration(folder):
    checked = preflight(
        described(
            folder,
            branches=Branches(include=["x", "z"]),
            texts=Texts(derive={"z": "x + y"}, select=["x > 3"]),
        )
    )
    assert [branch.name for branch in checked.branches] == ["x", "z"]
    assert set(checked.reads) == {"x", "y"}
    assert {name: len(files) for name, files in checked.files.items()} == {
        "background": 1,
        "signal": 1,
    }


def test_what_is_wrong_with_a_value_has_the_place_that_the_caller_gave(folder):
    with pytest.raises(ConfigError, match=r"analysis:7: derive\.z: .*'q'"):
        preflight(described(folder, texts=Texts(derive={"z": "x + q"})))


def test_files_that_cannot_be_read_are_left_out_where_the_caller_says_so(folder):
    (folder / "signal.root").write_bytes(b"root but not really" * 50)
    with pytest.raises(UnreadableFileError, match="signal"):
        preflight(described(folder))
    assert preflight(described(folder, skip=True)).reference.file.endswith("background.root")
