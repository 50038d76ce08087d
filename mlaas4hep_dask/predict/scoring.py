"""Scores whole data sets with a bundle's model, partition by partition, into one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distributed import Client

from mlaas4hep_dask import __version__
from mlaas4hep_dask.config import Partitioning
from mlaas4hep_dask.console import Reporter
from mlaas4hep_dask.dataset.first_worker import FirstWorker
from mlaas4hep_dask.dataset.plan import Skipped
from mlaas4hep_dask.dataset.planning import PlanRequest, plan_one
from mlaas4hep_dask.encode import EncodeCounts
from mlaas4hep_dask.encode.precision import require_exact
from mlaas4hep_dask.errors import ConfigError, UnreadableFileError
from mlaas4hep_dask.journal import Journal
from mlaas4hep_dask.objective import Objective
from mlaas4hep_dask.predict.request import Request
from mlaas4hep_dask.predict.stream import in_order
from mlaas4hep_dask.predict.tasks import Scoring, num_outputs, score_partition
from mlaas4hep_dask.reader import Partition, PlannedFile, reading_needs
from mlaas4hep_dask.usercode import Need
from mlaas4hep_dask.waiting import ClusterHandle
from mlaas4hep_dask.writer import RootFormat, decoded_branches, write_events


@dataclass(frozen=True)
class Predicted:
    """What a prediction has written and counted.

    Parameters
    ----------
    path : Path
        The output.
    branches : tuple of str
        What it holds.
    num_scored : int
        Events in it.
    num_not_finite : int
        Events among them without a finite score.
    skipped : tuple of Skipped
        Files and entry ranges that could not be read.
    counts : EncodeCounts
        What encoding could not keep.
    form : {"TTree", "RNTuple", "Parquet"}
        What the events became.
    """

    path: Path
    branches: tuple[str, ...]
    num_scored: int
    num_not_finite: int
    skipped: tuple[Skipped, ...]
    counts: EncodeCounts
    form: str

    @property
    def num_skipped(self) -> int:
        """Events that could not be read; those of files that did not open are not known."""
        return sum(
            skipped.entry_stop - skipped.entry_start
            for skipped in self.skipped
            if skipped.entry_stop is not None
        )


def predict_files(
    request: Request,
    output: str | Path,
    *,
    client: ClusterHandle | Client,
    max_events: int | None = None,
    skip: bool = False,
    decode: bool = False,
    suffix: str = "",
    overwrite: bool = False,
    root_format: RootFormat = "auto",
    journal: Journal | None = None,
) -> Predicted:
    """Score the events of all files and write the scores.

    The output has one row per event, in the order of the files and of the entries in them, with
    the file's number and the entry, the copied branches and the scores. Workers score a few
    partitions ahead of the one that is being written, so that memory is bounded.

    Parameters
    ----------
    request : Request
        From `check_request`.
    output : str or Path
        A ``.root`` or ``.parquet`` file.
    client : distributed.Client or ClusterHandle
        Where the work runs.
    max_events : int, optional
        Score only the first events of all files together.
    skip : bool
        Leave out what cannot be read, and report it, instead of stopping.
    decode : bool
        The model gives rows like its input: write the jagged events they stand for.
    suffix : str
        Appended to the names of decoded branches.
    overwrite : bool
        Replace an existing output.
    root_format : {"auto", "ttree", "rntuple"}
        What a ``.root`` output holds, as for `write_events`.
    journal : Journal, optional
        Told of every stage; by default stages are logged.

    Raises
    ------
    MLaaSError
        Whatever is wrong with bundle, files or output.
    """
    journal = journal or Journal(Reporter().hear)
    output, cluster = Path(output), ClusterHandle.of(client)
    with journal.stage("plan") as planning:
        needs = reading_needs((file.file for file in request.files), request.reference.access)
        needs.append(Need.of("scoring", ["numpy", "torch"]))
        FirstWorker(cluster, needs, "readers").end()
        scoring = _scoring(request, cluster, decode=decode, suffix=suffix, skip=skip)
        plans = _plan(request, cluster, skip=skip)
        skipped = [entry for entry in plans if isinstance(entry, Skipped)]
        parts = list(_partitions(plans, max_events))
        total = sum(len(partition) for partition, _ in parts)
        planning.events = total
    counts = EncodeCounts()
    num_not_finite = 0
    with (
        write_events(
            output,
            scoring.branches,
            tree=request.tree,
            overwrite=overwrite,
            root_format=root_format,
        ) as file,
        journal.stage("predict", total) as advance,
    ):
        shared = cluster.share(scoring)
        arguments = ((partition, number, shared) for partition, number in parts)
        results = in_order(cluster, score_partition, arguments, "predict", shared=[shared])
        for (partition, _), part in zip(parts, results, strict=True):
            if part.events is None:
                assert part.skipped is not None
                skipped.append(part.skipped)
            else:
                file.append(part.events)
            counts += part.counts
            num_not_finite += part.num_not_finite
            advance(len(partition))
        predicted = Predicted(
            output,
            tuple(branch.name for branch in scoring.branches),
            file.num_events,
            num_not_finite,
            tuple(skipped),
            counts,
            file.form,
        )
        if parts and file.num_events == 0:
            raise UnreadableFileError(
                f"none of {total} events can be read ({skipped[-1].reason})",
                file=skipped[-1].file,
                reason=skipped[-1].reason,
            )
        file.describe(_note(request, plans, predicted, scoring.score_names))
    return predicted


def _scoring(
    request: Request, cluster: ClusterHandle, *, decode: bool, suffix: str, skip: bool
) -> Scoring:
    bundle = request.bundle
    scoring = Scoring(
        name=bundle.name,
        model=bundle.model_path.read_bytes(),
        digest=bundle.manifest["files"][bundle.model_path.name]["sha256"],
        encoding=bundle.encoding,
        reads=bundle.reads,
        recipe=bundle.recipe,
        copied=request.copied,
        skip=skip,
        suffix=suffix,
    )
    if decode and bundle.encoding.image is not None:
        raise ConfigError(
            f"--decode: the input of model {bundle.name!r} are images, which do not tell the "
            "values of single objects"
        )
    if decode:
        require_exact(bundle.encoding)
    columns = bundle.encoding.layout.num_columns
    scoring = replace(scoring, decode=decode)
    shared = cluster.share(scoring)
    future = cluster.submit(
        num_outputs, shared, bundle, bundle.golden(), group="readers", pure=False
    )
    width = cluster.result(future, "trying the model", group="readers")
    if not decode or bundle.objective.gives_rows:
        names = score_names(bundle.objective, width or 1)
        scoring = replace(scoring, score_names=names)
    elif width != columns:
        raise ConfigError(
            f"--decode: model {bundle.name!r} gives {width or 1} numbers for an event, not a row "
            f"of its {columns} columns"
        )
    _require_distinct(scoring)
    return scoring


def _require_distinct(scoring: Scoring) -> None:
    often = Counter(branch.name for branch in scoring.branches)
    twice = [name for name, number in often.items() if number > 1]
    if twice:
        hint = "leave it out of --branches"
        if scoring.decode:
            hint += ", or give decoded branches a --suffix"
        raise ConfigError(
            f"branch {twice[0]!r} is copied from the files and made by the model too; {hint}"
        )
    decoded = decoded_branches(scoring.encoding, suffix=scoring.suffix) if scoring.decode else ()
    collections = {branch.collection for branch in scoring.copied} - {None}
    both = collections & {branch.collection for branch in decoded}
    if both:
        raise ConfigError(
            f"collection {both.pop()!r} is copied from the files and decoded too, with other "
            "multiplicities perhaps; give decoded branches a --suffix"
        )


def _plan(request: Request, cluster: ClusterHandle, *, skip: bool) -> list[PlannedFile | Skipped]:
    """One entry for each file, in their order; one Dask task per file."""
    reads = list(request.reference.branches)
    plan_request = PlanRequest.of(request.reference, reads, skip=skip, num_files=len(request.files))
    shared = cluster.share(plan_request)
    arguments = ((file, request.bundle.name, shared) for file in request.files)
    return list(in_order(cluster, plan_one, arguments, "plan", shared=[shared]))


def _partitions(
    plans: Sequence[PlannedFile | Skipped], max_events: int | None
) -> Iterator[tuple[Partition, int]]:
    """Partitions of the first events, each with the number of its file."""
    limits = Partitioning()
    remaining = max_events
    for number, file_plan in enumerate(plans):
        if isinstance(file_plan, Skipped):
            continue
        num_entries = (
            file_plan.num_entries if remaining is None else min(file_plan.num_entries, remaining)
        )
        remaining = None if remaining is None else remaining - num_entries
        for partition in file_plan.partitions(
            target_bytes=limits.target_bytes,
            max_events=limits.max_events,
            num_entries=num_entries,
        ):
            yield partition, number


def _note(
    request: Request,
    plans: Sequence[PlannedFile | Skipped],
    predicted: Predicted,
    scores: tuple[str, ...],
) -> Mapping[str, Any]:
    """What the output tells of itself."""
    scored = request.bundle.objective.scored
    return {
        "package": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": request.bundle.name,
        "files_of_bundle": request.bundle.manifest["files"],
        "tree": request.tree,
        "outputs": dict(zip(scores, scored, strict=True)) if len(scored) == len(scores) else {},
        "files": [
            {
                "file": file_plan.file,
                "tree": file_plan.tree,
                "uuid": None if isinstance(file_plan, Skipped) else file_plan.uuid,
            }
            for file_plan in plans
        ],
        "num_scored": predicted.num_scored,
        "num_not_finite": predicted.num_not_finite,
        "skipped": [asdict(entry) for entry in predicted.skipped],
        **predicted.counts.as_json(),
    }


def score_names(objective: Objective, num_outputs: int) -> tuple[str, ...]:
    """One name for each number that a model gives for an event.

    They are the objective's own; ``score_0``, ``score_1``, … when those are not as many, or would
    not differ.
    """
    names = objective.score_names
    if len(names) == len(set(names)) == num_outputs:
        return names
    return ("score",) if num_outputs == 1 else tuple(f"score_{i}" for i in range(num_outputs))
