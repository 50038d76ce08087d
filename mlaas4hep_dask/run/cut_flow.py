"""What the selection and the object cuts of a run removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlaas4hep_dask.specs import SampleSpecs


def cut_flow(samples: Mapping[str, SampleSpecs]) -> list[dict[str, Any]]:
    """One entry per condition, in order: events that are left after it and that it removed."""
    flow = []
    before = {name: sample.num_read for name, sample in samples.items()}
    conditions = {cut: None for sample in samples.values() for cut in sample.cut_flow}
    for cut in conditions:
        left = {name: sample.cut_flow.get(cut, 0) for name, sample in samples.items()}
        lost = {name: before[name] - left[name] for name in samples}
        flow.append(
            {"condition": cut, "left": sum(left.values()), "lost": sum(lost.values()), "by": lost}
        )
        before = left
    return flow


def objects_removed(samples: Mapping[str, SampleSpecs]) -> dict[str, int]:
    """By collection: objects that its cut removed."""
    removed: dict[str, int] = {}
    for sample in samples.values():
        for collection, number in sample.removed.items():
            removed[collection] = removed.get(collection, 0) + number
    return removed
