"""Bodies of requests: JSON with a list of events."""

from __future__ import annotations

from typing import Any

import orjson

from mlaas4hep_dask.errors import PayloadError, TooLargeError, did_you_mean, shown
from mlaas4hep_dask.events.records import MAX_NAME

MAX_EVENTS = 65_536


def records_in(body: bytes | bytearray, *, max_events: int = MAX_EVENTS) -> list[Any]:
    """The parsed but unchecked events of a request body.

    Parameters
    ----------
    body : bytes or bytearray
        ``{"events": [{"MET_pt": 31.2, "Jet_pt": [50.1, 33.0]}, ...]}`` in UTF-8; ``null`` stands
        for a missing value.
    max_events : int
        Largest number of events accepted.

    Raises
    ------
    PayloadError
        When the body is not such a document.
    TooLargeError
        When it holds too many events.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise json_error(error) from None
    if not isinstance(content, dict):
        raise refusal(f'expected {{"events": [...]}}, got {shown(content)}')
    for key in content:
        if key != "events":
            hint = did_you_mean(key[:MAX_NAME], ["events"])
            raise refusal(f'unknown key {shown(key)}; the only key is "events"{hint}')
    records = content.get("events")
    if not isinstance(records, list):
        what = shown(records) if content else "an empty object"
        raise refusal(f'expected {{"events": [...]}}, a list of events, got {what}')
    if len(records) > max_events:
        raise TooLargeError(
            f"{len(records)} events in one request; send at most {max_events}",
            event=None,
            branch=None,
        )
    return records


def refusal(message: str) -> PayloadError:
    """The error of a body that is no list of events."""
    return PayloadError(message, event=None, branch=None)


def json_error(error: orjson.JSONDecodeError, *, place: int = 0) -> PayloadError:
    """The error of a body that is not JSON.

    Parameters
    ----------
    error : JSONDecodeError
        What the parser says.
    place : int
        Byte of the body at which what it was given begins.
    """
    hint = ""
    if error.doc.startswith(("NaN", "Infinity"), error.pos):
        hint = "; JSON has no NaN or Infinity: write null for a missing value"
    where = f"{error.msg}: by byte {place + error.pos}" if place else str(error)
    return refusal(f"the body is not JSON: {where}{hint}")
