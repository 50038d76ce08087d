"""What pass 2 could not read: blocks of events without weight, and the client that is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from distributed import get_worker

from mlaas4hep_dask.dataset.plan import Skipped
from mlaas4hep_dask.errors import TrainingError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.reader import ReadCounts
from mlaas4hep_dask.specs.sample import ClassSums
from mlaas4hep_dask.waiting import ClusterHandle

if TYPE_CHECKING:
    from mlaas4hep_dask.reader import Partition


@dataclass(frozen=True)
class Lost:
    """A partition that pass 1 read and pass 2 could not.

    Its ``num_events`` selected events stay in their places with weight 0 and all values missing,
    so that they teach nothing and change no metric.
    """

    skipped: Skipped
    num_events: int

    def as_json(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return {**asdict(self.skipped), "num_events": self.num_events}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """What `as_json` gave."""
        place = {key: value for key, value in facts.items() if key != "num_events"}
        return cls(Skipped(**place), facts["num_events"])


def lost_samples(
    lost: Collection[Lost],
    partitions: Sequence[Partition],
    split_counts: Sequence[tuple[int, int, int]],
) -> dict[str, list[Lost]]:
    """By sample of which no training event could be read: what was lost.

    Parameters
    ----------
    lost : collection of Lost
        Of all samples.
    partitions : sequence of Partition
        Those that make the blocks.
    split_counts : sequence of tuple of int
        For each of them its events for training, validation and test.
    """
    by_place = {entry.skipped.key: entry for entry in lost}
    by_sample: dict[str, list[Lost]] = {}
    alive = set()
    for partition, (num_train, _, _) in zip(partitions, split_counts, strict=True):
        place = (partition.file, partition.tree, partition.entry_start)
        entry = by_place.get(place)
        if entry is not None:
            by_sample.setdefault(partition.sample, []).append(entry)
        elif num_train:
            alive.add(partition.sample)
    return {sample: entries for sample, entries in by_sample.items() if sample not in alive}


def require_events(
    lost: Mapping[str, Sequence[Lost]],
    classes: Sequence[str],
    sums: Mapping[str, Sequence[ClassSums]],
) -> None:
    """Raise a TrainingError unless training has read events of every class.

    Parameters
    ----------
    lost : mapping of str to sequence of Lost
        From `lost_samples`.
    classes : sequence of str
        Names of the classes; empty when the network learns no classes.
    sums : mapping
        By sample its events in every class, or in all when there are none.
    """
    names = [f"class {name!r}" for name in classes] or ["the data set"]
    for number, name in enumerate(names):
        samples = [sample for sample, by_class in sums.items() if by_class[number].num_train]
        if not samples or any(sample not in lost for sample in samples):
            continue
        entries = [entry for sample in samples for entry in lost[sample]]
        first = entries[0].skipped
        num_events = sum(entry.num_events for entry in entries)
        raise TrainingError(
            f"no training event of {name} could be read, though the specs pass could: "
            f"{num_events:,} events of {', '.join(samples)} are lost, in {len(entries)} entry "
            f"ranges, the first being {first.entry_start}-{first.entry_stop} of {first.file} "
            f"({first.reason}). on_bad_file: skip leaves events out, but not all of a class",
            samples=samples,
            num_events=num_events,
            file=first.file,
        )


def empty_events(branches: Mapping[str, Branch], num_events: int) -> Events:
    """Events of which every value is missing."""
    missing = np.full(num_events, np.nan, dtype=np.float32)
    no_objects = np.empty(0, dtype=np.float32)
    return Events(
        num_events,
        tuple(branches.values()),
        {n: no_objects if b.kind == "jagged" else missing for n, b in branches.items()},
        {
            branch.collection: np.zeros(num_events + 1, dtype=np.int64)
            for branch in branches.values()
            if branch.collection is not None
        },
    )


def tell(
    topic: str, partition: Partition, num_events: int, read_counts: ReadCounts, why: str
) -> None:
    """Tell the client of attempts that failed, and if ``why`` is given that all of them did."""
    if not read_counts.retries and not why:
        return
    start, stop = partition.entry_start, partition.entry_stop
    place = [partition.file, partition.sample, start, stop, why, partition.tree]
    lost = [*place, num_events] if why else None
    try:
        worker = get_worker()
    except ValueError:  # not on a worker
        return
    worker.log_event(topic, {"retries": dict(read_counts.retries), "lost": lost})


@dataclass
class Listener:
    """Keeps what the tasks of pass 2 tell."""

    lost: dict[tuple[str, str, int], Lost] = field(default_factory=dict)
    read_counts: ReadCounts = field(default_factory=ReadCounts)
    topic: str = ""

    def listen(self, cluster: ClusterHandle, topic: str) -> None:
        """Hear what is told from now on, once however often it is called."""
        if self.topic != topic:
            cluster.hear(topic, self._hear)
            self.topic = topic

    def recall(self, lost: Iterable[Lost]) -> None:
        """Keep what another process was told."""
        for entry in lost:
            self.lost[entry.skipped.key] = entry

    def _hear(self, message: Mapping[str, Any]) -> None:
        self.read_counts.retries.update(message["retries"])
        if message["lost"]:
            *skipped, num_events = message["lost"]
            self.recall([Lost(Skipped(*skipped), num_events)])
