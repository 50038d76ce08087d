"""Bodies of requests: JSON with a list of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from mlaas4hep_dask.errors import PayloadError, did_you_mean, shown
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.records import MAX_NAME, events_of

MAX_EVENTS = 65_536


def events_from_json(
    body: bytes, branches: Sequence[Branch], *, max_events: int = MAX_EVENTS
) -> Events:
    """The events of a request body.

    Parameters
    ----------
    body : bytes
        ``{"events": [{"MET_pt": 31.2, "Jet_pt": [50.1, 33.0]}, ...]}`` in UTF-8; ``null`` stands
        for a missing value. Branches that are not asked for are passed over.
    branches : sequence of Branch
        Branches to take from every event, with the dtype that their values had in the file.
    max_events : int
        Largest number of events accepted.

    Raises
    ------
    PayloadError
        When the body is not such a document (status 400), holds too many events (413), or an
        event does not fit the branches (422; then ``event`` and ``branch`` name it).
    """
    return events_of(objects_in(body, max_events=max_events), branches)


def objects_in(body: bytes | bytearray, *, max_events: int = MAX_EVENTS) -> list[Any]:
    """The parsed but unchecked events of a request body; see `events_from_json`."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise json_error(error) from None
    if not isinstance(document, dict):
        raise refusal(f'expected {{"events": [...]}}, got {shown(document)}')
    for key in document:
        if key != "events":
            hint = did_you_mean(key[:MAX_NAME], ["events"])
            raise refusal(f'unknown key {shown(key)}; the only key is "events"{hint}')
    objects = document.get("events")
    if not isinstance(objects, list):
        what = shown(objects) if document else "an empty object"
        raise refusal(f'expected {{"events": [...]}}, a list of events, got {what}')
    if len(objects) > max_events:
        raise PayloadError(
            f"{len(objects)} events in one request; send at most {max_events}",
            event=None,
            branch=None,
            status=413,
        )
    return objects


def refusal(message: str) -> PayloadError:
    """The error of a body that is no list of events."""
    return PayloadError(message, event=None, branch=None, status=400)


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
