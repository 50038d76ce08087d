"""Counts of one sample, its sums of weights, and what is known of its labels or targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from operator import index
from typing import Any, NamedTuple

from mlaas4hep_dask.specs.moments import EMPTY, Moments, merge_moments


class ClassSums(NamedTuple):
    """Selected events of one class: all, and those for training."""

    num_events: int = 0
    sum_weights: float = 0.0
    num_train: int = 0
    sum_weights_train: float = 0.0

    def plus(self, other: ClassSums) -> ClassSums:
        """The sums over the events of both."""
        return ClassSums(
            self.num_events + other.num_events,
            self.sum_weights + other.sum_weights,
            self.num_train + other.num_train,
            self.sum_weights_train + other.sum_weights_train,
        )


@dataclass(frozen=True, slots=True)
class SampleSpecs:
    """Counts of one sample.

    All weights are those of the events themselves, before cross section and luminosity.

    Parameters
    ----------
    num_read, num_selected : int
        Events read from the files, and events left after the selection.
    sum_weights : float
        Sum of the weights of the selected events.
    num_unread : int
        Events that were left unread because a part of the data was thought enough.
    cut_flow : mapping of str to int
        By condition of the selection, in order: events that are left after it.
    removed : mapping of str to int
        By collection: objects that its cut removed from the events read.
    sum_weights_read : float or None
        Sum of the weights of the events read; None as long as it is that of the selected ones.
    num_negative : int
        Selected events with a negative weight.
    classes : tuple of ClassSums
        By class where branches give classes; one entry for all events where they give weights
        or targets only.
    targets : mapping of str to Moments
        Of the selected events, for a regression.
    """

    num_read: int = 0
    num_selected: int = 0
    sum_weights: float = 0.0
    num_unread: int = 0
    cut_flow: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)
    sum_weights_read: float | None = None
    num_negative: int = 0
    classes: tuple[ClassSums, ...] = ()
    targets: Mapping[str, Moments] = field(default_factory=dict)

    @property
    def weights_read(self) -> float:
        """Sum of the weights of the events read."""
        return self.sum_weights if self.sum_weights_read is None else self.sum_weights_read

    def __add__(self, other: SampleSpecs) -> SampleSpecs:
        read = None
        if self.sum_weights_read is not None or other.sum_weights_read is not None:
            read = self.weights_read + other.weights_read
        pairs = zip_longest(self.classes, other.classes, fillvalue=ClassSums())
        return SampleSpecs(
            self.num_read + other.num_read,
            self.num_selected + other.num_selected,
            self.sum_weights + other.sum_weights,
            self.num_unread + other.num_unread,
            _sums(self.cut_flow, other.cut_flow),
            _sums(self.removed, other.removed),
            read,
            self.num_negative + other.num_negative,
            tuple(a.plus(b) for a, b in pairs),
            {
                name: merge_moments(self.targets.get(name, EMPTY), other.targets.get(name, EMPTY))
                for name in sorted({*self.targets, *other.targets})
            },
        )

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        targets = {name: moments._asdict() for name, moments in sorted(self.targets.items())}
        classes = [list(sums) for sums in self.classes]
        made = {**asdict(self), "targets": targets, "classes": classes}
        optional = ("cut_flow", "removed", "num_negative", "classes", "targets")
        if self.sum_weights_read is None:  # 0.0 is a sum
            del made["sum_weights_read"]
        return {key: value for key, value in made.items() if value or key not in optional}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> SampleSpecs:
        """What `as_json` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            When it is something else.
        """
        classes = tuple(ClassSums(*numbers) for numbers in entry.get("classes", ()))
        targets = {
            name: Moments(*(moments[key] for key in Moments._fields))
            for name, moments in entry.get("targets", {}).items()
        }
        sums = [entry["sum_weights"], entry.get("sum_weights_read") or 0.0]
        sums += [number for entry in classes for number in entry]
        if not all(map(math.isfinite, sums)):
            raise ValueError("sums of weights are not finite")
        counts = {key: index(entry[key]) for key in ("num_read", "num_selected")}
        counts |= {key: index(entry.get(key, 0)) for key in ("num_unread", "num_negative")}
        if min(counts.values()) < 0:
            raise ValueError("numbers of events are negative")
        return cls(
            **{
                **entry,
                **counts,
                "classes": classes,
                "targets": targets,
            }
        )


def _sums(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in {**a, **b}}
