"""What follows from the specs for weights and targets: factors, balance, scaling of targets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.outputs import Outputs
from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.inputs.supervision import Supervision
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


def factors_of(config: Config, samples: Mapping[str, SampleSpecs]) -> dict[str, float]:
    """By sample: the factor on the own weights of its events.

    It is weight * cross_section * luminosity / sum of the own weights of all events, as they were
    read or as ``sum_weights`` tells, so that the weights of a sample sum to weight *
    cross_section * luminosity. Without a cross section it is the weight alone.

    Raises
    ------
    DataError
        When the sum of weights is not positive.
    """
    factors = {}
    for sample in config.samples:
        factors[sample.name] = sample.weight
        if sample.cross_section is None:
            continue
        total = sample.sum_weights
        if total is None:
            total = _steady(samples[sample.name].weights_read, config)
        if total <= 0:
            raise DataError(
                f"sample {sample.name!r}: the weights {config.weight!r} of its "
                f"{samples[sample.name].num_read:,} events sum to {total:.6g}; a cross "
                "section can only be divided by a positive sum",
                sample=sample.name,
            )
        factor = sample.cross_section * (config.luminosity or 1.0) / total
        factors[sample.name] = sample.weight * factor
    return factors


def training_weights(
    config: Config, factors: Mapping[str, float], by_sample: Mapping[str, Sequence[ClassSums]]
) -> TrainingWeights:
    """Factors of the classes in the loss, and the mean weight of a training event.

    Parameters
    ----------
    config : Config
        The configuration.
    factors : mapping of str to float
        From `factors_of`.
    by_sample : mapping
        From `class_sums`.

    Raises
    ------
    DataError
        When the weights to divide by do not sum to more than 0.
    """
    names = config.classes or ("all events",)
    sums = [0.0] * len(names)
    num_events = 0
    for sample, classes in sorted(by_sample.items()):
        for number, own in enumerate(classes):
            sums[number] += factors[sample] * own.sum_weights_train
            num_events += own.num_train
    balance: tuple[float, ...] = ()
    if config.training.balance == "classes":
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
    return TrainingWeights(balance, _steady(total / num_events, config))


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
        own = list(sample.classes)
        if not supervision.names:
            selected, train = sample.num_selected, num_train[name]
            own = [ClassSums(selected, float(selected), train, float(train))]
        if supervision.labels:  # all events have the label of the sample
            by_label = [ClassSums() for _ in supervision.classes]
            by_label[supervision.labels[name]] = own[0]
            own = by_label
        sums[name] = own
    return sums


def outputs_of(
    supervision: Supervision, samples: Mapping[str, SampleSpecs], encoding: Encoding
) -> Outputs:
    """What a network learns to give.

    A target of a regression is brought to mean 0 and variance 1 over all selected events.

    Raises
    ------
    DataError
        When a target is constant, or all events are of one class.
    """
    if supervision.classes:
        if supervision.targets:
            _require_two_classes(supervision, samples)
        return Outputs.of_classes(supervision.classes)
    if supervision.samples:
        return Outputs("reconstruction", tuple(encoding.columns()))
    names, shifts, scales = [], [], []
    for expression in supervision.targets:
        parts = [sample.targets[expression.written] for _, sample in sorted(samples.items())]
        found = reduce(merge_moments, parts, EMPTY)
        spread = math.sqrt(found.squares / max(found.num_finite, 1))
        if found.min == found.max or not spread > 0 or not math.isfinite(1 / spread):
            raise DataError(
                f"target.branch {expression.written!r} is {found.min} in every selected event: "
                "there is nothing to learn",
                branch=expression.written,
            )
        names.append(expression.written)
        # Nine digits: means differ in the last bits with the order of merging.
        shifts.append(_nine_digits(found.mean))
        scales.append(1 / _nine_digits(spread))
    return Outputs("regression", tuple(names), tuple(shifts), tuple(scales))


def _require_two_classes(supervision: Supervision, samples: Mapping[str, SampleSpecs]) -> None:
    """Raise a DataError when a branch gives all events one class."""
    number: Counter[str] = Counter()
    for sample in samples.values():
        number.update(
            {
                name: own.num_events
                for name, own in zip(supervision.classes, sample.classes, strict=True)
            }
        )
    (first, found), *others = number.most_common()
    if found and not any(count for _, count in others):
        (expression,) = supervision.targets
        raise DataError(
            f"target.branch {expression.written!r} is class {first!r} in every selected event: "
            "there is nothing to learn",
            branch=expression.written,
        )


def _steady(value: float, config: Config) -> float:
    """The same for every order of merging; without weights of events sums are exact."""
    return value if config.weight is None else _nine_digits(value)


def _nine_digits(value: float) -> float:
    return float(f"{value:.9g}")
