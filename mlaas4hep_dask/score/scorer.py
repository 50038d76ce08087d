"""A bundle's model, loaded once and then asked for the scores of raw events."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.bundle import Bundle, open_bundle
from mlaas4hep_dask.encode import EncodeCounts, Encoded, EncodedImages, encode
from mlaas4hep_dask.errors import BundleError, ExpressionError, PayloadError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.records import UnfitError, columnar, events_of, extra_names
from mlaas4hep_dask.score.counts import counts_of_parts
from mlaas4hep_dask.score.parts import Part, Scorable
from mlaas4hep_dask.score.script import Script
from mlaas4hep_dask.score.verify import verify
from mlaas4hep_dask.specs import BranchSpecs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of some events.

    Parameters
    ----------
    scores : ndarray of float32, shape (events,) or (events, outputs)
        In the order of the events.
    counts : EncodeCounts
        What encoding could not keep.
    ignored : frozenset of str
        Names in the events that the model does not use.
    """

    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    counts: EncodeCounts = field(default_factory=EncodeCounts)
    ignored: frozenset[str] = frozenset()

    @classmethod
    def together(cls, parts: Sequence[Scored]) -> Scored:
        """Those of the parts of one request."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.scores for part in parts]),
            sum((part.counts for part in parts), EncodeCounts()),
            frozenset[str]().union(*(part.ignored for part in parts)),
        )


class _Row(NamedTuple):
    """The parsed events of a part."""

    place: int  # among the parts
    objects: Sequence[Any]
    first: int


class Scorer:
    """A loaded model; `score` is called from one thread at a time.

    Parameters
    ----------
    bundle : Bundle
        Names, specs and encoding.
    network : Network
        The bundle's TorchScript.
    """

    def __init__(self, bundle: Bundle, network: Script) -> None:
        self.bundle = bundle
        self.name = bundle.name
        self.encoding = bundle.encoding
        self.outputs = bundle.outputs
        self.network = network

    @property
    def score_names(self) -> dict[str, list[str]]:
        """What the numbers of a score are; nothing for one of two classes or a reconstruction."""
        names = list(self.outputs.names)
        keys = {"classes": {"classes": names}, "regression": {"targets": names}}
        return keys.get(self.outputs.kind, {})

    def describe(self) -> dict[str, Any]:
        """What a client needs to know, as JSON values."""
        manifest = self.bundle.manifest
        return {
            "name": self.name,
            "created": manifest.get("created"),
            "input": {"branches": [asdict(branch) for branch in self.bundle.reads]},
            **({"recipe": manifest["recipe"]} if self.bundle.recipe is not None else {}),
            "output": manifest.get("output"),
            "metrics": manifest.get("metrics"),
        }

    def example(self) -> dict[str, Any]:
        """An event inside the specs, as a client would send it.

        A flat branch that counts a collection by its name, such as ``nJet``, agrees with it.
        """
        if self.bundle.recipe is not None and self.bundle.manifest.get("example"):
            return dict(self.bundle.manifest["example"])
        event: dict[str, Any] = {}
        counted: dict[str, int] = {}
        for branch in self.encoding.reads:
            # Objects may be sorted by a branch that is no input; the specs do not know it.
            specs = self.bundle.specs.branches.get(branch.name, BranchSpecs(branch))
            value: float | int | bool | None = None
            if specs.min is not None and specs.max is not None and specs.mean is not None:
                whole = not branch.dtype.startswith("float")
                value = float(f"{specs.mean:.0f}") if whole else float(f"{specs.mean:.4g}")
                value = value if specs.min <= value <= specs.max else specs.min
                value = int(value) if whole else value
                value = bool(value) if branch.dtype == "bool" else value
            if branch.collection is None:
                event[branch.name] = value
            else:
                num_objects = min(2, self.bundle.specs.max_multiplicity(branch.collection))
                event[branch.name] = [value] * num_objects
                counted[f"n{branch.collection}".casefold()] = num_objects
        for name, present in event.items():
            if name.casefold() in counted and isinstance(present, int):
                event[name] = counted[name.casefold()]
        return event

    def score(self, parts: Sequence[Scorable]) -> list[Scored | PayloadError]:
        """Scores of each part, or why it has none; one part's error leaves the others alone."""
        outcomes: list[Scored | PayloadError | None] = [None] * len(parts)
        rows: list[_Row] = []
        for place, part in enumerate(parts):
            try:
                rows.append(_Row(place, part.parsed(), part.first))
            except PayloadError as error:
                outcomes[place] = error
        batch = None
        if rows:
            try:
                batch = self._encoded(rows)
            except (PayloadError, UnfitError):
                refused = dict(self._refused(rows))
                for place, problem in refused.items():
                    outcomes[place] = problem
                rows = [row for row in rows if row.place not in refused]
                batch = self._encoded(rows) if rows else None
        if batch is not None:
            found = self._scored(rows, *batch)
            for row, outcome in zip(rows, found, strict=True):
                outcomes[row.place] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def rows(
        self, objects: Sequence[Mapping[str, Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The network's input for some events, and its missing mask.

        Raises
        ------
        PayloadError
            When an event does not fit.
        """
        _, encoded = self._encoded([_Row(0, list(objects), 0)])
        return encoded.dense(), encoded.missing()

    def _refused(self, rows: Sequence[_Row]) -> Iterator[tuple[int, PayloadError]]:
        """The rows that cannot be encoded, found by halving."""
        try:
            self._encoded(rows)
        except (PayloadError, UnfitError) as error:
            if isinstance(error, PayloadError) and len(rows) == 1:
                yield rows[0].place, error
                return
            middle = len(rows) // 2
            yield from self._refused(rows[:middle])
            yield from self._refused(rows[middle:])

    def _encoded(self, rows: Sequence[_Row]) -> tuple[Events, Encoded | EncodedImages]:
        """The events of all rows; `UnfitError` or `PayloadError` when one of them does not fit."""
        branches = self.bundle.reads
        if len(rows) == 1:
            first = rows[0].first  # errors count when there is one row alone
            events = events_of(rows[0].objects, branches, first=first)
        else:
            first = 0
            objects = list(chain.from_iterable(row.objects for row in rows))
            events = columnar(objects, branches)
        events = self._prepared(events, first)
        encoded = encode(events, self.encoding)
        overflow = encoded.overflow()
        if overflow is not None:
            raise _too_large(overflow[0] + first, overflow[1])
        return events, encoded

    def _scored(
        self, rows: Sequence[_Row], events: Events, encoded: Encoded | EncodedImages
    ) -> Iterator[Scored | PayloadError]:
        branches = self.bundle.reads
        scores = self.network.scores(encoded)
        is_finite = np.all(np.isfinite(scores).reshape(len(scores), -1), axis=1)  # (events,)
        sizes = [len(row.objects) for row in rows]
        counts = counts_of_parts(encoded.counts, events, self.encoding, sizes=sizes)
        end = 0
        for row, size, own_counts in zip(rows, sizes, counts, strict=True):
            own = slice(end, end + size)
            end += size
            if is_finite[own].all():
                ignored = frozenset(extra_names(row.objects, branches))
                yield Scored(scores[own], own_counts, ignored)
            else:
                yield _no_score(row.first + int(np.argmin(is_finite[own])))

    def _prepared(self, events: Events, first: int) -> Events:
        recipe = self.bundle.recipe
        if recipe is not None:
            expressions = (*recipe.derived.values(), *recipe.objects.values())
            used = {name for expression in expressions for name in expression.names}
            events = _narrowed(events, self.bundle.reads, used, first)
        try:
            return self.bundle.prepared(events)
        except ExpressionError as error:
            raise PayloadError(
                f"{error}; is a value null where this needs a condition or a whole number?",
                event=None,
                branch=None,
                status=422,
            ) from None


def _narrowed(
    events: Events, branches: Sequence[Branch], used: Collection[str], first: int
) -> Events:
    """Events in which a branch without a null has its own dtype.

    A null makes float64 of all branches that have the dtype of its own. To an expression that is
    something else than whole numbers or conditions, and other events of the batch would change.
    """
    contents = dict(events.contents)
    for branch in branches:
        values = contents[branch.name]
        if values.dtype == branch.dtype:
            continue
        nulls = np.flatnonzero(np.isnan(values))
        if not nulls.size:
            contents[branch.name] = values.astype(branch.dtype)
        elif branch.dtype == "bool" and branch.name in used:
            event = int(nulls[0])
            if branch.collection is not None:
                event = int(np.searchsorted(events.offsets[branch.collection], event, "right")) - 1
            event += first
            raise PayloadError(
                f"event {event}, branch {branch.name!r}: null, where the model needs true or false",
                event=event,
                branch=branch.name,
                status=422,
            )
    found = tuple(
        replace(branch, dtype=contents[branch.name].dtype.name) for branch in events.branches
    )
    return replace(events, branches=found, contents=contents)


def _too_large(event: int, name: str) -> PayloadError:
    return PayloadError(
        f"event {event}, branch {name!r}: a value is too large to normalise",
        event=event,
        branch=name,
        status=422,
    )


def _no_score(event: int) -> PayloadError:
    return PayloadError(
        f"event {event}: the model gives no finite score; is a value far out of range?",
        event=event,
        branch=None,
        status=422,
    )


def open_scorer(path: str | Path) -> Scorer:
    """The model of a verified bundle, warmed up.

    Parameters
    ----------
    path : str or Path
        A bundle's folder, or a .tar.gz of it.

    Raises
    ------
    BundleError
        When the bundle is incomplete or altered, its model does not run, or does not give its
        golden events their scores.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mlaas4hep-serve-") as folder:
        bundle = open_bundle(path, unpack_to=Path(folder, "bundle"))
        if not bundle.name or "/" in bundle.name or not bundle.name.isprintable():
            raise BundleError(
                f"{path}: model name {bundle.name!r} cannot stand in a URL", path=str(path)
            )
        try:
            model = Scorer(bundle, Script(bundle.model_path))
            verify(model, bundle.golden())
            _warm_up(model)
        except BundleError:
            raise
        except Exception as error:  # whatever a strange manifest or program leads to
            told = str(error).strip().partition("\n")[0] or type(error).__name__
            raise BundleError(f"{path}: the model does not run ({told})", path=str(path)) from error
    seconds = time.perf_counter() - started
    logger.info("loaded model %r from %s in %.1f s", model.name, path, seconds)
    return model


def _warm_up(model: Scorer) -> None:
    event = model.example()
    nulls = {
        name: [None] * len(value) if isinstance(value, list) else None
        for name, value in event.items()
    }
    # The TorchScript interpreter specialises in its first runs; nulls make integers float64,
    # for which `encode` compiles another kernel.
    for objects in ([nulls], [event], [event], [event] * 3, [event] * 3):
        (outcome,) = model.score([Part(objects)])
        if isinstance(outcome, PayloadError):
            if objects[0] is nulls and model.bundle.recipe is not None:
                continue  # a null is no whole number and no condition, which a recipe may need
            raise outcome
