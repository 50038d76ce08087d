"""Writes events as an RNTuple, in which each jagged branch is a vector of its own."""

from __future__ import annotations

import re
from pathlib import Path

import awkward as ak
import numpy as np

from mlaas4hep_dask.errors import WriteError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.writer.rootfile import RootFile

UNFIT = re.compile(r"[\x00-\x1f\x7f./\\:]")  # in the name of a field; what ROOT refuses


class NTupleSink(RootFile):
    """An RNTuple in a new ROOT file, one cluster for each `append`.

    It takes the time that its fields take. uproot serialises a TTree anew for each of its branches.

    Parameters
    ----------
    path : Path
        The file; an existing one is overwritten.
    branches : tuple of Branch
        Flat and jagged branches of numbers.
    name : str
        Name of the RNTuple.

    Raises
    ------
    WriteError
        When a name cannot be that of a field.
    """

    def __init__(self, path: Path, branches: tuple[Branch, ...], name: str) -> None:
        for branch in branches:
            if not is_field_name(branch.name):
                raise WriteError(
                    f"branch {branch.name!r} cannot be in an RNTuple: its name has a dot, slash or "
                    "colon; write a TTree or Parquet",
                    branch=branch.name,
                )
        self._names = [branch.name for branch in branches]
        super().__init__(path)
        record = ak.forms.RecordForm(list(map(_form, branches)), self._names)
        self._ntuple = self._file.mkrntuple(name, record)

    def append(self, events: Events) -> None:
        """Write some events."""
        columns = {}
        for branch in events.branches:
            content = events.contents[branch.name]
            if branch.collection is None:
                columns[branch.name] = ak.contents.NumpyArray(content)
            else:
                offsets = ak.index.Index64(events.offsets[branch.collection])
                numbers = ak.contents.NumpyArray(content)
                columns[branch.name] = ak.contents.ListOffsetArray(offsets, numbers)
        layouts = [columns[name] for name in self._names]
        record = ak.contents.RecordArray(layouts, self._names, length=len(events))
        self._ntuple.extend(ak.Array(record))


def is_field_name(name: str) -> bool:
    """True for what a field of an RNTuple may be called."""
    return bool(name) and UNFIT.search(name) is None


def _form(branch: Branch) -> ak.forms.Form:
    number = ak.forms.NumpyForm(np.dtype(branch.dtype).name)
    return number if branch.collection is None else ak.forms.ListOffsetForm("i64", number)
