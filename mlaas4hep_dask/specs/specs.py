"""Specs of a data set: what is measured of one partition, merged, written and read back."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import SpecsError
from mlaas4hep_dask.specs.draw import Draw, from_text, merge_draws, to_text
from mlaas4hep_dask.specs.events import Branch
from mlaas4hep_dask.specs.moments import EMPTY, Moments, merge_moments

FORMAT = "mlaas4hep_dask/specs"
VERSION = 2
READABLE = (1, 2)  # version 1 has no draws, and no quantiles
FLAT = ""  # the group of the flat branches among the collections


@dataclass(frozen=True, slots=True, eq=False)
class BranchSpecs:
    """Statistics of one branch.

    Parameters
    ----------
    branch : Branch
        Name, kind, dtype, collection and unit.
    moments : Moments
        Counts of values, NaN and infinities; extremes, mean and squared deviations of the
        finite values.
    drawn : ndarray, shape (drawn,)
        Values of the branch that were drawn for quantiles, in the branch's dtype.
    """

    branch: Branch
    moments: Moments = EMPTY
    drawn: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.float64))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, BranchSpecs)
            and (self.branch, self.moments) == (other.branch, other.moments)
            and self.drawn.dtype == other.drawn.dtype
            and self.drawn.tobytes() == other.drawn.tobytes()  # NaN equals NaN
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def min(self) -> float | None:
        """Smallest finite value, or None when there is none."""
        return self.moments.min

    @property
    def max(self) -> float | None:
        """Largest finite value, or None when there is none."""
        return self.moments.max

    @property
    def mean(self) -> float | None:
        """Mean of the finite values, or None when there is none."""
        return self.moments.mean if self.moments.num_finite else None

    @property
    def variance(self) -> float | None:
        """Population variance of the finite values, or None when there is none."""
        count = self.moments.num_finite
        return self.moments.squares / count if count else None

    @property
    def is_constant(self) -> bool:
        """True when all finite values are equal."""
        return self.min is not None and self.min == self.max

    def quantile(self, q: float) -> float:
        """The value below which the fraction ``q`` of the finite values lies.

        Exact when every value was drawn, else with the error `rank_error`; the same for the
        same data, however these were cut into partitions and in whatever order they merged.

        Raises
        ------
        SpecsError
            When the branch has no finite value, or none was drawn.
        """
        return self.quantiles([q])[0]

    def quantiles(self, q: Sequence[float]) -> list[float]:
        """The `quantile` of each fraction in ``q``."""
        if self.min is None or self.max is None:
            raise SpecsError(
                f"branch {self.branch.name!r} has no finite value and so no quantiles",
                branch=self.branch.name,
            )
        values = self._finite_drawn()
        if values.size == 0:
            raise SpecsError(
                f"the specs hold no draw of branch {self.branch.name!r}, and so no quantiles; "
                "measure again",
                branch=self.branch.name,
            )
        inner = np.quantile(values, q, method="inverted_cdf")  # a value of the data
        ends = {0.0: self.min, 1.0: self.max}
        return [ends.get(a, float(value)) for a, value in zip(q, inner, strict=True)]

    def rank_error(self, q: float = 0.5) -> float:
        """The standard error, in rank, of the quantile ``q``; largest for the median.

        It is that of a draw without replacement; 0 when every value was drawn, NaN when none.
        """
        num_drawn, num_finite = self._finite_drawn().size, self.moments.num_finite
        if num_drawn == 0:
            return math.nan
        left_out = max(num_finite - num_drawn, 0) / max(num_finite - 1, 1)
        return math.sqrt(q * (1.0 - q) / num_drawn * left_out)

    def _finite_drawn(self) -> NDArray[np.float64]:
        values = self.drawn.astype(np.float64)
        return values[np.isfinite(values)]


@dataclass(frozen=True, slots=True)
class SampleSpecs:
    """Counts of one sample.

    Parameters
    ----------
    num_read, num_selected : int
        Events read from the files, and events left after the selection.
    sum_weights : float
        Sum of the weights of the selected events.
    """

    num_read: int = 0
    num_selected: int = 0
    sum_weights: float = 0.0

    def __add__(self, other: SampleSpecs) -> SampleSpecs:
        return SampleSpecs(
            self.num_read + other.num_read,
            self.num_selected + other.num_selected,
            self.sum_weights + other.sum_weights,
        )


@dataclass(frozen=True, slots=True)
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
        By collection, and for the flat branches by ``""``: which values were drawn.
    """

    branches: Mapping[str, BranchSpecs] = field(default_factory=dict)
    multiplicities: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    samples: Mapping[str, SampleSpecs] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    draws: Mapping[str, Draw] = field(default_factory=dict)

    @property
    def num_events(self) -> int:
        """Number of selected events."""
        return sum(sample.num_selected for sample in self.samples.values())

    def max_multiplicity(self, collection: str) -> int:
        """Largest number of objects that an event has in the collection."""
        return max(len(self.multiplicities[collection]) - 1, 0)

    def with_provenance(self, **provenance: Any) -> Specs:
        """The same specs with more provenance."""
        return replace(self, provenance={**self.provenance, **provenance})

    def to_json(self) -> str:
        """Text of specs.json: one branch per line, sorted, so that two can be compared."""
        branches = {
            name: {
                "kind": specs.branch.kind,
                "dtype": specs.branch.dtype,
                "collection": specs.branch.collection,
                "unit": specs.branch.unit,
                **specs.moments._asdict(),
            }
            for name, specs in sorted(self.branches.items())
        }
        samples = {
            name: {
                "num_read": sample.num_read,
                "num_selected": sample.num_selected,
                "sum_weights": sample.sum_weights,
            }
            for name, sample in sorted(self.samples.items())
        }
        sections: dict[str, dict[str, Any]] = {
            "branches": branches,
            "multiplicities": {name: list(h) for name, h in sorted(self.multiplicities.items())},
            "samples": samples,
            "draws": {
                name: {"limit": draw.limit, "keys": to_text(draw.keys)}
                for name, draw in sorted(self.draws.items())
            },
            "drawn": {
                name: to_text(specs.drawn)
                for name, specs in sorted(self.branches.items())
                if _group(specs) in self.draws
            },
        }
        lines = [f'"format": "{FORMAT}"', f'"version": {VERSION}']
        for title, entries in sections.items():
            rows = ",\n".join(
                f"  {json.dumps(key)}: {json.dumps(entry, allow_nan=False)}"
                for key, entry in entries.items()
            )
            lines.append(f'"{title}": {{\n{rows}\n}}' if rows else f'"{title}": {{}}')
        provenance = json.dumps(self.provenance, indent=1, sort_keys=True, allow_nan=False)
        lines.append(f'"provenance": {provenance}')
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = "specs.json") -> Specs:
        """Specs from the text of specs.json.

        Raises
        ------
        SpecsError
            When the text is not specs of a version that this package reads.
        """
        try:
            data = json.loads(text)
            if data["format"] != FORMAT or data["version"] not in READABLE:
                raise SpecsError(
                    f"{source}: format {data['format']!r} version {data['version']}; "
                    f"this version reads {FORMAT!r} versions {' and '.join(map(str, READABLE))}",
                    file=source,
                )
            has_draws = data["version"] > 1
            stored = data["draws"] if has_draws else {}
            drawn = data["drawn"] if has_draws else {}
            draws = {name: _draw_from(entry) for name, entry in stored.items()}
            branches = {
                name: _branch_from(name, entry, draws, drawn)
                for name, entry in data["branches"].items()
            }
            samples = {name: SampleSpecs(**entry) for name, entry in data["samples"].items()}
            multiplicities = {
                name: tuple(map(index, h)) for name, h in data["multiplicities"].items()
            }
            for specs in branches.values():
                if (collection := specs.branch.collection) is not None:
                    _ = multiplicities[collection]
            return cls(branches, multiplicities, samples, data["provenance"], draws)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SpecsError(f"{source}: not a specs file ({error!r})", file=source) from error

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
        return (
            f"<p><b>Specs</b> of {self.num_events:,} events, {len(self.branches)} branches</p>"
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


def _group(specs: BranchSpecs) -> str:
    """The branches that are drawn together."""
    return FLAT if specs.branch.collection is None else specs.branch.collection


def _draw_from(entry: dict[str, Any]) -> Draw:
    keys = from_text(entry["keys"], "uint64")
    limit = index(entry["limit"])
    if not 0 <= limit < 2**64 or np.any(keys[1:] < keys[:-1]) or np.any(keys >= np.uint64(limit)):
        raise ValueError("keys of a draw are not ascending below its limit")
    return Draw(limit, keys)


def _branch_from(
    name: str, entry: dict[str, Any], draws: Mapping[str, Draw], drawn: Mapping[str, str]
) -> BranchSpecs:
    branch = Branch(name, entry["kind"], entry["dtype"], entry["collection"], entry["unit"])
    moments = Moments(*(entry[key] for key in Moments._fields))
    numbers = [moments.mean, moments.squares, *map(index, moments[:4])]
    numbers += [value for value in (moments.min, moments.max) if value is not None]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"moments of branch {name!r} are not finite")
    specs = BranchSpecs(branch, moments, np.zeros(0, branch.dtype))
    if (draw := draws.get(_group(specs))) is None:
        return specs
    values = from_text(drawn[name], branch.dtype)
    if len(values) != len(draw):
        raise ValueError(f"{len(values)} values of branch {name!r} for {len(draw)} keys")
    return replace(specs, drawn=values)


def merge(a: Specs, b: Specs) -> Specs:
    """Specs of the events of both; associative and commutative, with ``Specs()`` as identity.

    Counts, extremes, histograms and draws, and with them quantiles, are exact; means and
    variances agree for every order of merging up to floating-point rounding.

    Raises
    ------
    SpecsError
        When the two hold different branches, or one branch with different types.
    """
    if not a.branches:
        a, b = b, a
    if b.branches:
        _require_same_branches(a, b)
    branches, draws = _merge_branches(a, b) if b.branches else (a.branches, a.draws)
    names = sorted({*a.multiplicities, *b.multiplicities})
    multiplicities = {
        name: _add(a.multiplicities.get(name, ()), b.multiplicities.get(name, ())) for name in names
    }
    samples = {
        name: a.samples.get(name, SampleSpecs()) + b.samples.get(name, SampleSpecs())
        for name in sorted({*a.samples, *b.samples})
    }
    provenance = _merge_provenance(a.provenance, b.provenance)
    return Specs(branches, multiplicities, samples, provenance, draws)


def merge_all(parts: Iterable[Specs]) -> Specs:
    """Specs of the events of all parts."""
    return reduce(merge, parts, Specs())


def _merge_branches(a: Specs, b: Specs) -> tuple[dict[str, BranchSpecs], dict[str, Draw]]:
    draws: dict[str, Draw] = {}
    orders: dict[str, NDArray[np.intp]] = {}
    for group in sorted({*a.draws, *b.draws}):
        draws[group], orders[group] = merge_draws(
            a.draws.get(group, Draw()), b.draws.get(group, Draw())
        )
    branches = {}
    for name, specs in a.branches.items():
        other = b.branches[name]
        drawn = np.zeros(0, specs.drawn.dtype)
        if (order := orders.get(_group(specs))) is not None and order.size:
            drawn = np.concatenate([specs.drawn, other.drawn])[order]
        branches[name] = BranchSpecs(
            specs.branch, merge_moments(specs.moments, other.moments), drawn
        )
    return branches, draws


def _require_same_branches(a: Specs, b: Specs) -> None:
    if a.branches.keys() != b.branches.keys():
        odd = sorted(a.branches.keys() ^ b.branches.keys())
        raise SpecsError(f"specs of different branches cannot be merged: {odd}", branch=odd[0])
    for name, specs in a.branches.items():
        other = b.branches[name].branch
        if not specs.branch.same_shape(other):
            raise SpecsError(
                f"branch {name!r} is {specs.branch.kind} {specs.branch.dtype} in one part and "
                f"{other.kind} {other.dtype} in another",
                branch=name,
            )


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
