"""Names of the branches that hold a model's scores."""

from __future__ import annotations

from mlaas4hep_dask.objective import Objective


def score_names(objective: Objective, num_outputs: int) -> tuple[str, ...]:
    """One name for each number that a model gives for an event.

    They are the objective's own; ``score_0``, ``score_1``, … when those are not as many, or would
    not differ.
    """
    names = objective.score_names
    if len(names) == len(set(names)) == num_outputs:
        return names
    return ("score",) if num_outputs == 1 else tuple(f"score_{i}" for i in range(num_outputs))
