"""Specs of a data set: what is measured of one partition, merged, written and read back."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from mlaas4hep_dask.errors import SpecsError
from mlaas4hep_dask.specs.branch import BranchSpecs
from mlaas4hep_dask.specs.document import parts_of, text_of
from mlaas4hep_dask.specs.draw import Draw
from mlaas4hep_dask.specs.sample import SampleSpecs
from mlaas4hep_dask.specs.table import BranchTable, merge_tables

TOGETHER = 8  # parts that are merged in one go


@dataclass(frozen=True, slots=True, eq=False)
class Specs:
    """Statistics of all branches over a data set; ``Specs()`` is the identity of `merge`.

    Parameters
    ----------
    branches : mapping of str to BranchSpecs
        By branch name.
    multiplicities : mapping of str to tuple of int
        By collection: the exact histogram of multiplicities; entry ``k`` counts the events
        with ``k`` objects.
    samples : mapping of str to SampleSpecs
        By sample name.
    provenance : mapping of str to Any
        ``config``: digest of the configuration; ``files``: file UUID by URI; ``versions``.
    draws : mapping of str to Draw
        By collection, and for the flat branches by ``""``: which values were drawn, and of which
        class their events are.
    """

    branches: Mapping[str, BranchSpecs] = field(default_factory=dict)
    multiplicities: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    samples: Mapping[str, SampleSpecs] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    draws: Mapping[str, Draw] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Specs):
            return NotImplemented
        a, b = (
            {each.name: getattr(specs.in_order(), each.name) for each in fields(Specs)}
            for specs in (self, other)
        )
        return a == b

    __hash__ = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        object.__setattr__(self, "branches", BranchTable.of(self.branches))

    def __sizeof__(self) -> int:
        num_bytes = BranchTable.of(self.branches).nbytes
        return (
            object.__sizeof__(self)
            + num_bytes
            + sum(draw.keys.nbytes for draw in self.draws.values())
        )

    @property
    def num_events(self) -> int:
        """Number of selected events."""
        return sum(sample.num_selected for sample in self.samples.values())

    @property
    def coverage(self) -> float:
        """Fraction of the events that were read: 1 unless the specs are those of a sample."""
        num_read = sum(sample.num_read for sample in self.samples.values())
        num_unread = sum(sample.num_unread for sample in self.samples.values())
        return 1.0 if num_unread == 0 else num_read / (num_read + num_unread)

    def outside(self, name: str) -> float:
        """Fraction of a branch's values that is expected outside the extremes; 0 if all were read.

        Of n values that were read, any one is as likely to be the largest as a further value
        is to be larger than all: 1 / (n + 1) lie beyond either end.
        """
        return min(1.0, 2.0 / (self._independent(name) + 1.0)) * (1.0 - self.coverage)

    def mean_error(self, name: str) -> float:
        """The standard error of a branch's mean; 0 if all events were read."""
        variance, coverage = self.branches[name].variance, self.coverage
        if variance is None or coverage == 1.0:
            return 0.0
        return math.sqrt(variance / max(self._independent(name), 1) * (1.0 - coverage))

    def _independent(self, name: str) -> int:
        # The objects of an event depend on each other, so that they count as one at most.
        return min(self.branches[name].moments.num_finite, self.num_events)

    def max_multiplicity(self, collection: str) -> int:
        """Largest number of objects that an event has in the collection."""
        return max(len(self.multiplicities[collection]) - 1, 0)

    def with_provenance(self, **provenance: Any) -> Specs:
        """The same specs with more provenance."""
        return replace(self, provenance={**self.provenance, **provenance})

    def of_class(self, number: int | None) -> Specs:
        """The same specs, of events that all are of one class, or of none."""
        draws = {group: draw.of_class(number) for group, draw in self.draws.items()}
        return replace(self, draws=draws)

    def in_order(self) -> Specs:
        """The same specs with all drawn values by ascending key, as specs.json has them.

        `measure` and `merge` leave them in any order.
        """
        orders = {group: np.argsort(draw.keys) for group, draw in self.draws.items()}
        draws = {group: draw.at(orders[group]) for group, draw in self.draws.items()}
        branches = {
            name: replace(entry, drawn=entry.drawn[orders[entry.group]])
            if entry.group in orders and entry.drawn.size
            else entry
            for name, entry in self.branches.items()
        }
        return replace(self, branches=branches, draws=draws)

    def to_json(self) -> str:
        """Text of specs.json: one branch per line, sorted, so that two can be compared."""
        specs = self.in_order()
        return text_of(
            branches=specs.branches,
            multiplicities=specs.multiplicities,
            samples=specs.samples,
            draws=specs.draws,
            provenance=specs.provenance,
            uncertainties={
                name: {"outside": specs.outside(name), "mean_error": specs.mean_error(name)}
                for name in (specs.branches if specs.coverage < 1.0 else ())
            },
        )

    @classmethod
    def from_json(cls, text: str, *, source: str = "specs.json") -> Specs:
        """Specs from the text of specs.json.

        Raises
        ------
        SpecsError
            When the text is not specs of a version that this package reads.
        """
        return cls(**parts_of(text, source=source))

    @classmethod
    def read(cls, path: str | Path) -> Specs:
        """Specs of the file at ``path``."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecsError(f"{path}: cannot be read ({error})", file=str(path)) from error
        return cls.from_json(text, source=str(path))

    def _repr_html_(self) -> str:
        heads = ("branch", "kind", "dtype", "objects", "unit", "min", "max", "mean", "not finite")
        rows = [self._cells(entry) for _, entry in sorted(self.branches.items())]
        head = "".join(f"<th>{title}</th>" for title in heads)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        subset = f", a subset of {self.coverage:.2%} of the data" if self.coverage < 1 else ""
        return (
            f"<p><b>Specs</b> of {self.num_events:,} events{subset}, {len(self.branches)} "
            "branches</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def _cells(self, entry: BranchSpecs) -> tuple[str, ...]:
        branch = entry.branch
        objects = "" if branch.collection is None else str(self.max_multiplicity(branch.collection))
        return (
            branch.name,
            branch.kind,
            branch.dtype,
            f"at most {objects}" if objects else "",
            branch.unit or "",
            *(_brief(value) for value in (entry.min, entry.max, entry.mean)),
            f"{entry.moments.num_values - entry.moments.num_finite:,}",
        )


def _brief(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def merge(a: Specs, b: Specs) -> Specs:
    """Specs of the events of both; associative and commutative, with ``Specs()`` as identity.

    Counts, extremes, histograms and draws, and with them quantiles, are exact; means and
    variances agree for every order of merging up to floating-point rounding.

    Raises
    ------
    SpecsError
        When the two hold different branches, or one branch with different types.
    """
    return _merge((a, b))


def merge_all(parts: Iterable[Specs]) -> Specs:
    """Specs of the events of all parts."""
    merged = Specs()
    pending: list[Specs] = []
    for part in parts:  # which may be made one by one
        pending.append(part)
        if len(pending) == TOGETHER:
            merged, pending = _merge((merged, *pending)), []
    return _merge((merged, *pending))


def _merge(parts: Sequence[Specs]) -> Specs:
    filled = [part for part in parts if part.branches]
    branches, draws = filled[0].branches if filled else {}, filled[0].draws if filled else {}
    if len(filled) > 1:
        tables = [BranchTable.of(part.branches) for part in filled]
        branches, draws = merge_tables(tables, [part.draws for part in filled])
    names = sorted({name for part in parts for name in part.multiplicities})
    multiplicities = {
        name: reduce(_add, (part.multiplicities.get(name, ()) for part in parts)) for name in names
    }
    samples: dict[str, SampleSpecs] = {}
    for part in parts:
        for name, sample in part.samples.items():
            samples[name] = samples[name] + sample if name in samples else sample
    samples = dict(sorted(samples.items()))
    provenance = reduce(_merge_provenance, (part.provenance for part in parts))
    return Specs(branches, multiplicities, samples, provenance, draws)


def _add(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    return tuple(x + y for x, y in zip(longer, shorter, strict=False)) + longer[len(shorter) :]


def _merge_provenance(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    for key in sorted((a.keys() & b.keys()) - {"files"}):
        if a[key] != b[key]:
            raise SpecsError(
                f"specs of different {key} cannot be merged: {a[key]!r} and {b[key]!r}", key=key
            )
    merged = {**a, **b}
    if "files" in merged:
        merged["files"] = dict(sorted({**a.get("files", {}), **b.get("files", {})}.items()))
    return merged
