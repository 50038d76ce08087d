"""What follows from the specs for weights and targets: factors, balance, what is learned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

from mlaas4hep_dask.config import Sample
from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.inputs.supervision import Supervision
from mlaas4hep_dask.objective import Objective, Selected, Spread
from mlaas4hep_dask.specs import SampleSpecs
from mlaas4hep_dask.specs.moments import EMPTY, merge_moments
from mlaas4hep_dask.specs.sample import ClassSums


class TrainingWeights(NamedTuple):
    """How weights enter the loss.

    ``balance`` holds for each class the factor on the weights of its events, or nothing when all
    are 1. ``mean`` is the mean weight of a training event with that factor.
    """

    balance: tuple[float, ...]
    mean: float


def factors_of(
    samples: Sequence[Sample],
    measured: Mapping[str, SampleSpecs],
    *,
    weight: str | None,
    luminosity: float | None,
) -> dict[str, float]:
    """By sample: the factor on the own weights of its events.

    It is weight * cross_section * luminosity / sum of the own weights of all events, as they were
    read or as ``sum_weights`` tells, so that the weights of a sample sum to weight *
    cross_section * luminosity. Without a cross section it is the weight alone.

    Parameters
    ----------
    samples : sequence of Sample
        The sections of the configuration.
    measured : mapping of str to SampleSpecs
        By sample: counts and sums of all events.
    weight : str or None
        The expression of the weight of an event.
    luminosity : float or None
        In inverse pb; None means 1.

    Raises
    ------
    DataError
        When the sum of weights is not positive.
    """
    factors = {}
    for sample in samples:
        factors[sample.name] = sample.weight
        if sample.cross_section is None:
            continue
        total = sample.sum_weights
        if total is None:
            total = _steady(measured[sample.name].weights_read, exact=weight is None)
        if total <= 0:
            raise DataError(
                f"sample {sample.name!r}: the weights {weight!r} of its "
                f"{measured[sample.name].num_read:,} events sum to {total:.6g}; a cross "
                "section can only be divided by a positive sum",
                sample=sample.name,
            )
        factor = sample.cross_section * (luminosity or 1.0) / total
        factors[sample.name] = sample.weight * factor
    return factors


def training_weights(
    supervision: Supervision,
    factors: Mapping[str, float],
    by_sample: Mapping[str, Sequence[ClassSums]],
    *,
    balanced: bool,
) -> TrainingWeights:
    """Factors of the classes in the loss, and the mean weight of a training event.

    Parameters
    ----------
    supervision : Supervision
        How events get labels and weights.
    factors : mapping of str to float
        From `factors_of`.
    by_sample : mapping
        From `class_sums`.
    balanced : bool
        Whether all classes shall weigh alike in the loss.

    Raises
    ------
    DataError
        When the weights to divide by do not sum to more than 0.
    """
    names = supervision.objective.classes or ("all events",)
    sums = [0.0] * len(names)
    num_events = 0
    for sample, classes in sorted(by_sample.items()):
        for number, class_sum in enumerate(classes):
            sums[number] += factors[sample] * class_sum.sum_weights_train
            num_events += class_sum.num_train
    balance: tuple[float, ...] = ()
    if balanced:
        for name, total in zip(names, sums, strict=True):
            if total <= 0:
                raise DataError(
                    f"training.balance: the weights of class {name!r} sum to {total:.6g} over the "
                    "training events; only a positive sum can be balanced",
                    sum_weights=total,
                )
        mean = sum(sums) / len(sums)
        balance = tuple(_nine_digits(mean / total) for total in sums)
        sums = [factor * total for factor, total in zip(balance, sums, strict=True)]
    total = sum(sums)
    if not num_events:
        return TrainingWeights(balance, 1.0)  # whoever trains finds that there are none
    if total <= 0:
        raise DataError(
            f"the weights of the training events sum to {total:.6g}; a mean loss needs a positive "
            "sum",
            sum_weights=total,
        )
    return TrainingWeights(balance, _steady(total / num_events, exact=supervision.weight is None))


def class_sums(
    supervision: Supervision, samples: Mapping[str, SampleSpecs], num_train: Mapping[str, int]
) -> dict[str, list[ClassSums]]:
    """By sample: the sums of the events' own weights in every class, or in all without classes.

    Parameters
    ----------
    supervision : Supervision
        How events get labels and weights.
    samples : mapping of str to SampleSpecs
        Counts of all events.
    num_train : mapping of str to int
        By sample: events for training.
    """
    sums = {}
    for name, sample in samples.items():
        by_class = list(sample.classes)
        if not supervision.names:
            selected, train = sample.num_selected, num_train[name]
            by_class = [ClassSums(selected, float(selected), train, float(train))]
        if supervision.labels:  # all events have the label of the sample
            by_label = [ClassSums() for _ in supervision.objective.classes]
            by_label[supervision.labels[name]] = by_class[0]
            by_class = by_label
        sums[name] = by_class
    return sums


def fitted(
    supervision: Supervision, samples: Mapping[str, SampleSpecs], encoding: Encoding
) -> Objective:
    """What a network learns to give, once the selected events are measured.

    Raises
    ------
    DataError
        When there is nothing to learn: a target is constant, or all events are of one class.
    """
    return supervision.objective.fitted(
        Selected(
            tuple(encoding.columns()),
            tuple(expression.written for expression in supervision.targets),
            _spreads(supervision, samples),
            _class_events(supervision, samples),
        )
    )


def _spreads(supervision: Supervision, samples: Mapping[str, SampleSpecs]) -> dict[str, Spread]:
    """The values of every target that is a number, over all selected events."""
    spreads = {}
    for expression in supervision.targets if supervision.objective.y_tail else ():
        name = expression.written
        parts = [sample.targets[name] for _, sample in sorted(samples.items())]
        merged = reduce(merge_moments, parts, EMPTY)
        std = math.sqrt(merged.squares / max(merged.num_finite, 1))
        spreads[name] = Spread(merged.mean, std, merged.min, merged.max)
    return spreads


def _class_events(supervision: Supervision, samples: Mapping[str, SampleSpecs]) -> dict[str, int]:
    """By class that a branch gives: its selected events."""
    if not supervision.targets:
        return {}
    names = supervision.objective.classes
    return {
        name: sum(sample.classes[number].num_events for sample in samples.values())
        for number, name in enumerate(names)
    }


def _steady(value: float, *, exact: bool) -> float:
    """The same for every order of merging; without weights of events sums are exact."""
    return value if exact else _nine_digits(value)


def _nine_digits(value: float) -> float:
    return float(f"{value:.9g}")
