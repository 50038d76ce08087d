"""NanoEvents of a partition, whose branches are read when they are touched."""

from __future__ import annotations

import warnings
from typing import Any

import awkward as ak

from mlaas4hep_dask.errors import FunctionError, MissingExtraError
from mlaas4hep_dask.formats import ROOT, SCHEMAS
from mlaas4hep_dask.reader.access import reason_of
from mlaas4hep_dask.reader.opened import OpenTree
from mlaas4hep_dask.reader.partition import Partition
from mlaas4hep_dask.reader.read import open_partition

HINTS = {
    "fcc": "; FCC files of EDM4hep 1 and later need 'fcc-edm4hep1'",
    "fcc-edm4hep1": "; FCC files from before EDM4hep 1 need 'fcc'",
}
# Older podio keeps maps of parameters in the tree, which no array can hold.
FILTERS = {"fcc": {"filter_name": "/^(?!.*(PARAMETERS|_.*Map))/"}}


def nano_events(partition: Partition, schema: str, log: list[str]) -> ak.Array:
    """NanoEvents of a partition of a ROOT file.

    Parameters
    ----------
    partition : Partition
        Entry range of a file.
    schema : str
        A key of `SCHEMAS`.
    log : list of str
        Receives the names of the branches that are read.

    Raises
    ------
    FunctionError
        When the file is no ROOT file, or its branches do not fit the schema.
    MissingExtraError
        When coffea is not installed.
    UnreadableFileError
        When the file cannot be read.
    """
    if partition.access.format_of(partition.file) != ROOT:
        raise FunctionError(
            f"{partition.file} is no ROOT file, which NanoEvents need; use 'events: awkward'",
            schema=schema,
        )
    try:
        from coffea.nanoevents import NanoEventsFactory
        from coffea.nanoevents.mapping import TrivialUprootOpener, UprootSourceMapping
        from coffea.nanoevents.util import tuple_to_key
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("coffea", module=error.name or "coffea") from error

    opened = open_partition(partition)
    assert isinstance(opened, OpenTree)  # of a ROOT file
    layout = _layout(opened, schema)
    # As from_root() makes it, which would open the file and work out its layout each time.
    tree = opened.tree
    start, stop = partition.entry_start, partition.entry_stop
    mapping = UprootSourceMapping(
        TrivialUprootOpener({opened.uuid: partition.file}),
        start,
        stop,
        cache={},
        access_log=_Log(log),
        use_ak_forth=True,
        virtual=True,
    )
    mapping.preload_column_source(opened.uuid, tree.object_path, tree)
    key = tuple_to_key((opened.uuid, tree.object_path, f"{start}-{stop}"))
    return NanoEventsFactory(layout, mapping, key, mode="virtual").events()


def _layout(opened: OpenTree, schema: str) -> Any:
    """The schema fitted to the branches of a tree, which takes a second for a thousand."""
    from coffea import nanoevents

    if schema not in opened.layouts:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of cross references that the file does not have
                factory = nanoevents.NanoEventsFactory.from_root(
                    opened.tree.file.root_directory,
                    treepath=opened.name,
                    schemaclass=getattr(nanoevents, SCHEMAS[schema]),
                    iteritems_options=FILTERS.get(schema, {}),
                )
        except Exception as error:  # schemas raise whatever names and types cause
            raise FunctionError(
                f"tree {opened.name!r} of {opened.file} does not fit the schema {schema!r} of "
                f"NanoEvents ({reason_of(error)}){HINTS.get(schema, '')}; 'base' and 'awkward' "
                "take any branches",
                schema=schema,
            ) from error
        opened.layouts[schema] = factory.__getstate__()["schema"]
    return opened.layouts[schema]


class _Log(list[Any]):
    """Receives what NanoEvents tells of every branch that it reads."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._names = names

    def append(self, accessed: Any) -> None:
        self._names.append(str(accessed.branch))
