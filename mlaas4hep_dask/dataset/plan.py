"""The plan of a data set: files, inputs and partitions, before any event is read."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlaas4hep_dask.config import Selection
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.inputs.notes import together
from mlaas4hep_dask.inputs.prepare import Preparation
from mlaas4hep_dask.inputs.supervision import Supervision
from mlaas4hep_dask.reader import (
    Partition,
    PlannedFile,
    ReadCounts,
)


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

    @classmethod
    def of(cls, part: Partition, reason: str) -> Skipped:
        """A partition that was left out."""
        return cls(part.file, part.sample, part.entry_start, part.entry_stop, reason, part.tree)

    @property
    def place(self) -> str:
        """The file, and its tree if that is known."""
        return f"{self.file}:{self.tree}" if self.tree else self.file

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from others: file, tree and first entry."""
        return self.file, self.tree, self.entry_start


def first_reason(skipped: Sequence[Skipped], sample: str) -> str:
    """``; N could not be read, the first: …`` of what a sample lost; empty if that is nothing."""
    reasons = [entry.reason for entry in skipped if entry.sample == sample]
    return f"; {len(reasons)} could not be read, the first: {reasons[0]}" if reasons else ""


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
        entries: dict[tuple[str, str], int] = {}
        for part in self.partitions:
            place = part.file, part.tree
            entries[place] = max(entries.get(place, 0), part.entry_stop)
        return entries

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
        inputs = {branch.name for branch in (*self.branches, *self.keys)}
        inputs.update(self.supervision.names)
        return [name for name in self.reads if name not in inputs]

    def recipe_lines(self) -> dict[str, list[str]]:
        """What is derived, cut and selected, as titles and lines of text."""
        recipe = self.preparation.recipe
        texts = recipe.to_json()
        steps = recipe.steps(self.preparation.keep)
        derived = {name: f"{name} = {text}" for name, text in texts["derive"].items()}
        unused = derived.keys() - {*steps.early, *steps.late}
        use = self.preparation.use
        call = [] if use is None else [f"{use.function.reference} gets {use.function.events}"]
        sections = {
            "function": call,
            "derived": [line for name, line in derived.items() if name not in unused],
            "derived but not used": [line for name, line in derived.items() if name in unused],
            "objects kept": [f"{name}: {text}" for name, text in texts["objects"].items()],
            "events selected": texts["select"],
            "read for these only": self.read_only,
        }
        return {title: lines for title, lines in sections.items() if lines}

    def to_text(self) -> str:
        """The plan as a few lines of text."""
        sizes = f"{len(self.partitions)} partitions, {len(self.branches)} inputs"
        lines = [f"{_how_many(self.files)}, {self.num_events:,} events, {sizes}"]
        for sample in self.samples:
            files = _how_many([file for file in self.files if file.sample == sample])
            label = self.supervision.labels.get(sample)
            what = "" if label is None else f"label {label}, "
            events = f"{self.num_events_of(sample):,} events"
            lines.append(f"  sample {sample}: {what}{files}, {events}")
        lines += [f"  {title}: {', '.join(of)}" for title, of in self._supervision_lines()]
        names: dict[str, list[str]] = {"flat": [], "jagged": []}
        for branch in self.branches:
            names[branch.kind].append(branch.name)
        lines += [f"  {kind}: {', '.join(inputs)}" for kind, inputs in names.items() if inputs]
        lines += [f"  joined by equal multiplicities: {text}" for text in self._joined()]
        if self.keys:
            lines.append(f"  sorted by, no inputs: {', '.join(key.name for key in self.keys)}")
        for title, texts in self.recipe_lines().items():
            lines.append(f"  {title}: {'; '.join(texts)}")
        if self.selection.identifiers:
            lines.append(f"  identifiers: {', '.join(self.selection.identifiers)}")
        if self.selection.excluded:
            lines.append(f"  excluded: {', '.join(self.selection.excluded)}")
        reasons: dict[str, list[str]] = {}
        for name, reason in self.selection.left_out.items():
            reasons.setdefault(reason, []).append(name)
        lines += [f"  left out: {', '.join(members)} ({why})" for why, members in reasons.items()]
        lines += together([f"  skipped: {skip.place} ({skip.reason})" for skip in self.skipped])
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _joined(self) -> list[str]:
        """Collections that no counter of the file tells of, with those inputs that are in them."""
        by_collection: dict[str | None, list[str]] = {}
        for branch in self.branches:
            if branch.name in self.joined:
                by_collection.setdefault(branch.collection, []).append(branch.name)
        return [f"{collection} ({', '.join(names)})" for collection, names in by_collection.items()]

    def _supervision_lines(self) -> list[tuple[str, list[str]]]:
        """What is learned and how events are weighted, with the branches this keeps away."""
        recipe, selection = self.supervision, self.selection
        lines = {
            "classes": list(recipe.objective.classes),
            "target": [expression.written for expression in recipe.targets],
            "not inputs unless named, since they tell of the target": selection.targets,
            "weight": [recipe.weight.written] if recipe.weight else [],
            "not inputs unless named, since they tell of the weight": selection.weights,
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
