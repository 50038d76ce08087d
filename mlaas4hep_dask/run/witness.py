"""Writes down what happens beside the stages of a run: deaths of workers, lost ranges, retries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Self

from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.lost import Lost
from mlaas4hep_dask.dataset.plan import Skipped
from mlaas4hep_dask.errors import WriteError
from mlaas4hep_dask.journal import Caution, Death, Journal, LostRange, Retries
from mlaas4hep_dask.reader import ReadCounts
from mlaas4hep_dask.waiting import ENDED_FOR_MEMORY, size

TOPIC = "all"  # under which Dask's scheduler tells of workers that leave


class Witness:
    """Hears what a cluster tells while it is entered, and looks when asked.

    Parameters
    ----------
    journal : Journal
        Where it goes.
    dataset : Dataset
        Knows what could not be read.
    """

    def __init__(self, journal: Journal, dataset: Dataset) -> None:
        self._journal = journal
        self._dataset = dataset
        self._told_ranges: set[tuple[str, str, int]] = set()
        self._attempts: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._dataset.cluster.hear(TOPIC, self._hear)
        self._dataset.cluster.hear(ENDED_FOR_MEMORY, self._hear_of_memory)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, RuntimeError, ValueError):  # of a scheduler that is gone
            self._dataset.cluster.unhear(TOPIC)
            self._dataset.cluster.unhear(ENDED_FOR_MEMORY)

    def look_at_plan(self) -> None:
        """Write down what the plan has left out."""
        plan = self._dataset.plan()
        self._write("plan", plan.skipped, plan.read_counts)

    def look(self, stage: str) -> None:
        """Write down what was lost and tried again since it last looked; the specs are known."""
        dataset = self._dataset
        self._write(stage, dataset.skipped(), dataset.read_counts())
        for lost in dataset.lost():
            self._lose(stage, lost.skipped, lost.num_events)

    def recall(self, lost: Iterable[Lost]) -> None:
        """Keep in mind what an earlier process has written down."""
        self._told_ranges |= {each.skipped.key for each in lost}

    def _write(self, stage: str, skipped: Iterable[Skipped], read_counts: ReadCounts) -> None:
        for each in skipped:
            self._lose(stage, each, None)
        for file, attempts in read_counts.retries.items():
            if new := attempts - self._attempts.get(file, 0):
                self._attempts[file] = attempts
                self._journal.add(Retries(stage, file, new))

    def _lose(self, stage: str, skipped: Skipped, num_events: int | None) -> None:
        if skipped.key not in self._told_ranges:
            self._told_ranges.add(skipped.key)
            self._journal.add(
                LostRange(
                    stage,
                    skipped.sample,
                    skipped.file,
                    skipped.tree,
                    skipped.entry_start,
                    skipped.entry_stop,
                    skipped.reason,
                    num_events,
                )
            )

    def _hear(self, facts: Any) -> None:
        if isinstance(facts, Mapping) and facts.get("action") == "remove-worker":
            with suppress(WriteError):  # the next record of the run tells it
                self._journal.add(Death(str(facts["worker"]), bool(facts.get("expected"))))

    def _hear_of_memory(self, facts: Any) -> None:
        text = f"worker {facts['worker']} was ended for memory, with {size(facts['rss'])} in use"
        with suppress(WriteError):
            self._journal.add(Caution(f"{text}; it is started again, and its tasks run again"))
