"""The files that a dataset.yaml names, as absolute paths."""

from __future__ import annotations

import glob
import os
from typing import Any

from mlaas4hep_dask.config.problems import Places
from mlaas4hep_dask.config.reading import is_logical


def make_absolute(document: dict[str, Any], places: Places, redirector: str | None) -> None:
    """Write the files that a document names as absolute paths, in place.

    Parameters
    ----------
    document
        All keys of a dataset.yaml, as JSON values.
    places
        The folder from which relative files start.
    redirector
        Where there is one, an entry that begins with ``/store/`` is a logical name.
    """

    def absolute(entry: str) -> str:
        return _absolute(entry, places, redirector)

    def code(reference: str) -> str:
        return _code(reference, places)

    for sample in document["samples"]:
        sample["files"] = [absolute(entry) for entry in sample["files"]]
    for owner in (document, *document["samples"]):
        for friend in owner["friends"]:
            if isinstance(friend["files"], list):
                friend["files"] = [absolute(entry) for entry in friend["files"]]
    for key in ("path", "cache"):
        if (path := document["specs"][key]) is not None and path != "auto":
            document["specs"][key] = str(places.resolve(path))
    if "/" in document["cache"]:
        document["cache"] = str(places.resolve(document["cache"]))
    if document["function"] is not None:
        document["function"]["callable"] = code(document["function"]["callable"])
    document["model"]["callable"] = code(document["model"]["callable"])
    training = document["training"]
    if training["loss"] is not None:
        training["loss"] = code(training["loss"])
    for piece in (training["optimiser"], training["scheduler"], *training["hooks"]):
        if piece is not None:
            piece["callable"] = code(piece["callable"])
    if (begin := training["warm_start"]) is not None:
        begin["path"] = str(places.resolve(begin["path"]))
    rules = document["encode"]["normalisation"]
    document["encode"]["normalisation"] = (
        code(rules)
        if isinstance(rules, str)
        else [
            {each: code(how) if isinstance(how, str) else how for each, how in rule.items()}
            for rule in rules
        ]
    )


def _code(reference: str, places: Places) -> str:
    file, _, function = reference.rpartition(":")
    return f"{places.resolve(file)}:{function}" if file.endswith(".py") else reference


def _absolute(entry: str, places: Places, redirector: str | None) -> str:
    if "://" in entry or is_logical(entry, redirector):
        return entry
    mark = "@" if entry.startswith("@") else ""
    path = entry.removeprefix("@")
    if glob.has_magic(path) and not places.resolve(path).is_file():
        path = os.path.join(glob.escape(str(places.base)), path)  # noqa: PTH118
    return f"{mark}{places.resolve(path)}"
