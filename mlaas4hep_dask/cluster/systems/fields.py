"""What all parts of a site's file are made of: times, ports, directives."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, JsonValue

from mlaas4hep_dask.config.problems import Problem, describe, invalid
from mlaas4hep_dask.config.section import Section

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(
    r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?(s|m|h|d|sec|min|seconds?|minutes?|hours?|days?)"
)
_CLOCK = re.compile(r"(?:([0-9]{1,3})-)?([0-9]{1,4}):([0-9]{2}):([0-9]{2})")
_PORTS = re.compile(r"([0-9]{1,5})(?::([0-9]{1,5}))?")


def _seconds(value: Any) -> Any:
    """A time such as ``90 s``, ``12 h`` or ``1-12:00:00`` in seconds."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        text = "expected a time such as '90 s', '12 h' or '1-12:00:00'"
        raise invalid(Problem("", f"{text}, found {describe(value)}"))
    if isinstance(value, int | float):
        seconds = float(value)
    elif (match := _TIME.fullmatch(value)) is not None:
        seconds = float(match[1]) * _UNITS[match[2][0]]
    elif (match := _CLOCK.fullmatch(value)) is not None:
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = days * 86400.0 + hours * 3600 + minutes * 60 + rest
    else:
        text = "expected a time such as '90 s', '12 h' or '1-12:00:00'"
        raise invalid(Problem("", f"{text}, found {describe(value)}"))
    if not seconds > 0:
        raise invalid(Problem("", f"expected a time longer than 0, found {describe(value)}"))
    return seconds


def _ports(value: Any) -> Any:
    """A port or a range such as ``10000:10100``, in the form in which Dask takes it."""
    match = _PORTS.fullmatch(str(value)) if isinstance(value, int | str) else None
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if isinstance(value, bool) or not 0 < first <= last < 2**16:
        text = "expected a port, or a range of ports such as 10000:10100"
        raise invalid(Problem("", f"{text}, found {describe(value)}"))
    return f"{first}:{last}" if last > first else str(first)


def _scalars(value: Any) -> Any:
    """A mapping to single values."""
    if isinstance(value, dict):
        problems = [
            Problem(key, f"expected text or a number, found {describe(inner)}")
            for key, inner in value.items()
            if inner is None or isinstance(inner, dict | list)
        ]
        if problems:
            raise invalid(*problems)
    return value


Seconds = Annotated[float, BeforeValidator(_seconds)]
Ports = Annotated[str, BeforeValidator(_ports)]
Scalars = Annotated[dict[str, JsonValue], BeforeValidator(_scalars)]


def clock(seconds: float) -> str:
    """A time as SLURM writes it, ``D-HH:MM:SS``, in whole seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    time_of_day = f"{hours:02}:{minutes:02}:{rest:02}"
    return f"{days}-{time_of_day}" if days else time_of_day


class Part(Section):
    """What all parts of a site's file share: keys are written with hyphens, as Dask's."""

    model_config = ConfigDict(
        alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )
