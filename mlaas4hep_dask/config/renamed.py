"""Words of dataset.yaml that are called otherwise now; the old ones are still taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mlaas4hep_dask.config.problems import Problem


class Renamed(NamedTuple):
    """A value of a key that has another name now, and why."""

    key: str
    old: str
    new: str
    why: str


RENAMED = (Renamed("specs.mode", "sample", "subset", "a sample is a physics process"),)


def renew(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The document in today's words, and what to say of each old one."""
    renewed, cautions = dict(document), []
    for word in RENAMED:
        section, _, key = word.key.partition(".")
        values = renewed.get(section)
        if isinstance(values, dict) and values.get(key) == word.old:
            renewed[section] = {**values, key: word.new}
            text = f"{word.old!r} is called {word.new!r} now, since {word.why}"
            cautions.append(Problem(word.key, f"{text}; the old word is still taken"))
    return renewed, cautions
