"""A bundle's model, loaded once and then asked for the scores of raw events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.bundle import Bundle
from mlaas4hep_dask.encode import Encoded, EncodedImages, encode
from mlaas4hep_dask.errors import EventError, PayloadError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.events.records import UnfitError
from mlaas4hep_dask.score.counts import counts_of_parts
from mlaas4hep_dask.score.parts import Loaded, Part, events_together, parts_of_columns
from mlaas4hep_dask.score.prepare import prepared
from mlaas4hep_dask.score.scores import Scores
from mlaas4hep_dask.score.script import Script


class _Job(NamedTuple):
    """The events of a part."""

    place: int  # among the parts
    part: Loaded


class Scorer:
    """A loaded model; it scores in one thread at a time.

    Parameters
    ----------
    bundle : Bundle
        Names, specs and encoding.
    script : Script
        The bundle's TorchScript.
    """

    def __init__(self, bundle: Bundle, script: Script) -> None:
        self.bundle = bundle
        self.name = bundle.name
        self.encoding = bundle.encoding
        self.objective = bundle.objective
        self.script = script

    def scores_of(self, events: Events) -> Scores:
        """Scores of raw events, with at least the branches that the bundle reads.

        Raises
        ------
        EventError
            When an event does not fit, or the model gives it no finite score.
        """
        scores = [Scores()]
        for part in parts_of_columns(events):
            (outcome,) = self.score([part])
            if isinstance(outcome, PayloadError):
                raise outcome
            scores.append(outcome)
        return Scores.together(scores[1:] or scores)

    def score(self, parts: Sequence[Part]) -> list[Scores | PayloadError]:
        """Scores of each part, or why it has none; one part's error leaves the others alone."""
        outcomes: list[Scores | PayloadError | None] = [None] * len(parts)
        jobs: list[_Job] = []
        for place, part in enumerate(parts):
            try:
                jobs.append(_Job(place, part.loaded()))
            except PayloadError as error:
                outcomes[place] = error
        batch = None
        if jobs:
            try:
                batch = self._encoded([job.part for job in jobs])
            except (EventError, UnfitError):
                refused = dict(self._refused(jobs))
                for place, problem in refused.items():
                    outcomes[place] = problem
                jobs = [job for job in jobs if job.place not in refused]
                batch = self._encoded([job.part for job in jobs]) if jobs else None
        if batch is not None:
            scores = self._scored([job.part for job in jobs], *batch)
            for job, outcome in zip(jobs, scores, strict=True):
                outcomes[job.place] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def rows(self, part: Loaded) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The network's input for some events, and its missing mask.

        Raises
        ------
        EventError
            When an event does not fit.
        """
        _, encoded = self._encoded([part])
        return encoded.inputs()

    def _refused(self, jobs: Sequence[_Job]) -> Iterator[tuple[int, EventError]]:
        """The parts that cannot be encoded, found by halving."""
        try:
            self._encoded([job.part for job in jobs])
        except (EventError, UnfitError) as error:
            if isinstance(error, EventError) and len(jobs) == 1:
                yield jobs[0].place, error
                return
            middle = len(jobs) // 2
            yield from self._refused(jobs[:middle])
            yield from self._refused(jobs[middle:])

    def _encoded(self, parts: Sequence[Loaded]) -> tuple[Events, Encoded | EncodedImages]:
        """The events of all parts; `UnfitError` or `EventError` when one of them does not fit."""
        first = parts[0].first if len(parts) == 1 else 0  # errors count when one part is alone
        events = events_together(parts, self.bundle.reads)
        events = prepared(self.bundle, events, first=first)
        encoded = encode(events, self.encoding)
        overflow = encoded.overflow()
        if overflow is not None:
            event, name = overflow[0] + first, overflow[1]
            text = f"event {event}, branch {name!r}: a value is too large to normalise"
            raise EventError(text, event=event, branch=name)
        return events, encoded

    def _scored(
        self, parts: Sequence[Loaded], events: Events, encoded: Encoded | EncodedImages
    ) -> Iterator[Scores | EventError]:
        branches = self.bundle.reads
        values = self.script.scores(encoded)
        is_finite = np.all(np.isfinite(values).reshape(len(values), -1), axis=1)  # (events,)
        sizes = [part.num_events for part in parts]
        counts = counts_of_parts(encoded.counts, events, self.encoding, sizes=sizes)
        stop = 0
        for part, size, part_counts in zip(parts, sizes, counts, strict=True):
            rows = slice(stop, stop + size)
            stop += size
            if is_finite[rows].all():
                yield Scores(values[rows], part_counts, frozenset(part.extra_names(branches)))
            else:
                event = part.first + int(np.argmin(is_finite[rows]))
                text = (
                    f"event {event}: the model gives no finite score; is a value far out of range?"
                )
                yield EventError(text, event=event, branch=None)
