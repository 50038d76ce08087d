"""A module of the user's own, as text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """A module of the user's own.

    Parameters
    ----------
    name : str
        By which the user's code imports it, such as ``helpers`` or ``analysis.cuts``.
    file : str
        Where it was found; empty for a folder without ``__init__.py``.
    text : str
        Its source.
    is_package : bool
        Other modules are in it.
    """

    name: str
    file: str
    text: str
    is_package: bool = False
