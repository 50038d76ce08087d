"""Labels or targets, and weights, of events: from their sample or from expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.config import Places, Sample
from mlaas4hep_dask.derive import Expression
from mlaas4hep_dask.errors import DataError, ExpressionError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.objective import Objective
from mlaas4hep_dask.reader import Partition
from mlaas4hep_dask.specs import SampleSpecs
from mlaas4hep_dask.specs.draw import NO_CLASS
from mlaas4hep_dask.specs.measure import moments
from mlaas4hep_dask.specs.sample import ClassSums


@dataclass(frozen=True)
class Supervision:
    """How events get what the network learns of them, and their weight.

    Parameters
    ----------
    objective : Objective
        What is learned.
    targets : tuple of Expression
        Gives the class, or the numbers to predict; empty when the sample tells what is learned.
    labels : mapping of str to int
        By sample: its label, where samples have one.
    weight : Expression or None
        Gives the weight of an event; None means 1.
    factors : mapping of str to float
        By sample: the factor on all weights; empty until the sums of weights are known.
    samples : tuple of str
        Names of all samples in their order.
    divides : bool
        A cross section is divided by the sum of the weights of all events read.
    """

    objective: Objective
    targets: tuple[Expression, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    weight: Expression | None = None
    factors: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[str, ...] = ()
    divides: bool = False

    @classmethod
    def of(
        cls,
        objective: Objective,
        samples: Sequence[Sample],
        targets: Sequence[str],
        weight: str | None,
        places: Places,
    ) -> Supervision:
        """The supervision of a configuration.

        Parameters
        ----------
        objective : Objective
            What is learned.
        samples : sequence of Sample
            The sections of the configuration.
        targets : sequence of str
            Expressions of the class, or of the numbers to predict.
        weight : str or None
            The expression of the weight of an event.
        places : Places
            Where every key was written, for errors.

        Raises
        ------
        ConfigError
            When a text is no expression.
        """
        weights = () if weight is None else (weight,)
        return cls(
            objective,
            _parsed("target.branch", targets, places),
            {sample.name: sample.label for sample in samples if sample.label is not None},
            next(iter(_parsed("weight", weights, places)), None),
            samples=tuple(sample.name for sample in samples),
            divides=any(map(_is_divided, samples)),
        )

    def bound(
        self,
        available: Mapping[str, Branch],
        places: Places,
        left_out: Mapping[str, str],
    ) -> Supervision:
        """The same, with branches in place of the objects whose momenta it uses.

        The parameters and errors are those of `check`.
        """
        targets = _bound("target.branch", self.targets, available, places, left_out)
        weights = () if self.weight is None else (self.weight,)
        weight = next(iter(_bound("weight", weights, available, places, left_out)), None)
        return replace(self, targets=targets, weight=weight)

    @property
    def names(self) -> tuple[str, ...]:
        """The branches that it reads, in alphabetical order."""
        return tuple(sorted({*self.target_names, *self.weight_names}))

    @property
    def target_names(self) -> set[str]:
        """The branches that labels or targets come from."""
        return {name for expression in self.targets for name in expression.names}

    @property
    def weight_names(self) -> set[str]:
        """The branches that weights come from."""
        return set() if self.weight is None else set(self.weight.names)

    @property
    def counted(self) -> set[str]:
        """The branches of whose objects labels or targets take the number."""
        return {name for expression in self.targets for name in expression.counted}

    @property
    def target_itself(self) -> set[str]:
        """Branches that are a target as they are."""
        return {name for each in self.targets for name in each.names if each.text == name}

    def check(
        self,
        available: Mapping[str, Branch],
        places: Places,
        left_out: Mapping[str, str],
    ) -> None:
        """Raise a ConfigError unless all expressions give one value per event.

        Parameters
        ----------
        available : mapping of str to Branch
            What can be read.
        places : Places
            Where every key was written, for errors.
        left_out : mapping of str to str
            Branches that cannot be read, and why.
        """
        weights = [] if self.weight is None else [self.weight]
        for key, expressions in (("target.branch", self.targets), ("weight", weights)):
            for expression in expressions:
                try:
                    value = expression.result(key, available)
                except ExpressionError as error:
                    raise places.error(key, f"{key}: {_with_reason(error, left_out)}") from error
                if value.kind != "flat":
                    text = (
                        f"{expression.written!r} has one value per object of {value.collection!r}, "
                        "expected one per event; sum(), max() or [:, 0] make one"
                    )
                    raise places.error(key, f"{key}: {text}")

    def check_read(self, tree: Mapping[str, Branch], places: Places) -> None:
        """Raise a ConfigError unless weights can be summed before the user's function selects.

        Parameters
        ----------
        tree : mapping of str to Branch
            The branches of the files.
        places : Places
            Where every key was written, for errors.
        """
        unread = sorted(self.weight_names - tree.keys())
        if unread and self.divides:
            text = (
                f"{unread[0]!r} is not in the files: the weights of events that the function "
                "leaves out cannot be summed; give sum_weights of every sample"
            )
            raise places.error("weight", f"weight: {text}")

    def learned(
        self, events: Events, partition: Partition, entries: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Labels, shape (events,), or targets, shape (events, targets).

        Where no expression gives them, what the objective keeps of every event of the sample.

        Parameters
        ----------
        events : Events
            Events with the branches in ``names``.
        partition : Partition
            Where they come from.
        entries : ndarray of int64, shape (events,)
            Their entries in the tree.

        Raises
        ------
        DataError
            When a label is no class, or a target not a finite float32; names file and entry.
        """
        if not self.targets:
            return self.unknown(len(events), partition.sample)
        columns = []
        for expression in self.targets:
            values = expression.per_event(events).astype(np.float64)
            with np.errstate(over="ignore"):
                single = values.astype(np.float32)
            good, expected = self.objective.fit_for(values)
            _require(good, values, partition, entries, expression, ("target.branch", expected))
            columns.append(single)
        return np.stack(columns, axis=1).reshape(len(events), *self.objective.y_tail)

    def unknown(self, num_events: int, sample: str) -> NDArray[np.float32]:
        """What stands in the place of labels or targets of events that cannot be read."""
        y = 0
        if not self.targets:
            number = self.samples.index(sample)
            y = self.objective.y_of_sample(self.labels.get(sample), number)
        return np.full((num_events, *self.objective.y_tail), y, np.float32)

    def classes(self, learned: NDArray[np.float32]) -> NDArray[np.uint8] | None:
        """The classes, shape (events,), of labels from `learned`; None where there are none."""
        if not self.objective.has_classes or len(self.objective.names) > NO_CLASS:
            return None
        return learned.astype(np.uint8)

    def class_of(self, sample: str) -> int | None:
        """The class of all events of a sample; None where it has none."""
        numbers = self.classes(self.unknown(1, sample))
        return None if numbers is None else int(numbers[0])

    def weights(
        self, events: Events, partition: Partition, entries: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Weights of events, shape (events,), before the factor of their sample.

        The parameters are those of `learned`.

        Raises
        ------
        DataError
            When a weight is not finite; names file and entry.
        """
        if self.weight is None:
            return np.ones(len(events))
        values = self.weight.per_event(events).astype(np.float64)
        expected = ("weight", "a finite number")
        _require(np.isfinite(values), values, partition, entries, self.weight, expected)
        return values

    def weights_read(
        self, events: Events, partition: Partition, entries: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Weights of events that may not be selected, shape (events,).

        One that is not finite, such as that of a muon which an event lacks, counts as 0 unless
        the sum is divided by. The parameters and errors are those of `weights`.
        """
        if self.divides or self.weight is None:
            return self.weights(events, partition, entries)
        values = self.weight.per_event(events).astype(np.float64)
        return np.where(np.isfinite(values), values, 0.0)

    def sums(
        self,
        learned: NDArray[np.float32],
        weights: NDArray[np.float64],
        is_train: NDArray[np.bool_],
        *,
        weights_read: NDArray[np.float64],
    ) -> SampleSpecs:
        """The counts and sums of some selected events.

        Parameters
        ----------
        learned, weights : ndarray
            Of the selected events.
        is_train : ndarray of bool, shape (events,)
            True for those that are for training.
        weights_read : ndarray of float64
            Weights of all events read, selected or not.
        """
        if not self.names:  # the counts tell all
            return SampleSpecs(len(weights_read), len(weights), float(len(weights)))
        has_classes = bool(self.targets and self.objective.classes)
        classes = learned.astype(np.int64) if has_classes else np.zeros(len(learned), np.int64)
        number = len(self.objective.classes) if has_classes else 1
        columns = []
        for part in (slice(None), is_train):
            of_events = classes[part]
            columns.append(np.bincount(of_events, minlength=number).tolist())
            sums = np.bincount(of_events, weights=weights[part], minlength=number)
            columns.append(sums.astype(np.float64).tolist())
        targets = {}
        if self.objective.y_tail:
            names = [expression.written for expression in self.targets]
            values = learned.astype(np.float64).T  # (targets, events)
            targets = {
                name: moments(np.ascontiguousarray(column))
                for name, column in zip(names, values, strict=True)
            }
        return SampleSpecs(
            num_read=len(weights_read),
            num_selected=len(weights),
            sum_weights=float(weights.sum()),
            sum_weights_read=float(weights_read.sum()),
            num_negative=int((weights < 0).sum()),
            classes=tuple(ClassSums(*row) for row in zip(*columns, strict=True)),
            targets=targets,
        )


def _is_divided(sample: Sample) -> bool:
    """Whether a cross section is divided by the sum of the weights of the events read."""
    return sample.cross_section is not None and sample.sum_weights is None


def _parsed(key: str, texts: Sequence[str], places: Places) -> tuple[Expression, ...]:
    try:
        return tuple(map(Expression, texts))
    except ExpressionError as error:
        raise places.error(key, f"{key}: {error.message}") from error


def _bound(
    key: str,
    expressions: Sequence[Expression],
    available: Mapping[str, Branch],
    places: Places,
    left_out: Mapping[str, str],
) -> tuple[Expression, ...]:
    try:
        return tuple(expression.bound(available) for expression in expressions)
    except ExpressionError as error:
        raise places.error(key, f"{key}: {_with_reason(error, left_out)}") from error


def _with_reason(error: ExpressionError, left_out: Mapping[str, str]) -> str:
    """The error's message, and why the branch that it lacks was left out."""
    name = str(error.facts.get("name"))
    return error.message + (
        f"; the branch {name!r} is {left_out[name]}" if name in left_out else ""
    )


def _require(
    good: NDArray[np.bool_],
    values: NDArray[Any],
    partition: Partition,
    entries: NDArray[np.int64],
    expression: Expression,
    expected: tuple[str, str],
) -> None:
    bad = np.flatnonzero(~good)
    if bad.size == 0:
        return
    key, what = expected
    entry = int(entries[bad[0]])
    more = f" ({bad.size:,} such events in this partition)" if bad.size > 1 else ""
    raise DataError.in_tree(
        partition,
        f"{partition.file}: entry {entry}: {key} {expression.written!r} is {values[bad[0]]:.9g}, "
        f"expected {what}{more}",
        branch=expression.written,
        entry=entry,
    )
