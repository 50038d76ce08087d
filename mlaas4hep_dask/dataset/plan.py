"""The plan of a data set: files, inputs and partitions, before any event is read."""

from __future__ import annotations

import html
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlaas4hep_dask.catalog import DataFile, Recorded
from mlaas4hep_dask.config import Partitioning, Selection
from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.formats import ROOT
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.inputs.leaks import leak_notes
from mlaas4hep_dask.inputs.notes import together
from mlaas4hep_dask.inputs.preflight import NOT_EVERYWHERE, Preflight
from mlaas4hep_dask.inputs.prepare import Preparation
from mlaas4hep_dask.inputs.supervision import Supervision
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

logger = logging.getLogger(__name__)

# Bytes of a plan that tell where baskets lie; the trees of other files are parsed by whoever reads
# them. The client keeps a plan, and every partition is sent with what its own entries need.
MAX_PLACES = 64 * 1024**2


@dataclass(frozen=True)
class Skipped:
    """A file, or an entry range of one, that could not be read and was left out.

    ``entry_stop`` is None when the file's number of entries is unknown.
    """

    file: str
    sample: str
    entry_start: int
    entry_stop: int | None
    reason: str
    tree: str = ""

    @property
    def place(self) -> str:
        """The file, and its tree if that is known."""
        return f"{self.file}:{self.tree}" if self.tree else self.file


def first_reason(skipped: Sequence[Skipped], sample: str) -> str:
    """``; N could not be read, the first: …`` of what a sample lost; empty if that is nothing."""
    reasons = [entry.reason for entry in skipped if entry.sample == sample]
    return f"; {len(reasons)} could not be read, the first: {reasons[0]}" if reasons else ""


@dataclass(frozen=True)
class Wanted:
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
    def of(cls, reference: FilePlan, reads: Sequence[str], *, skip: bool, num_files: int) -> Wanted:
        """Without the branches of the reference that are not read."""
        limit = MAX_PLACES // max(num_files, 1)
        return cls(reference.narrowed(reads), tuple(reads), skip, limit)


def plan_one(file: DataFile, sample: str, wanted: Wanted) -> PlannedFile | Skipped:
    """The plan of one file, compared with the reference; runs on a worker.

    Raises
    ------
    UnreadableFileError
        When the file cannot be opened, unless it is to be skipped.
    DataError
        When a branch that is read is missing or of another type.
    """
    reference, reads = wanted.reference, wanted.reads
    try:
        with counting() as counts:
            plan = plan_file(file.file, file.tree, sample, reference.access, file.friends)
    except UnreadableFileError as error:
        if not wanted.skip:
            raise
        return Skipped(file.file, sample, 0, None, error.message, file.tree)
    require_same_branches(reference, plan, reads, advice=NOT_EVERYWHERE)
    return replace(plan.planned(reads).within(wanted.max_places), read_counts=counts)


@dataclass(frozen=True)
class Plan:
    """All that is known of a data set before its events are read.

    Parameters
    ----------
    files : tuple of PlannedFile
        In the order of the configuration.
    partitions : tuple of Partition
        Entry ranges, one task each.
    branches : tuple of Branch
        The inputs.
    selection : Selection
        Identifiers, excluded branches and those that cannot be inputs, with reasons.
    samples : tuple of str
        The samples.
    context : Context
        What all partitions share before the specs are known.
    reads : tuple of str
        Branches of the tree that are read.
    keys : tuple of Branch
        Branches that objects are sorted by and that are no inputs.
    skipped : tuple of Skipped
        Files that could not be opened.
    notes : tuple of str
        Remarks that do not stop a run, such as equal UUIDs.
    read_counts : ReadCounts
        What planning cost beside the plain way.
    joined : frozenset of str
        Branches in collections that the files do not tell of, for their multiplicities are equal.
    """

    files: tuple[PlannedFile, ...]
    partitions: tuple[Partition, ...]
    branches: tuple[Branch, ...]
    selection: Selection
    samples: tuple[str, ...]
    context: Context
    reads: tuple[str, ...] = ()
    keys: tuple[Branch, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    read_counts: ReadCounts = field(default_factory=ReadCounts)
    joined: frozenset[str] = frozenset()

    @property
    def num_events(self) -> int:
        """Events in all partitions."""
        return sum(map(len, self.partitions))

    def used_entries(self) -> dict[tuple[str, str], int]:
        """By file and tree: how many entries, from the first on, belong to the data set."""
        used: dict[tuple[str, str], int] = {}
        for part in self.partitions:
            place = part.file, part.tree
            used[place] = max(used.get(place, 0), part.entry_stop)
        return used

    @property
    def supervision(self) -> Supervision:
        """How events get a label or targets, and a weight."""
        return self.context.supervision

    @property
    def preparation(self) -> Preparation:
        """What is read, and how it becomes the inputs."""
        return self.context.preparation

    def num_events_of(self, sample: str) -> int:
        """Events in the partitions of a sample."""
        return sum(len(part) for part in self.partitions if part.sample == sample)

    @property
    def read_only(self) -> list[str]:
        """Branches that are read for the function, derived branches and cuts, and are no inputs."""
        known = {branch.name for branch in (*self.branches, *self.keys)}
        known.update(self.supervision.names)
        return [name for name in self.reads if name not in known]

    def recipe_lines(self) -> dict[str, list[str]]:
        """What is derived, cut and selected, as titles and lines of text."""
        recipe = self.preparation.recipe
        texts = recipe.to_json()
        used = recipe.steps(self.preparation.keep)
        derived = {name: f"{name} = {text}" for name, text in texts["derive"].items()}
        unused = derived.keys() - {*used.early, *used.late}
        use = self.preparation.use
        called = [] if use is None else [f"{use.function.reference} gets {use.function.events}"]
        found = {
            "function": called,
            "derived": [line for name, line in derived.items() if name not in unused],
            "derived but not used": [line for name, line in derived.items() if name in unused],
            "objects kept": [f"{name}: {text}" for name, text in texts["objects"].items()],
            "events selected": texts["select"],
            "read for these only": self.read_only,
        }
        return {title: lines for title, lines in found.items() if lines}

    def to_text(self) -> str:
        """The plan as a few lines of text."""
        sizes = f"{len(self.partitions)} partitions, {len(self.branches)} inputs"
        lines = [f"{_how_many(self.files)}, {self.num_events:,} events, {sizes}"]
        for sample in self.samples:
            files = _how_many([file for file in self.files if file.sample == sample])
            label = self.supervision.labels.get(sample)
            given = "" if label is None else f"label {label}, "
            events = f"{self.num_events_of(sample):,} events"
            lines.append(f"  sample {sample}: {given}{files}, {events}")
        lines += [f"  {title}: {', '.join(of)}" for title, of in self._supervision_lines()]
        names: dict[str, list[str]] = {"flat": [], "jagged": []}
        for branch in self.branches:
            names[branch.kind].append(branch.name)
        lines += [f"  {kind}: {', '.join(inputs)}" for kind, inputs in names.items() if inputs]
        lines += [f"  joined by equal multiplicities: {text}" for text in self._joined()]
        if self.keys:
            lines.append(f"  sorted by, no inputs: {', '.join(key.name for key in self.keys)}")
        for title, found in self.recipe_lines().items():
            lines.append(f"  {title}: {'; '.join(found)}")
        if self.selection.identifiers:
            lines.append(f"  identifiers: {', '.join(self.selection.identifiers)}")
        if self.selection.excluded:
            lines.append(f"  excluded: {', '.join(self.selection.excluded)}")
        reasons: dict[str, list[str]] = {}
        for name, reason in self.selection.left_out.items():
            reasons.setdefault(reason, []).append(name)
        lines += [f"  left out: {', '.join(left)} ({why})" for why, left in reasons.items()]
        lines += together([f"  skipped: {skip.place} ({skip.reason})" for skip in self.skipped])
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _joined(self) -> list[str]:
        """Collections that no counter of the file tells of, with those inputs that are in them."""
        found: dict[str | None, list[str]] = {}
        for branch in self.branches:
            if branch.name in self.joined:
                found.setdefault(branch.collection, []).append(branch.name)
        return [f"{collection} ({', '.join(names)})" for collection, names in found.items()]

    def _supervision_lines(self) -> list[tuple[str, list[str]]]:
        """What is learned and how events are weighted, with the branches this keeps away."""
        recipe, selection = self.supervision, self.selection
        lines = {
            "classes": list(recipe.objective.classes),
            "target": [expression.written for expression in recipe.targets],
            "not inputs unless named, since the target reads them": selection.targets,
            "weight": [recipe.weight.written] if recipe.weight else [],
            "not inputs unless named, since the weight reads them": selection.weights,
        }
        return [(title, names) for title, names in lines.items() if names]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(sample)}</td><td>{self.supervision.labels.get(sample, '')}</td>"
            f"<td>{sum(file.sample == sample for file in self.files)}</td>"
            f"<td>{self.num_events_of(sample):,}</td></tr>"
            for sample in self.samples
        )
        selection = self.selection
        folded = {
            "inputs": [branch.name for branch in self.branches],
            **self.recipe_lines(),
            "joined by equal multiplicities": self._joined(),
            "identifiers": selection.identifiers,
            "branches excluded": selection.excluded,
            "branches that cannot be inputs": [
                f"{n}: {why}" for n, why in selection.left_out.items()
            ],
            "files skipped": [f"{skip.place}: {skip.reason}" for skip in self.skipped],
            "notes": self.notes,
            **dict(self._supervision_lines()),
        }
        return (
            f"<p><b>Plan</b> of {self.num_events:,} events in {_how_many(self.files)}, "
            f"{len(self.partitions)} partitions</p>"
            "<table><thead><tr><th>sample</th><th>label</th><th>files</th><th>events</th>"
            f"</tr></thead><tbody>{rows}</tbody></table>"
            + "".join(_folded(title, names) for title, names in folded.items() if names)
        )


def _how_many(files: Sequence[PlannedFile]) -> str:
    """``3 files``, or ``2 trees in 1 file`` where a file has several trees of the data set."""
    num = len({each.file for each in files})
    text = f"{num} {'file' if num == 1 else 'files'}"
    return f"{len(files)} files" if num == len(files) else f"{len(files)} trees in {text}"


def _folded(title: str, names: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(name)}</li>" for name in names)
    return f"<details><summary>{len(names)} {title}</summary><ul>{items}</ul></details>"


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
    notes += leak_notes(checked)
    if blank := [file.file for file in files if not file.num_entries]:
        notes.append(f"{len(blank)} of {len(files)} files hold no events, the first: {blank[0]}")
    partitions: list[Partition] = []
    for sample, listed in checked.files.items():
        of_sample = [file for file in files if file.sample == sample]
        left = sum(file.num_entries for file in of_sample)
        if max_events is not None:
            left = min(left, max_events)
        if left == 0:
            trees = list(dict.fromkeys(file.tree for file in of_sample or listed))
            named = ", ".join(map(repr, trees))
            why = f"{len(of_sample)} readable files hold no events in tree {named}"
            why += first_reason(skipped, sample)
            raise DataError(f"sample {sample!r} is empty: {why}", tree=trees[0])
        for file in of_sample:
            num_entries = min(file.num_entries, left)
            left -= num_entries
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
            raise DataError(
                f"{file.file} of sample {file.sample!r} has the UUID of {earlier.file} of sample "
                f"{earlier.sample!r}: one is a copy of the other",
                file=file.file,
            )
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


def planned_already(checked: Preflight) -> dict[tuple[str, DataFile], PlannedFile]:
    """By sample and file: those that the preflight has opened and that have not changed since."""
    num_files = sum(map(len, checked.files.values()))
    return {
        which: file.within(MAX_PLACES // num_files)
        for which, file in checked.planned.items()
        if file.is_current()
    }


def check_files(checked: Preflight, partition: Partitioning, max_events: int | None) -> Plan:
    """The plan made in this process, without a cluster, for ``--check``.

    The parameters are those of `assemble`.

    Raises
    ------
    MLaaSError
        Whatever is wrong with a file.
    """
    open_files = planned_already(checked)
    wanted = wanted_of(checked)
    planned = [
        open_files.get((sample, file)) or plan_one(file, sample, wanted)
        for sample, files in checked.files.items()
        for file in files
    ]
    return assemble(checked, planned, partition, max_events)


def wanted_of(checked: Preflight) -> Wanted:
    """What the files of a configuration are planned for."""
    return Wanted.of(
        checked.reference,
        checked.reads,
        skip=checked.context.skip,
        num_files=sum(map(len, checked.files.values())),
    )
