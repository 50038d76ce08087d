"""Names of the branches that hold a model's scores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def score_names(output: Mapping[str, Any], num_outputs: int) -> tuple[str, ...]:
    """One name for each output of a model.

    ``score`` for a single probability or the error of a reconstruction, ``score_<class>`` for
    classes, ``predicted_<target>`` for a regression: so that the target itself may stand beside
    it. Without names in the manifest, or when they would not differ, ``score_0``, ``score_1``, ….

    Parameters
    ----------
    output : mapping
        Section ``output`` of a bundle's manifest.
    num_outputs : int
        Numbers that the model gives for an event.
    """
    targets, classes = output.get("targets"), output.get("classes")
    names: list[str] = []
    if targets:
        names = [f"predicted_{_plain(target)}" for target in targets]
    elif num_outputs == 1:
        names = ["score"]
    elif classes:
        names = [f"score_{_plain(name)}" for name in classes]
    if len(set(names)) != num_outputs:
        names = [f"score_{number}" for number in range(num_outputs)]
    return tuple(names)


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", str(name))
