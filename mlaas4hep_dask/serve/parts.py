"""Cuts the bodies of requests into parts that are scored in one go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from mlaas4hep_dask.errors import PayloadError, TooLargeError, did_you_mean, shown
from mlaas4hep_dask.events.records import MAX_NAME
from mlaas4hep_dask.score.parts import SLICE, SLICE_VALUES, Part, Records
from mlaas4hep_dask.serve import cut
from mlaas4hep_dask.serve.limits import MAX_VALUES
from mlaas4hep_dask.serve.payload import MAX_EVENTS, json_error, records_in, refusal

INLINE_BYTES = 16 * 1024  # bodies that are parsed at once: that takes less time than a thread
SLICE_BYTES = 512 * 1024
EVENT_VALUES = 200_000
EVENT_NAMES = 10_000
EVENT_BYTES = 4 * 1024**2

_HEAD = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"events"[ \t\n\r]*:[ \t\n\r]*\[')
_TAIL = re.compile(rb"[ \t\n\r]*\}[ \t\n\r]*")
_FIRST_NAME = re.compile(rb'[ \t\n\r]*[{,][ \t\n\r]*("[^"\\]{0,200}")')
_SLICE_LIMITS = np.array([SLICE, SLICE_VALUES, SLICE_BYTES], dtype=np.int64)
_EVENT_LIMITS = np.array([EVENT_VALUES, EVENT_NAMES, EVENT_BYTES], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Text:
    """Events of one request that are parsed when they are scored.

    Parameters
    ----------
    body : bytearray
        The request.
    start, stop : int
        Bytes of the events, with the commas between them.
    first, num_events, num_values : int
        As in `mlaas4hep_dask.score.parts.Part`.
    """

    body: bytearray
    start: int
    stop: int
    first: int
    num_events: int
    num_values: int

    def loaded(self) -> Records:
        """The parsed events.

        Raises
        ------
        PayloadError
            When they are no JSON.
        """
        text = b"[" + self.body[self.start : self.stop] + b"]"
        try:
            records: list[Any] = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise json_error(error, place=self.start - 1) from None
        if len(records) != self.num_events:
            raise refusal(
                f"the body is not JSON: a comma without a value by byte {self.stop}"
            ) from None
        return Records(records, self.first, self.num_values)


def parts_of(body: bytearray, *, max_values: int = MAX_VALUES) -> Sequence[Part]:
    """The parts of a request's body; for large ones it is to be called in a thread.

    Parameters
    ----------
    body : bytearray
        See `records_in`. It must not change until the parts were parsed.
    max_values : int
        Most values in it, with names, and with four for each list or object.

    Raises
    ------
    PayloadError
        As `records_in`. That the body is no JSON may be found later, when a part is loaded.
    TooLargeError
        When it has too many events or values.
    """
    if len(body) > INLINE_BYTES:
        return _parts_of_large(body, max_values)
    records = records_in(body)
    num_values = body.count(b",") + cut.LIST_WEIGHT * body.count(b"[")
    if len(records) <= SLICE:
        return [Records(records, num_values=num_values)]
    return [Records(records[i : i + SLICE], i) for i in range(0, len(records), SLICE)]


def _parts_of_large(body: bytearray, max_values: int) -> list[Text]:
    head = _HEAD.match(body)
    if head is None:
        raise _unlike_events(body)
    slices = np.empty((MAX_EVENTS, 4), dtype=np.int64)
    how, events, num_slices, values, end = cut.cut(
        np.frombuffer(body, dtype=np.uint8), head.end(), _SLICE_LIMITS, _EVENT_LIMITS, slices
    )
    if how == cut.CUT_SHORT:
        raise refusal(f"the body is not JSON: unexpected end of the list of events at byte {end}")
    if how != cut.WHOLE:
        problem = {
            cut.TOO_MANY_VALUES: f"more than {EVENT_VALUES} values",
            cut.TOO_MANY_NAMES: f"more than {EVENT_NAMES} names",
            cut.TOO_LONG: f"more than {EVENT_BYTES} bytes",
        }[how]
        raise _too_large(f"event {events}: {problem}", event=events)
    if events > MAX_EVENTS:
        raise _too_large(f"{events} events in one request; send at most {MAX_EVENTS}")
    if values > max_values:
        raise _too_large(
            f"about {values} values in one request, with names, and with {cut.LIST_WEIGHT} for "
            f"each list or object; send at most {max_values}"
        )
    if _TAIL.fullmatch(body, end) is None:
        raise _unlike_events(body, end)
    parts = []
    first = 0
    for start, stop, num_events, num_values in slices[:num_slices].tolist():
        parts.append(Text(body, start, stop, first, num_events, num_values))
        first += num_events
    return parts


def _unlike_events(body: bytearray, place: int = 0) -> PayloadError:
    name = _FIRST_NAME.match(body, place)
    try:
        key = orjson.loads(name[1]) if name is not None else None
    except orjson.JSONDecodeError:
        key = None
    if key is not None and key != "events":
        hint = did_you_mean(key[:MAX_NAME], ["events"])
        return refusal(f'unknown key {shown(key)}; the only key is "events"{hint}')
    where = f" and nothing after byte {place}" if place else ""
    return refusal(f'expected JSON as {{"events": [...]}}, a list of events{where}')


def _too_large(message: str, *, event: int | None = None) -> TooLargeError:
    return TooLargeError(message, event=event, branch=None)
