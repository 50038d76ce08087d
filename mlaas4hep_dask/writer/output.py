"""Opens an output file and puts it into place once it is complete."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from mlaas4hep_dask.errors import WriteError, did_you_mean, writing
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.events import concatenate
from mlaas4hep_dask.formats import RootFormat
from mlaas4hep_dask.writer.sink import Sink

SUFFIXES = (".root", ".parquet")
FLUSH_BYTES = 8 * 1024**2  # smaller pieces make baskets and row groups that are slow to read
FLUSH_EVENTS = 100_000
# Branches of a TTree, counters included, before "auto" prefers an RNTuple: they take uproot a
# second or two, and twice as many four times as long.
MAX_TREE_BRANCHES = 500


ROOT_FORMATS: tuple[str, ...] = get_args(RootFormat)


class EventFile:
    """A file of events that is being written; `write_events` makes it.

    Parameters
    ----------
    path : Path
        Where it will be.
    sink : Sink
        A file format.
    branches : tuple of Branch
        What all events hold, dtypes included.
    form : {"TTree", "RNTuple", "Parquet"}
        What the events become.

    Attributes
    ----------
    num_events : int
        Events appended so far.
    """

    def __init__(self, path: Path, sink: Sink, branches: tuple[Branch, ...], form: str) -> None:
        self.path = path
        self.form = form
        self.num_events = 0
        self._sink = sink
        self._branches = {branch.name: branch for branch in branches}
        self._waiting: list[Events] = []
        self._waiting_bytes = 0
        self._waiting_events = 0
        self._note: str | None = None

    def append(self, events: Events) -> None:
        """Write some events after the earlier ones.

        Raises
        ------
        WriteError
            When they hold other branches than the file, or the disk is full.
        """
        self._require_same_branches(events)
        if len(events) == 0:
            return
        self.num_events += len(events)
        self._waiting.append(events)
        self._waiting_events += len(events)
        self._waiting_bytes += sum(content.nbytes for content in events.contents.values())
        if self._waiting_bytes >= FLUSH_BYTES or self._waiting_events >= FLUSH_EVENTS:
            self._flush()

    def describe(self, note: Mapping[str, Any]) -> None:
        """Keep a JSON object in the file, which tells where it comes from."""
        self._note = json.dumps(note, allow_nan=False)

    def complete(self) -> None:
        """Write what is waiting and close the file."""
        self._flush()
        with writing(self.path):
            self._sink.close(self._note)

    def _flush(self) -> None:
        if self._waiting:
            with writing(self.path):
                self._sink.append(concatenate(self._waiting))
        self._waiting = []
        self._waiting_bytes = self._waiting_events = 0

    def _require_same_branches(self, events: Events) -> None:
        there = {branch.name: branch for branch in events.branches}
        for name in {**self._branches, **there}:
            expected, actual = self._branches.get(name), there.get(name)
            fits = expected is not None and actual is not None and expected.same_shape(actual)
            if not fits or events.contents[name].dtype != np.dtype(actual.dtype):  # type: ignore[union-attr]
                raise WriteError(
                    f"{self.path}: branch {name!r} is {_kind(actual)}; the file's is "
                    f"{_kind(expected)}",
                    path=str(self.path),
                    branch=name,
                )


def _kind(branch: Branch | None) -> str:
    if branch is None:
        return "absent"
    where = "" if branch.collection is None else f" in collection {branch.collection!r}"
    return f"{branch.kind} {branch.dtype}{where}"


def check_output(
    path: str | Path, *, overwrite: bool = False, root_format: RootFormat = "auto"
) -> None:
    """Raise a WriteError unless a file of events may be written to ``path``.

    Its suffix tells the format, .root or .parquet, and ``root_format`` is for the former; its
    folder exists; and the file does not, unless it may be overwritten.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        expected = " or ".join(SUFFIXES)
        near = did_you_mean(path.suffix, SUFFIXES)
        raise WriteError.at(
            path, f"the suffix {path.suffix!r} tells no format; expected {expected}{near}"
        )
    if root_format not in ROOT_FORMATS:
        raise WriteError.at(
            path,
            f"unknown format {root_format!r} of ROOT files; expected "
            f"{', '.join(ROOT_FORMATS)}{did_you_mean(root_format, ROOT_FORMATS)}",
        )
    if root_format != "auto" and path.suffix != ".root":
        raise WriteError.at(path, f"{root_format} is a format of .root files, not of {path.suffix}")
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # such as a name that is too long
        raise WriteError(f"{path} cannot be written: {error.strerror}", path=str(path)) from error
    if path.is_dir():
        raise WriteError(f"{path} is a folder, expected a file", path=str(path))
    if path.exists() and not overwrite:
        raise WriteError(
            f"{path} exists; it is kept without --overwrite (overwrite=True)", path=str(path)
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise WriteError(f"{path} cannot be written: no folder {folder}", path=str(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(f"{path} cannot be written: {folder} is read-only", path=str(path))


@contextmanager
def write_events(
    path: str | Path,
    branches: Sequence[Branch],
    *,
    tree: str = "Events",
    overwrite: bool = False,
    root_format: RootFormat = "auto",
) -> Iterator[EventFile]:
    """A file to append events to; it appears at ``path`` when the context ends without an error.

    Parameters
    ----------
    path : str or Path
        A ``.root`` file, with one TTree or RNTuple, or a ``.parquet`` file. Until it is complete
        it has another name in the same folder, which begins with a dot.
    branches : sequence of Branch
        What all events will hold. In a TTree a collection's multiplicities are a branch too: that
        of ``Jet`` is ``nJet``, and a flat branch of integers with that name has to agree with it.
    tree : str
        Name of the TTree or RNTuple.
    overwrite : bool
        Replace an existing file.
    root_format : {"auto", "ttree", "rntuple"}
        What a ROOT file holds. By default it is a TTree of up to `MAX_TREE_BRANCHES` branches,
        and an RNTuple of more: a TTree takes a time that grows with their square.

    Raises
    ------
    WriteError
        When the format is unknown, the file exists or cannot be written, or a branch does not fit
        into the format.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite, root_format=root_format)
    if not branches:
        raise WriteError.at(path, "there is no branch to write")
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        with writing(path):
            sink, form = _sink(part, tuple(branches), tree, root_format)
        try:
            file = EventFile(path, sink, tuple(branches), form)
            yield file
            file.complete()
        except BaseException:
            with suppress(OSError):  # the disk may be full
                sink.abandon()
            raise
        with writing(path):
            _put_into_place(part, path, overwrite=overwrite)
    finally:
        part.unlink(missing_ok=True)


def _sink(
    part: Path, branches: tuple[Branch, ...], tree: str, root_format: RootFormat
) -> tuple[Sink, str]:
    if part.suffix == ".parquet":
        from mlaas4hep_dask.writer.parquet import ParquetSink

        return ParquetSink(part, branches), "Parquet"
    from mlaas4hep_dask.writer.elements import Renaming, stored_names
    from mlaas4hep_dask.writer.ntuple import NTupleSink, is_field_name
    from mlaas4hep_dask.writer.root import TreeSink

    if names := stored_names(branches):
        renamed = tuple(replace(each, name=names.get(each.name, each.name)) for each in branches)
        sink, form = _sink(part, renamed, tree, root_format)
        return Renaming(sink, names), form
    if root_format == "auto":
        num_counters = len({branch.collection for branch in branches} - {None})
        is_wide = len(branches) + num_counters > MAX_TREE_BRANCHES
        fits = all(is_field_name(branch.name) for branch in branches)
        root_format = "rntuple" if is_wide and fits else "ttree"
    if root_format == "rntuple":
        return NTupleSink(part, branches, tree), "RNTuple"
    return TreeSink(part, branches, tree), "TTree"


def _put_into_place(part: Path, path: Path, *, overwrite: bool) -> None:
    part.chmod(0o644)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    check_output(path, overwrite=overwrite)  # another process may have written it meanwhile
    part.replace(path)
