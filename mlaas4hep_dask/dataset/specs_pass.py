"""Pass 1 over a data set: all or some events measured, or specs from cache or file."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from mlaas4hep_dask.config import SpecsPass
from mlaas4hep_dask.dataset.cache import entry_names, present, prune
from mlaas4hep_dask.dataset.collecting import collect
from mlaas4hep_dask.dataset.measuring import Piece, count_events
from mlaas4hep_dask.dataset.plan import Plan, Skipped, first_reason
from mlaas4hep_dask.dataset.reduce import MAX_TASKS
from mlaas4hep_dask.dataset.so_far import SoFar, missing, name_of_all
from mlaas4hep_dask.dataset.subset import subset_units
from mlaas4hep_dask.dataset.tasks import Measured, merge_measured
from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.reader import Partition
from mlaas4hep_dask.specs import SampleSpecs, Specs
from mlaas4hep_dask.waiting import ClusterHandle, readers_that_see

logger = logging.getLogger(__name__)

COUNTED_TOGETHER = 1_000_000  # events whose splits one task counts if it need not read them


@dataclass(frozen=True)
class SpecsFacts:
    """What decides the specs of a configuration.

    Parameters
    ----------
    config : str
        Digest of the configuration.
    events, supervision : mapping
        From `event_facts` and `supervision_facts`.
    """

    config: str
    events: Mapping[str, Any]
    supervision: Mapping[str, Any]


@dataclass(frozen=True)
class SpecsTask:
    """How the specs of a data set are to come about.

    Parameters
    ----------
    how : SpecsPass
        The section of the configuration.
    facts : SpecsFacts
        What decides them.
    token : str
        Names the tasks.
    folder : Path or None
        Keeps the specs of every file; None when none are kept.
    reused : Specs or None
        To be used instead of measuring.
    """

    how: SpecsPass
    facts: SpecsFacts
    token: str
    folder: Path | None = None
    reused: Specs | None = None


def specs_pass(task: SpecsTask, cluster: ClusterHandle, plan: Plan, context: Context) -> Measured:
    """Specs of a data set, and the counts of all its events.

    Parameters
    ----------
    task : SpecsTask
        How they are to come about.
    cluster : ClusterHandle
        Where the work runs.
    plan : Plan
        The files and their partitions.
    context : Context
        What all partitions share.

    Raises
    ------
    DataError
        When no event of a sample could be read, or none is selected.
    """
    if task.reused is not None:
        measured = _counted(cluster, plan, context, task.token)
        measured = replace(measured, specs=task.reused)
    elif task.how.mode == "subset":
        measured = _of_subset(task, cluster, plan, context)
    else:
        measured = _full(task, cluster, plan, context)
        measured = replace(measured, samples=measured.specs.samples)
    for sample in plan.samples:
        sample_specs = measured.samples.get(sample)
        if sample_specs is None or sample_specs.num_read == 0:
            why = first_reason(measured.skipped, sample)
            raise DataError(f"no event of sample {sample!r} could be read{why}", sample=sample)
        if sample_specs.num_selected == 0:
            raise _nothing_selected(sample, sample_specs)
    if task.reused is not None:
        return measured
    specs = measured.specs.with_provenance(config=task.facts.config, events=task.facts.events)
    return replace(measured, specs=specs)


def _nothing_selected(sample: str, sample_specs: SampleSpecs) -> DataError:
    remainders = ", ".join(
        f"{number:,} after {cut!r}" for cut, number in sample_specs.cut_flow.items()
    )
    return DataError(
        f"no event of sample {sample!r} is selected: {sample_specs.num_read:,} were read, of which "
        f"are left {remainders}",
        sample=sample,
    )


def _full(task: SpecsTask, cluster: ClusterHandle, plan: Plan, context: Context) -> Measured:
    folder = task.folder
    facts = {**task.facts.events, "transforms": dict(context.transforms)}
    if context.preparation.counting() is not None:  # the counts of an entry cannot be had anew
        facts |= {"fractions": context.fractions, "seed": context.seed}
    facts |= task.facts.supervision
    so_far = None
    if folder is not None and not _is_seen(cluster, folder):
        so_far = SoFar(folder / _name_of_all(plan, facts, context))
    pieces = file_pieces(plan, None if so_far else folder, facts)
    measured = _compute(cluster, pieces, context, task.token, so_far)
    if folder is not None:
        num_deleted = prune(folder, task.how.cache_bytes)
        logger.info("%d events from the cache %s", measured.num_cached, folder)
        if measured.num_not_kept:
            logger.warning(
                "specs of %s files are not kept in %s: %s",
                f"{measured.num_not_kept:,}",
                folder,
                measured.why_not_kept,
            )
        if num_deleted:
            logger.info("%d entries of the cache were deleted to make room", num_deleted)
    uuids = {
        plan.partitions[number].file: plan.partitions[number].uuid
        for number in measured.split_counts
    }
    files = dict(sorted(uuids.items()))
    return replace(measured, specs=measured.specs.with_provenance(files=files))


def _of_subset(task: SpecsTask, cluster: ClusterHandle, plan: Plan, context: Context) -> Measured:
    units = subset_units(
        plan.files, plan.used_entries(), fraction=task.how.fraction, seed=context.seed
    )
    pieces = [Piece((unit,), number) for number, unit in enumerate(units)]
    measured = _compute(cluster, pieces, context, f"{task.token}-units")
    left_out = _around(plan.partitions, measured.skipped)
    counted = _counted(cluster, plan, context, task.token, without=left_out)
    samples = {  # of partitions that are left out, other units may have been read
        name: replace(counts, num_unread=max(counted.samples[name].num_read - counts.num_read, 0))
        for name, counts in measured.specs.samples.items()
        if name in counted.samples
    }
    files = dict(sorted((unit.file, unit.uuid) for unit in units))
    specs = replace(measured.specs, samples=samples).with_provenance(
        files=files, sampled={"fraction": task.how.fraction, "seed": context.seed}
    )
    return replace(
        counted,
        specs=specs,
        skipped=tuple(left_out.values()) + counted.skipped,
        read_counts=measured.read_counts + counted.read_counts,
    )


def _counted(
    cluster: ClusterHandle,
    plan: Plan,
    context: Context,
    token: str,
    *,
    without: Container[int] = (),
) -> Measured:
    """Counts of all partitions but those with the numbers ``without``."""
    pieces = [
        Piece((part,), number)
        for number, part in enumerate(plan.partitions)
        if number not in without
    ]
    parts = min(len(pieces), MAX_TASKS)
    if context.preparation.counting() is None:
        parts = sum(len(piece.partitions[0]) for piece in pieces) // COUNTED_TOGETHER + 1
    measured = collect(
        cluster,
        pieces,
        context,
        token=f"{token}-counts",
        function=count_events,
        max_tasks=parts,
    )
    return replace(measured, samples=measured.specs.samples)


def _around(partitions: Sequence[Partition], units: Sequence[Skipped]) -> dict[int, Skipped]:
    """The partitions that hold unreadable units of a subset, by number: all of them are lost."""
    around = {}
    for number, part in enumerate(partitions):
        reasons = [lost.reason for lost in units if _overlap(part, lost)]
        if reasons:
            around[number] = Skipped.of(part, reasons[0])
    return around


def _overlap(part: Partition, lost: Skipped) -> bool:
    if (part.file, part.tree) != (lost.file, lost.tree):
        return False
    stop = part.entry_stop if lost.entry_stop is None else lost.entry_stop
    return part.entry_start < stop and lost.entry_start < part.entry_stop


def _is_seen(cluster: ClusterHandle, folder: Path) -> bool:
    """Whether readers share the folder of the cache; those of a local cluster do."""
    hosts = {str(info["host"]) for info in cluster.alive("readers").values()}
    if hosts and all(host.startswith(("127.", "::1", "localhost")) for host in hosts):
        return True
    try:
        seen = readers_that_see(cluster, folder)
    except OSError as error:  # it is told later that nothing could be kept
        logger.info("%s: %s", folder, error)
        return True
    if seen and all(seen.values()):
        return True
    blind = f"{list(seen.values()).count(False)} of {len(seen)} readers cannot write"
    why = blind if seen else "no reader has said that it can write"
    logger.info("%s into the cache %s: specs are kept from here, all together", why, folder)
    return False


def _compute(
    cluster: ClusterHandle,
    pieces: Sequence[Piece],
    context: Context,
    token: str,
    so_far: SoFar | None = None,
) -> Measured:
    if so_far is None:
        measured = collect(cluster, pieces, context, token=token)
    else:
        earlier = so_far.load([part for piece in pieces for part in piece.partitions])
        left = missing(pieces, earlier)
        measured = merge_measured(
            [earlier, collect(cluster, left, context, token=token, so_far=so_far)]
            if left
            else [earlier]
        )
    return replace(measured, specs=measured.specs.in_order())


def file_pieces(plan: Plan, folder: Path | None, facts: Mapping[str, Any]) -> list[Piece]:
    """The partitions of a plan, file by file, with their place in the cache."""
    pieces: list[Piece] = []
    start = 0
    for _, group in groupby(plan.partitions, key=lambda part: (part.file, part.tree)):
        parts = tuple(group)
        pieces.append(Piece(parts, start))
        start += len(parts)
    if folder is None:
        return pieces
    there = present(folder)
    return [
        replace(piece, entry=str(folder / name), is_cached=name in there)
        for piece, name in zip(pieces, _names(pieces, plan, facts), strict=True)
    ]


def _names(pieces: Sequence[Piece], plan: Plan, facts: Mapping[str, Any]) -> list[str]:
    entries = [
        # Means have other last digits where partitions end elsewhere.
        (first, [[part.entry_stop for part in piece.partitions], facts])
        for piece in pieces
        for first in piece.partitions[:1]
    ]
    return entry_names(entries, plan.branches)


def _name_of_all(plan: Plan, facts: Mapping[str, Any], context: Context) -> str:
    pieces = file_pieces(plan, None, facts)
    samples = [piece.partitions[0].sample for piece in pieces]
    return name_of_all(_names(pieces, plan, facts), samples, context)
