"""Makes the plan of a data set: opens its files, on workers or here, and puts them together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from distributed import Future

from mlaas4hep_dask.catalog import DataFile, Recorded
from mlaas4hep_dask.config import Partitioning
from mlaas4hep_dask.dataset.first_worker import FirstWorker
from mlaas4hep_dask.dataset.plan import Plan, Skipped, first_reason
from mlaas4hep_dask.errors import DataError, UnreadableFileError, listed
from mlaas4hep_dask.formats import ROOT
from mlaas4hep_dask.inputs.counters import counting_notes
from mlaas4hep_dask.inputs.leaks import leak_notes
from mlaas4hep_dask.inputs.notes import together
from mlaas4hep_dask.inputs.preflight import NOT_EVERYWHERE, Preflight
from mlaas4hep_dask.reader import (
    FilePlan,
    Partition,
    PlannedFile,
    ReadCounts,
    counting,
    plan_file,
    require_same_branches,
)
from mlaas4hep_dask.reader.rootfile import NIL
from mlaas4hep_dask.waiting import ClusterHandle, Work

logger = logging.getLogger(__name__)


# Bytes of a plan that tell where baskets lie; the trees of other files are parsed by whoever reads
# them. The client keeps a plan, and every partition is sent with what its own entries need.
MAX_PLACES = 64 * 1024**2


@dataclass(frozen=True)
class PlanRequest:
    """What all files of a data set are planned for; sent to each worker once.

    Parameters
    ----------
    reference : FilePlan
        What all files are compared with.
    reads : tuple of str
        Branches that are read.
    skip : bool
        Leave out what cannot be read instead of stopping.
    max_places : int
        Bytes that the places of one file's baskets may take.
    """

    reference: FilePlan
    reads: tuple[str, ...]
    skip: bool
    max_places: int

    @classmethod
    def of(
        cls,
        reference: FilePlan,
        reads: Sequence[str],
        *,
        skip: bool,
        num_files: int,
        max_places: int = MAX_PLACES,
    ) -> PlanRequest:
        """Without the branches of the reference that are not read."""
        limit = max_places // max(num_files, 1)
        return cls(reference.narrowed(reads), tuple(reads), skip, limit)


def plan_one(file: DataFile, sample: str, request: PlanRequest) -> PlannedFile | Skipped:
    """The plan of one file, compared with the reference; runs on a worker.

    Raises
    ------
    UnreadableFileError
        When the file cannot be opened, unless it is to be skipped.
    DataError
        When a branch that is read is missing or of another type.
    """
    reference, reads = request.reference, request.reads
    try:
        with counting() as read_counts:
            file_plan = plan_file(file.file, file.tree, sample, reference.access, file.friends)
    except UnreadableFileError as error:
        if not request.skip:
            raise
        return Skipped(file.file, sample, 0, None, error.message, file.tree)
    require_same_branches(reference, file_plan, reads, advice=NOT_EVERYWHERE)
    return replace(file_plan.planned(reads).within(request.max_places), read_counts=read_counts)


def assemble(
    checked: Preflight,
    planned: Sequence[PlannedFile | Skipped],
    partition: Partitioning,
    max_events: int | None,
) -> Plan:
    """The plan of a data set from those of its files, in the configuration's order.

    Parameters
    ----------
    checked : Preflight
        From `preflight`.
    planned : sequence of PlannedFile or Skipped
        All files.
    partition : Partitioning
        The section of the configuration: how entry ranges are cut.
    max_events : int or None
        At most so many events of every sample; None means all.

    Raises
    ------
    DataError
        When a tree of one file, by its UUID, is in two samples, or a sample has no events.
    """
    files = [entry for entry in planned if isinstance(entry, PlannedFile)]
    skipped = tuple(entry for entry in planned if isinstance(entry, Skipped))
    notes = _require_distinct(files)
    files = _with_identities(files)
    notes += _unlike_recorded(files, checked.recorded)
    notes += leak_notes(checked) + counting_notes(checked) + _late(files)
    if blank := [file.file for file in files if not file.num_entries]:
        notes.append(f"{len(blank)} of {len(files)} files hold no events, the first: {blank[0]}")
    partitions: list[Partition] = []
    for sample, data_files in checked.files.items():
        of_sample = [file for file in files if file.sample == sample]
        remaining = sum(file.num_entries for file in of_sample)
        if max_events is not None:
            remaining = min(remaining, max_events)
        if remaining == 0:
            trees = list(dict.fromkeys(file.tree for file in of_sample or data_files))
            tree_names = ", ".join(map(repr, trees))
            why = f"{len(of_sample)} readable files hold no events in tree {tree_names}"
            why += first_reason(skipped, sample)
            raise DataError(f"sample {sample!r} is empty: {why}", tree=trees[0])
        for file in of_sample:
            num_entries = min(file.num_entries, remaining)
            remaining -= num_entries
            partitions += file.partitions(
                target_bytes=partition.target_bytes,
                max_events=partition.max_events,
                num_entries=num_entries,
            )
    return Plan(
        tuple(files),
        tuple(partitions),
        checked.branches,
        checked.selection,
        tuple(checked.files),
        checked.context,
        tuple(checked.reads),
        checked.keys,
        skipped,
        tuple(notes),
        sum((file.read_counts for file in files), ReadCounts()),
        checked.reference.joined,
    )


def _require_distinct(files: Sequence[PlannedFile]) -> list[str]:
    first: dict[tuple[str, str], PlannedFile] = {}
    notes = []
    for file in files:
        earlier = first.setdefault((file.uuid, file.tree), file)
        if earlier is file or file.num_entries == 0:
            continue
        if earlier.sample != file.sample:
            which, other = file.file, f"has the UUID of {earlier.file} of sample {earlier.sample!r}"
            if earlier.file == file.file:
                which = f"tree {file.tree!r} of {file.file}"
                other = f"is in sample {earlier.sample!r} too"
            else:
                other += ": one is a copy of the other"
            raise DataError(f"{which} of sample {file.sample!r} {other}", file=file.file)
        notes.append(f"{file.file} has the UUID of {earlier.file}: its events may count twice")
    return together(notes)


def _with_identities(files: Sequence[PlannedFile]) -> list[PlannedFile]:
    """The files, of which those know it that have more than one tree in the data set."""
    trees: dict[str, set[str]] = {}
    for file in files:
        trees.setdefault(file.uuid, set()).add(file.tree)
    return [replace(file, is_of_many=len(trees[file.uuid]) > 1) for file in files]


def _unlike_recorded(files: Sequence[PlannedFile], recorded: Mapping[str, Recorded]) -> list[str]:
    """Notes on files that are not what their file set says of them; the first is logged too."""
    notes = []
    for file in files:
        record = recorded.get(file.file, Recorded(None, None))
        unlike = []
        if record.num_entries not in (None, file.num_entries):
            unlike.append(f"{record.num_entries} entries, and it has {file.num_entries}")
        is_root = file.access.format_of(file.file) == ROOT  # coffea identifies others in its way
        if is_root and record.uuid not in (None, NIL, file.uuid):
            unlike.append(f"the UUID {record.uuid}, and it has {file.uuid}")
        if unlike:
            notes.append(
                f"{file.file} is not what its file set recorded: {'; '.join(unlike)}; all of the "
                "file is read as it is now"
            )
    if notes:
        more = f"; likewise {len(notes) - 1} more" if notes[1:] else ""
        logger.warning("%s%s", notes[0], more)
    return together(notes)


def _late(files: Sequence[PlannedFile]) -> list[str]:
    """Notes on what was added to an RNTuple while it was filled."""
    notes = [
        f"{listed(file.late)} of {file.file}: added while the file was written; earlier entries "
        "have none, which is read as ROOT reads it: 0, or a list without objects"
        for file in files
        if file.late
    ]
    return together(notes)


def planned_already(
    checked: Preflight, max_places: int = MAX_PLACES
) -> dict[tuple[str, DataFile], PlannedFile]:
    """By sample and file: those that the preflight has opened and that have not changed since."""
    num_files = sum(map(len, checked.files.values()))
    return {
        which: file.within(max_places // num_files)
        for which, file in checked.planned.items()
        if file.is_current()
    }


def plan_files(
    checked: Preflight,
    cluster: ClusterHandle,
    partition: Partitioning,
    max_events: int | None,
) -> Plan:
    """The plan, for which workers look at the files that are not open yet.

    Meanwhile one of them tries to import what reading and the user's function will need. The
    parameters are those of `assemble`, and the cluster.

    Raises
    ------
    ClusterError
        When it cannot.
    MLaaSError
        Whatever is wrong with a file.
    """
    trial = FirstWorker(cluster, checked.needs, "readers")
    try:
        planned = _planned(checked, cluster)
    except Exception:
        trial.end()  # what it tells comes first
        raise
    trial.end()
    return assemble(checked, planned, partition, max_events)


def _planned(checked: Preflight, cluster: ClusterHandle) -> list[PlannedFile | Skipped]:
    """The plans of all files, in the configuration's order, made on a cluster."""
    plans: dict[tuple[str, DataFile], PlannedFile | Skipped] = {**planned_already(checked)}
    shared = cluster.share(request_of(checked))
    listed = [(sample, file) for sample, files in checked.files.items() for file in files]
    closed = iter([which for which in listed if which not in plans])

    def source(_: int) -> Work | None:
        return next(map(work_of, closed), None)

    def work_of(which: tuple[str, DataFile]) -> Work:
        sample, file = which

        def send(_: int) -> Future:
            return cluster.submit(plan_one, file, sample, shared, group="readers", pure=False)

        return Work(send, which, place=lambda _: file.file)

    plans.update(cluster.taken(source, "plan", shared=[shared], group="readers"))
    return [plans[which] for which in listed]


def check_files(
    checked: Preflight,
    partition: Partitioning,
    max_events: int | None,
    max_places: int = MAX_PLACES,
) -> Plan:
    """The plan made in this process, without a cluster, for ``--check``.

    The parameters are those of `assemble`, and the bytes of a plan that tell where baskets lie.

    Raises
    ------
    MLaaSError
        Whatever is wrong with a file.
    """
    open_files = planned_already(checked, max_places)
    request = request_of(checked, max_places)
    planned = [
        open_files.get((sample, file)) or plan_one(file, sample, request)
        for sample, files in checked.files.items()
        for file in files
    ]
    return assemble(checked, planned, partition, max_events)


def request_of(checked: Preflight, max_places: int = MAX_PLACES) -> PlanRequest:
    """What the files of a configuration are planned for."""
    return PlanRequest.of(
        checked.reference,
        checked.reads,
        skip=checked.context.skip,
        num_files=sum(map(len, checked.files.values())),
        max_places=max_places,
    )
