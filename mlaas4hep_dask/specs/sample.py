"""Counts of one sample, its sums of weights, and what is known of its labels or targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from operator import index
from typing import Any, NamedTuple

from mlaas4hep_dask.specs.exact import added, from_text, to_text
from mlaas4hep_dask.specs.moments import EMPTY, Moments, merge_moments


class ClassSums(NamedTuple):
    """Selected events of one class: all, and those for training."""

    num_events: int = 0
    sum_weights: float = 0.0
    num_train: int = 0
    sum_weights_train: float = 0.0
    exact: tuple[int | None, int | None] = (None, None)  # the two sums, where they are rounded

    def plus(self, other: ClassSums) -> ClassSums:
        """The sums over the events of both, the same in whatever order they are added."""
        whole, of_all = added(self.sum_weights, self.exact[0], other.sum_weights, other.exact[0])
        train, of_train = added(
            self.sum_weights_train, self.exact[1], other.sum_weights_train, other.exact[1]
        )
        return ClassSums(
            self.num_events + other.num_events,
            whole,
            self.num_train + other.num_train,
            train,
            (of_all, of_train),
        )

    def as_json(self) -> list[Any]:
        """All of it as JSON values."""
        exact = _texts(self.exact)
        return [*self[:4], *([exact] if exact else [])]

    @classmethod
    def from_json(cls, entry: Sequence[Any]) -> ClassSums:
        """What `as_json` gave."""
        return cls(*entry[:4], *([_totals(entry[4])] if entry[4:] else []))


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
    exact : tuple of int or None
        ``sum_weights`` and ``sum_weights_read`` where they are rounded; see `exact.added`.
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
    exact: tuple[int | None, int | None] = (None, None)

    @property
    def weights_read(self) -> float:
        """Sum of the weights of the events read."""
        return self.sum_weights if self.sum_weights_read is None else self.sum_weights_read

    def __add__(self, other: SampleSpecs) -> SampleSpecs:
        total, of_all = added(self.sum_weights, self.exact[0], other.sum_weights, other.exact[0])
        weight_read, of_read = None, None
        if self.sum_weights_read is not None or other.sum_weights_read is not None:
            weight_read, of_read = added(*self._exact_read, *other._exact_read)
        pairs = zip_longest(self.classes, other.classes, fillvalue=ClassSums())
        return SampleSpecs(
            self.num_read + other.num_read,
            self.num_selected + other.num_selected,
            total,
            self.num_unread + other.num_unread,
            _sums(self.cut_flow, other.cut_flow),
            _sums(self.removed, other.removed),
            weight_read,
            self.num_negative + other.num_negative,
            tuple(a.plus(b) for a, b in pairs),
            {
                name: merge_moments(self.targets.get(name, EMPTY), other.targets.get(name, EMPTY))
                for name in sorted({*self.targets, *other.targets})
            },
            (of_all, of_read),
        )

    @property
    def _exact_read(self) -> tuple[float, int | None]:
        place = 0 if self.sum_weights_read is None else 1
        return self.weights_read, self.exact[place]

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        targets = {name: moments.as_json() for name, moments in sorted(self.targets.items())}
        classes = [sums.as_json() for sums in self.classes]
        exact = _texts(self.exact)
        record = {**asdict(self), "targets": targets, "classes": classes, "exact": exact}
        optional = ("cut_flow", "removed", "num_negative", "classes", "targets", "exact")
        if self.sum_weights_read is None:  # 0.0 is a sum
            del record["sum_weights_read"]
        return {key: value for key, value in record.items() if value or key not in optional}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> SampleSpecs:
        """What `as_json` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            When it is something else.
        """
        classes = tuple(ClassSums.from_json(numbers) for numbers in entry.get("classes", ()))
        targets = {
            name: Moments.from_json(moments) for name, moments in entry.get("targets", {}).items()
        }
        sums = [entry["sum_weights"], entry.get("sum_weights_read") or 0.0]
        sums += [number for entry in classes for number in entry[:4]]
        if not all(map(math.isfinite, sums)):
            raise ValueError("sums of weights are not finite")
        entries = {key: index(entry[key]) for key in ("num_read", "num_selected")}
        entries |= {key: index(entry.get(key, 0)) for key in ("num_unread", "num_negative")}
        if min(entries.values()) < 0:
            raise ValueError("numbers of events are negative")
        return cls(
            **{
                **entry,
                **entries,
                "classes": classes,
                "targets": targets,
                "exact": _totals(entry.get("exact")),
            }
        )


def _texts(exact: tuple[int | None, int | None]) -> list[str | None]:
    if exact == (None, None):
        return []
    return [None if total is None else to_text(total) for total in exact]


def _totals(texts: Any) -> tuple[int | None, int | None]:
    if not texts:
        return (None, None)
    first, second = (None if text is None else from_text(text) for text in texts)
    return (first, second)


def _sums(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in {**a, **b}}
