"""Opens ROOT files and tables; keeps the last few open."""

from __future__ import annotations

import gc
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import uproot
from fsspec.core import url_to_fs
from numpy.typing import NDArray

from mlaas4hep_dask.errors import DataError, did_you_mean
from mlaas4hep_dask.formats import ROOT
from mlaas4hep_dask.reader.access import Access, heard, is_remote, server_of
from mlaas4hep_dask.reader.baskets import basket_table
from mlaas4hep_dask.reader.branches import classify
from mlaas4hep_dask.reader.local import open_local
from mlaas4hep_dask.reader.places import BasketTable
from mlaas4hep_dask.reader.rootfile import identity_of, is_tree, tree_in
from mlaas4hep_dask.reader.shapes import Steps
from mlaas4hep_dask.reader.source import Catalogue, Source
from mlaas4hep_dask.reader.stamp import stamp_of, with_content
from mlaas4hep_dask.reader.tables import OpenTable, open_table

MAX_OPEN = 4


@dataclass(frozen=True)
class OpenTree:
    """A TTree or RNTuple of an open file and what has been learned of its branches.

    The tree is parsed when it is first asked for, which takes a second for some thousand branches;
    ``directory`` is the file's, as uproot has it. ``tables`` are those of its TBranches, by their
    keys in the catalogue and the steps to one number; ``layouts`` those of NanoEvents, by schema.
    Branches whose baskets end at the same entries share one array of these, which ``entries`` has
    by its bytes.
    """

    file: str
    name: str
    directory: Any
    uuid: str
    stamp: str
    tables: dict[tuple[str, Steps], BasketTable | None] = field(default_factory=dict)
    entries: dict[bytes, NDArray[np.int64]] = field(default_factory=dict)
    layouts: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> Any:
        """Where uproot gets the file's bytes from."""
        return self.directory.file.source

    @cached_property
    def tree(self) -> Any:
        """The TTree or RNTuple, as uproot has it."""
        with _without_collection():
            return tree_in(self.directory, self.name)

    @property
    def is_rntuple(self) -> bool:
        """True for an RNTuple, False for a TTree."""
        return not hasattr(self.tree, "branches")

    @cached_property
    def catalogue(self) -> Catalogue:
        """What the tree holds: one source for every name, made once."""
        return classify(self.tree)

    @cached_property
    def own_bytes(self) -> NDArray[np.uint8]:
        """The bytes of a TTree itself, uncompressed, in which baskets may be embedded."""
        chunk, _ = self.directory.key(self.name).get_uncompressed_chunk_cursor()
        return np.asarray(chunk.raw_data)

    def tables_of(self, sources: Sequence[Source]) -> dict[str, BasketTable]:
        """Basket tables of the sources that can be decoded here, and of their counters."""
        tables: dict[str, BasketTable] = {}
        for source in () if self.is_rntuple else sources:
            table = self._table(source.key, source.counter, source.steps, source.interpretation)
            if table is None or table.is_jagged != (source.branch.collection is not None):
                continue
            group = {source.branch.name: table}
            if source.counter is not None:
                counter = self._table(source.counter)
                if counter is None or counter.dtype.kind not in "iu":
                    continue
                group[source.counter] = counter
            # A branch may have the name of what counts others: that is left to uproot.
            if all(tables.get(name, each) is each for name, each in group.items()):
                tables |= group
        return tables

    def _table(
        self,
        key: str,
        counter: str | None = None,
        steps: Steps = (),
        interpretation: Any = None,
    ) -> BasketTable | None:
        if (key, steps) not in self.tables:
            holder = self.catalogue.holders[key]
            self.tables[key, steps] = basket_table(
                holder, counter, self.entries, key=key, steps=steps, interpretation=interpretation
            )
        return self.tables[key, steps]


@contextmanager
def _without_collection() -> Iterator[None]:
    """Garbage is not looked for meanwhile.

    A parsed tree is some hundred thousand objects that stay: looking through them again and again
    while they are made takes as long as making them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Entry(NamedTuple):
    stamp: str
    checked: float  # when the stamp was true
    opened: OpenTree | OpenTable


_CLASSES = dict(uproot.classes)  # those that uproot knows before it reads any file
_open: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
_lock = Lock()
_with_ranges: set[str] = set()  # HTTP servers that are known to answer range requests


def open_data(file: str, location: str, tree: str, access: Access) -> OpenTree | OpenTable:
    """The open tree or table; the last few stay open, and a changed file is opened anew.

    Whether it has changed is looked up each time for a local file, once a minute for a remote one.

    ``file`` is the name for errors, ``location`` one of the places where it lies.

    Raises
    ------
    UnreadableFileError
        When a local file does not exist.
    DataError
        When it holds no such tree; names the nearest.
    """
    format_ = access.format_of(file)
    how = [format_, tree, access.types, access.delimiter, access.collections, access.pace]
    key = (location, repr(how))
    with _lock:
        entry = _open.get(key)
        is_fresh = entry is not None and monotonic() - entry.checked < access.pace.fresh
        if entry is not None and is_fresh and is_remote(location):
            _open.move_to_end(key)
            return entry.opened
    now = monotonic()
    stamp = stamp_of(location, access)
    heard()
    if entry is not None and entry.stamp == stamp:
        with _lock:
            _open[key] = entry._replace(checked=now)
            _open.move_to_end(key)
        return entry.opened
    data: OpenTree | OpenTable
    if format_ == ROOT:
        data = _open_tree(file, location, tree, access, stamp)
    else:
        data = open_table(file, location, format_, access, stamp)
    with _lock:
        _open[key] = _Entry(stamp, now, data)
        _open.move_to_end(key)
        # The oldest are dropped, not closed: another thread may still read them.
        while len(_open) > MAX_OPEN:
            _open.popitem(last=False)
    return data


def forget(location: str) -> None:
    """Open this location anew when it is next asked for."""
    with _lock:
        for key in [key for key in _open if key[0] == location]:
            del _open[key]


def _open_tree(file: str, location: str, tree: str, access: Access, stamp: str) -> OpenTree:
    if is_remote(location):
        url = location.replace("xroot://", "root://", 1)
        _require_ranges(location, access)
        # A dict, because uproot would split a plain path at its last colon.
        opened = uproot.open({url: None}, **access.storage_options(location))
        _let_raise(opened.file.source)
    else:
        opened = open_local(location)
    # uproot keeps what it learns of classes for all files: two of one name are mixed up.
    opened.file.custom_classes = dict(_CLASSES)
    name = _tree_name(tree, opened, file)
    _require_whole(stamp, opened.file.fEND)
    # A file that is written to again keeps its UUID, but ends elsewhere.
    stamp = with_content(stamp, str(opened.file.fEND))
    return OpenTree(file, name, opened, identity_of(opened.file), stamp)


def _require_whole(stamp: str, end: int) -> None:
    """Raise unless the file has all the bytes that its header tells of."""
    size = re.match(r"\d+", stamp)  # a server may not tell it
    if size is not None and int(size.group()) < end:
        raise OSError(
            f"the file is cut short: it has {int(size.group()):,} bytes, and {end:,} by its header"
        )


def _tree_name(tree: str, opened: Any, file: str) -> str:
    """The name of a tree in a file, without the cycle if that is the newest.

    ROOT keeps the tree that is written again as a new cycle, and the older ones beside it.
    """
    cycles: dict[str, list[int]] = {}
    for key, kind in opened.classnames(cycle=True).items():
        if is_tree(opened.file, kind):
            name, _, cycle = key.rpartition(";")
            cycles.setdefault(name, []).append(int(cycle))
    name, semicolon, cycle = tree.partition(";")
    numbers = cycles.get(name, [])
    if numbers and not semicolon:
        return name
    if cycle.isdecimal() and int(cycle) in numbers:
        return name if int(cycle) == max(numbers) else f"{name};{int(cycle)}"
    if numbers:
        text = f"; {name!r} has the cycles {', '.join(map(str, sorted(numbers)))}"
    else:
        content = ", ".join(map(repr, cycles)) or "none"
        inside = [path for path in cycles if path.endswith(f"/{name}")]
        hint = f"; did you mean {inside[0]!r}?" if inside else did_you_mean(name, cycles)
        text = f"; it holds {content}{hint}"
    raise DataError(f"tree {tree!r} is not in {file}{text}", file=file, tree=tree, trees=[*cycles])


def _require_ranges(location: str, access: Access) -> None:
    """Raise when an HTTP server sends no parts of files: every read would get all of it."""
    server = server_of(location)
    if server in _with_ranges or not location.startswith(("http://", "https://")):
        return
    fs, path = url_to_fs(location, **access.storage_options(location))
    with fs.open(path, cache_type="none") as file:
        if file.size is None:  # it can be read in order only; uproot has its own way
            return
        file.seek(1)
        try:
            file.read(1)
        except ValueError:  # which names no server
            text = f"{server} answers no range requests, without which no part of a file is read"
            raise OSError(text) from None
    _with_ranges.add(server)


def _let_raise(source: Any) -> None:
    """Let a failed request raise its error.

    By default fsspec returns the error where the data would be, and uproot takes a piece of it: a
    TypeError that does not tell what happened.
    """
    fs = source._fs
    # fsspec hands out the same file system again and again
    if fs.async_impl and not isinstance(fs._cat_ranges, partial):
        fs._cat_ranges = partial(fs._cat_ranges, on_error="raise")
