"""Patterns of names: which names one stands for."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches(pattern: str, name: str) -> bool:
    """True when a name is the pattern, or fits it; ``*``, ``?`` and ``[abc]`` are wildcards."""
    # a branch may be called 'x[3]', which as a pattern would not match itself
    return name == pattern or fnmatchcase(name, pattern)


def any_matches(patterns: Iterable[str], name: str) -> bool:
    """True when a name fits one of some patterns."""
    return any(matches(pattern, name) for pattern in patterns)
