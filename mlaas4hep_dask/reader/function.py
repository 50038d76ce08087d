"""Runs a user's function on the events of a partition, and finds out what it reads."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import (
    FunctionError,
    MLaaSError,
    UnreadableFileError,
    did_you_mean,
)
from mlaas4hep_dask.events.events import Branch, Events
from mlaas4hep_dask.reader.flatten import Field, fields_of, flattened
from mlaas4hep_dask.reader.nanoevents import nano_events
from mlaas4hep_dask.reader.partition import Partition
from mlaas4hep_dask.reader.read import read
from mlaas4hep_dask.usercode import RAISED, UserCode, limited

ENTRY = "mlaas4hep_entry"  # a field of the events, by which those that are returned are known
READERS = ("uproot", "fsspec", "fsspec_xrootd", "aiohttp")


@dataclass(frozen=True)
class UserFunction:
    """A user's function of events.

    Parameters
    ----------
    code : UserCode
        The function with all that it consists of.
    events : str
        ``awkward``, or a key of `nanoevents.SCHEMAS`.
    kwargs : mapping
        Keyword arguments of the callable.
    """

    code: UserCode
    events: str
    kwargs: Mapping[str, Any]

    @property
    def reference(self) -> str:
        """``module:callable`` as in dataset.yaml."""
        return self.code.reference

    def error(self, what: str) -> FunctionError:
        """That the function did ``what``."""
        return FunctionError(f"{self.reference!r} {what}", callable=self.reference)


class Traced:
    """What a function does with some events.

    Parameters
    ----------
    partition : Partition
        Some events.
    function : UserFunction
        Is run on them.
    branches : sequence of Branch
        Branches of the tree.

    Raises
    ------
    FunctionError
        When the function fails or does not return events.
    """

    def __init__(
        self, partition: Partition, function: UserFunction, branches: Sequence[Branch]
    ) -> None:
        self._log: list[str] = []
        self._partition = partition
        self.function = function
        self.tree = {branch.name for branch in branches}
        self._result, _ = _run(self._partition, function, branches, self._log)
        self.fields = {n: f for n, f in fields_of(self._result).items() if n != ENTRY}

    @property
    def branches(self) -> dict[str, Branch]:
        """What the function returns, by name."""
        return {n: f.branch for n, f in self.fields.items() if isinstance(f.branch, Branch)}

    @property
    def left_out(self) -> dict[str, str]:
        """What it returns that cannot be a branch, with the reason."""
        return {n: f.branch for n, f in self.fields.items() if isinstance(f.branch, str)}

    def reads(self, names: Sequence[str]) -> list[str]:
        """Branches of the tree that are read when ``names`` of the result are used."""
        with _blame(self.function, self._partition):
            flattened(self._result, [self.fields[name] for name in names])
        return sorted(set(self._log))


def run_function(
    partition: Partition,
    function: UserFunction,
    branches: Sequence[Branch],
    fields: Sequence[Field],
) -> tuple[Events, NDArray[np.bool_]]:
    """The events that a function returns, and which of the partition's they are.

    Parameters
    ----------
    partition : Partition
        Entry range of a file.
    function : UserFunction
        Gets its events; branches are read when they are touched.
    branches : sequence of Branch
        Branches of the tree.
    fields : sequence of Field
        Fields of the result that are used.

    Raises
    ------
    FunctionError
        When the function fails or does not return events.
    UnreadableFileError
        When the file cannot be read.
    """
    result, selected = _run(partition, function, branches, [])
    by_name = fields_of(result)
    for each in fields:
        if each.name not in by_name:
            raise function.error(
                f"returned no {each.name!r} for {partition}, though it did for the first events"
            )
        first, here = each.branch, by_name[each.name].branch
        # a str tells of no event's type in a partition without events
        if isinstance(here, Branch) and isinstance(first, Branch) and here.kind != first.kind:
            raise function.error(
                f"returned a {here.kind} {each.name!r} for {partition}, and a {first.kind} one for "
                "the first events"
            )
    with _blame(function, partition):
        return flattened(result, fields), selected


def _run(
    partition: Partition, function: UserFunction, branches: Sequence[Branch], log: list[str]
) -> tuple[ak.Array, NDArray[np.bool_]]:
    call = function.code.load()
    num_events = len(partition)
    with _blame(function, partition), limited():
        if function.events == "awkward":
            events = _records(partition, branches, log)
        else:
            events = nano_events(partition, function.events, log)
        events[ENTRY] = np.arange(num_events)
        with np.errstate(all="ignore"):
            result = call(events, **function.kwargs)
        if not isinstance(result, ak.Array) or not ak.fields(result) or len(result) > num_events:
            raise function.error(
                f"returned {_shown(result)}, expected an array of at most {num_events} events with "
                "fields"
            )
        if isinstance(ak.type(result).content, ak.types.OptionType):
            result = _without_none(result)
        return result, _selected(result, num_events, function)


def _without_none(result: ak.Array) -> ak.Array:
    """The events that are not None; ``ak.drop_none`` would read all their fields."""
    layout = ak.to_layout(result).to_IndexedOptionArray64()
    index = np.asarray(layout.index.data)
    content = ak.Array(layout.content, behavior=result.behavior, attrs=result.attrs)
    return content[index[index >= 0]]


def _selected(result: ak.Array, num_events: int, function: UserFunction) -> NDArray[np.bool_]:
    if ENTRY not in ak.fields(result):
        if len(result) == num_events:
            return np.ones(num_events, dtype=np.bool_)
        raise function.error(
            f"returned {len(result)} of {num_events} events, and nothing tells which: return "
            f"events[condition] with more fields, or keep the field {ENTRY!r}"
        )
    entries = ak.to_numpy(result[ENTRY])
    if np.any(np.diff(entries) <= 0):
        raise function.error("changed the order of events")
    if len(entries) and not 0 <= entries[0] <= entries[-1] < num_events:
        raise function.error(
            f"gives events the {ENTRY!r} {entries[0]} to {entries[-1]}, expected numbers from 0 to "
            f"{num_events - 1}, as they were: it tells which event of the partition each is"
        )
    selected = np.zeros(num_events, dtype=np.bool_)
    selected[entries] = True
    return selected


def _shown(result: Any) -> str:
    return f"{len(result)} events" if isinstance(result, ak.Array) else type(result).__name__


def _records(partition: Partition, branches: Sequence[Branch], log: list[str]) -> ak.Array:
    """Records of all branches, each of which is read when it is touched."""
    columns: dict[str, Events] = {}

    def of(branch: Branch) -> Events:
        if branch.name not in columns:
            columns[branch.name] = read(partition, [branch])
            log.append(branch.name)
        return columns[branch.name]

    def values(branch: Branch) -> NDArray[Any]:
        return of(branch).contents[branch.name]

    def offsets(branch: Branch) -> NDArray[np.int64]:
        assert branch.collection is not None  # it is jagged
        return of(branch).offsets[branch.collection]

    contents = []
    buffers: dict[str, Callable[[], NDArray[Any]]] = {}
    for number, branch in enumerate(branches):
        form: Any = ak.forms.NumpyForm(branch.dtype, form_key=f"{number}")
        buffers[f"{number}-data"] = partial(values, branch)
        if branch.collection is not None:
            form = ak.forms.ListOffsetForm("i64", form, form_key=f"{number}-list")
            buffers[f"{number}-list-offsets"] = partial(offsets, branch)
        contents.append(form)
    record = ak.forms.RecordForm(contents, [branch.name for branch in branches])
    return ak.from_buffers(record, len(partition), buffers, buffer_key="{form_key}-{attribute}")


@contextmanager
def _blame(function: UserFunction, partition: Partition) -> Iterator[None]:
    """Turns what a function raises into an error that names it, or the file that it read."""
    try:
        yield
    except MLaaSError:
        raise
    except RAISED as error:  # whatever the user's code raises
        frames = list(traceback.walk_tb(error.__traceback__))
        modules = [frame.f_globals.get("__name__", "") for frame, _ in frames]
        reason = f"{type(error).__name__}: {error}"
        if any(name.split(".")[0] in READERS for name in modules):
            raise UnreadableFileError(
                f"{partition.file} cannot be read ({reason})", file=partition.file, reason=reason
            ) from error
        near = ""
        if isinstance(error, AttributeError) and isinstance(error.obj, ak.Array):
            near = did_you_mean(str(error.name), ak.fields(error.obj))
        if isinstance(error, ModuleNotFoundError) and function.code.asked_for(error):
            near = (
                "; a module of yours that is imported by a computed name is not sent: name it in "
                "an import statement too"
            )
        where = function.code.where(error)
        raise function.error(f"failed{where} for {partition}: {reason}{near}") from error
