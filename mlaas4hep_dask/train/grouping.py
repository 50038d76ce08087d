"""Which batches make a step together, and so how many steps an epoch has."""

from __future__ import annotations

from itertools import pairwise

from mlaas4hep_dask.train.assign import Assignment


def groups(num_batches: int, accumulate: int) -> list[range]:
    """The batches of a window in groups of at most ``accumulate``, all as equal as can be.

    A step is taken for each group, by the sum of the gradients of its batches.
    """
    number = -(-num_batches // accumulate)
    bounds = [num_batches * place // number for place in range(number + 1)] if number else [0]
    return [range(*each) for each in pairwise(bounds)]


def num_steps(train: Assignment, accumulate: int) -> int:
    """How many steps one pass through training events has."""
    windows = range(train.num_windows)
    return sum(len(groups(train.num_steps(window), accumulate)) for window in windows)
