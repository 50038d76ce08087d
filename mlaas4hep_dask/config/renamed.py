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
    cautions += _loss_of_target(renewed)
    return renewed, cautions


def _loss_of_target(document: dict[str, Any]) -> list[Problem]:
    """Move ``target.loss`` to where all losses are named, and say so.

    Where both are given, that of the target stays, and is refused as a key that is not known.
    """
    target, training = document.get("target"), document.get("training", {})
    if not (isinstance(target, dict) and "loss" in target and isinstance(training, dict)):
        return []
    if training.get("loss") is not None:
        return []
    document["target"] = {key: value for key, value in target.items() if key != "loss"}
    document["training"] = {**training, "loss": target["loss"]}
    text = "is called training.loss now, which names the losses of all kinds of targets"
    return [Problem("target.loss", f"{text}; the old key is still taken")]
