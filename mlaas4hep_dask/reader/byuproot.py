"""What is not decoded here is read by uproot, and looked at before anybody believes it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.reader.access import heard
from mlaas4hep_dask.reader.cells import cell_of, truths
from mlaas4hep_dask.reader.counts import count_by_uproot
from mlaas4hep_dask.reader.joins import Agreement
from mlaas4hep_dask.reader.ntuple import is_dotted
from mlaas4hep_dask.reader.objects import element, is_leaf_list, is_object, member, read_objects
from mlaas4hep_dask.reader.partition import Partition
from mlaas4hep_dask.reader.shapes import UnfitShapeError, taken
from mlaas4hep_dask.reader.source import Catalogue, Source
from mlaas4hep_dask.reader.truncated import Lists
from mlaas4hep_dask.reader.whole import WRITE_IT_SPLIT, Whole

logger = logging.getLogger(__name__)

HEAD = 1_000  # entries of an RNTuple on which fields are tried
TOGETHER = 100  # branches that uproot reads at once; the server of a remote file is heard after it
_MULTIPLICITY = uproot.AsDtype(">i4")


def read_by_uproot(
    catalogue: Catalogue,
    partition: Partition,
    sources: Sequence[Source],
    contents: dict[str, NDArray[Any]],
    offsets: dict[str, NDArray[np.int64]],
    agreement: Agreement,
) -> None:
    """Put values of the sources into ``contents``, and offsets that are new into ``offsets``.

    Raises
    ------
    DataError
        When there are other entries than asked for, lists have other lengths than their counter
        says, or the bytes of objects are not what uproot takes them for.
    DisagreementError
        When lists have other lengths than the rest of their collection.
    """
    by_key: dict[str, list[Source]] = {}
    for source in sources:
        by_key.setdefault(source.key, []).append(source)
    start, stop = partition.entry_start, partition.entry_stop
    firsts = [inside[0] for inside in by_key.values()]
    arrays = _arrays([each.holder for each in firsts if each.interpretation is None], start, stop)
    for inside in by_key.values():  # what one TBranch or field holds is read once
        try:
            arrays_of_sources = _read(catalogue, inside, start, stop, arrays)
        except UnfitShapeError as error:
            branch = inside[0].branch
            raise DataError.in_tree(
                partition, f"branch {branch.name!r} has {error} in {partition}", branch=branch.name
            ) from error
        for source, (values, ends) in zip(inside, arrays_of_sources, strict=True):
            branch = source.branch
            count_by_uproot(branch.name)
            contents[branch.name] = truths(values)
            if ends is not None and branch.collection is not None:
                offsets[branch.collection] = agreement.of(branch, ends)


def without_unreadable(catalogue: Catalogue) -> Catalogue:
    """The catalogue without what uproot describes and cannot read, of which it tries the start.

    What is decoded here is not tried.
    """
    by_key: dict[str, list[Source]] = {}
    for source in catalogue.sources.values():
        is_odd = source.steps or source.interpretation is not None
        if (is_odd or isinstance(source.holder, uproot.TBranch)) and not _is_decoded(source):
            by_key.setdefault(source.key, []).append(source)
    reasons: dict[str, str] = {}
    for key, inside in by_key.items():
        try:
            _read(catalogue, inside, 0, _first_basket(inside[0].holder))
        except (OSError, TimeoutError):
            raise
        except Exception as error:  # whatever bytes cause that are not what uproot expects
            why, what_to_do = _first_words(error), ""
            kind = inside[0].interpretation
            if isinstance(inside[0].holder, uproot.TBranch) and isinstance(kind, Whole | None):
                why = f"{inside[0].holder.typename}, which was not split: {why}"
                what_to_do = f"; {WRITE_IT_SPLIT}"
            reasons[key] = f"of a type that uproot cannot read ({why}){what_to_do}"
    if not reasons:
        return catalogue
    sources = {n: source for n, source in catalogue.sources.items() if source.key not in reasons}
    left_out = {n: reasons[s.key] for n, s in catalogue.sources.items() if s.key in reasons}
    return replace(catalogue, sources=sources, left_out={**catalogue.left_out, **left_out})


def _first_words(error: Exception) -> str:
    """What went wrong, in a line; uproot's own errors begin with all that it was reading."""
    message = error.message if isinstance(error, uproot.DeserializationError) else str(error)
    lines = message.strip().splitlines()
    return lines[0] if lines else repr(error)


def _is_decoded(source: Source) -> bool:
    """True for numbers that uproot need not read."""
    if not isinstance(source.holder, uproot.TBranch):
        return False
    meaning = source.interpretation or source.holder.interpretation
    return cell_of(meaning, source.key, source.steps) is not None


def _first_basket(holder: Any) -> int:
    """Where the first basket of a TBranch ends; a basket is decompressed as a whole."""
    if hasattr(holder, "entry_offsets"):
        return int(holder.entry_offsets[min(1, holder.num_baskets)])
    return int(min(HEAD, holder.ntuple.num_entries))


def _arrays(holders: Sequence[Any], start: int, stop: int) -> dict[str, Any]:
    """By cache key: what uproot reads in one call of TBranches at the top of their tree.

    It takes a third of the time of a call for each. Others uproot would look for among all
    branches, once for each.
    """
    tops = [
        holder
        for holder in holders
        if isinstance(holder, uproot.TBranch)
        and holder.top_level
        and not is_object(holder.interpretation)
        and not is_leaf_list(holder.interpretation)
    ]
    arrays: dict[str, Any] = {}
    for first in range(0, len(tops) if len(tops) > 1 else 0, TOGETHER):
        names = {holder.cache_key: holder.name for holder in tops[first : first + TOGETHER]}
        try:
            batch = tops[first].tree.arrays(
                filter_branch=lambda branch, names=names: branch.cache_key in names,
                entry_start=start,
                entry_stop=stop,
                library="ak",
                how=dict,
            )
        except (OSError, TimeoutError):
            raise
        except Exception as reason:  # uproot's words for one of them do not tell which it is
            logger.info("branches are read one by one: %s", reason)
            continue
        heard()
        arrays |= {key: batch[name] for key, name in names.items() if name in batch}
    return arrays


def _read(
    catalogue: Catalogue,
    inside: Sequence[Source],
    start: int,
    stop: int,
    arrays: Mapping[str, Any] | None = None,
) -> list[tuple[NDArray[Any], NDArray[np.int64] | None]]:
    """Values and offsets of what one holder has."""
    first = inside[0]
    is_counted = first.steps or isinstance(first.interpretation, Lists)
    multiplicities = _multiplicities(catalogue, first, start, stop) if is_counted else None
    if first.interpretation is None and is_object(getattr(first.holder, "interpretation", None)):
        records, ends = read_objects(first.holder, start, stop, multiplicities)
        heard()
        return [(member(records, each.steps, each.branch.dtype), ends) for each in inside]
    if first.interpretation is None and is_leaf_list(getattr(first.holder, "interpretation", None)):
        leaves = first.holder.array(entry_start=start, entry_stop=stop, library="np")
        heard()
        if len(leaves) != stop - start:
            raise UnfitShapeError(f"{len(leaves)} entries")
        return [(member(leaves, each.steps, each.branch.dtype), None) for each in inside]
    if isinstance(first.interpretation, Lists):
        numbers, list_ends = first.interpretation.read(first.holder, start, stop, multiplicities)
        heard()
        return [(element(numbers, each.steps, each.branch.dtype), list_ends) for each in inside]
    if isinstance(first.interpretation, Whole):
        members, ends = first.interpretation.read(first.holder, start, stop)
        heard()
        return [(member(members, each.steps, each.branch.dtype), ends) for each in inside]
    array = None
    if arrays and isinstance(first.holder, uproot.TBranch):
        array = arrays.get(first.holder.cache_key)
    if array is None:
        array = _array(first, start, stop)
        heard()
    if len(array) != stop - start:
        raise UnfitShapeError(f"{len(array)} entries")
    pairs = [taken(array.layout, each.steps, each.branch.dtype) for each in inside]
    for each, (_, ends) in zip(inside, pairs, strict=True):
        if (ends is None) != (each.branch.collection is None):
            raise UnfitShapeError("other lists")
        if (
            ends is not None
            and multiplicities is not None
            and not np.array_equal(np.diff(ends), multiplicities)
        ):
            raise UnfitShapeError(f"other multiplicities than {first.counter!r}")
    return pairs


def _array(source: Source, start: int, stop: int) -> Any:
    """What uproot reads of one TBranch or field."""
    holder = source.holder
    if is_dotted(holder):
        entries = {"entry_start": start, "entry_stop": stop, "library": "ak"}
        return holder.ntuple.arrays(filter_field=lambda field: field is holder, **entries)[
            holder.name
        ]
    kind = () if source.interpretation is None else (source.interpretation,)  # a field takes none
    return holder.array(*kind, entry_start=start, entry_stop=stop, library="ak")


def multiplicities_of(
    catalogue: Catalogue, source: Source, start: int, stop: int
) -> NDArray[np.int64]:
    """How many objects a jagged source has in each of the entries [start, stop)."""
    multiplicities = _multiplicities(catalogue, source, start, stop)
    if multiplicities is None:
        _, offsets = _read(catalogue, [source], start, stop)[0]
        assert offsets is not None  # it is jagged
        multiplicities = np.diff(offsets)
    heard()
    return multiplicities


def _multiplicities(
    catalogue: Catalogue, source: Source, start: int, stop: int
) -> NDArray[np.int64] | None:
    """Multiplicities that another TBranch holds."""
    if source.counter is None:
        return None
    holder = catalogue.holders[source.counter]
    kind = _MULTIPLICITY if len(holder.branches) else None
    multiplicities = holder.array(kind, entry_start=start, entry_stop=stop, library="np")
    return np.asarray(multiplicities, dtype=np.int64)
