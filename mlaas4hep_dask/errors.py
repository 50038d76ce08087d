"""The errors a user can cause; all survive pickling, since they cross a network."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

MAX_SHOWN = 60  # characters of a user's text in a message


class MLaaSError(Exception):
    """Base of every error that a user of this package can cause.

    Parameters
    ----------
    message : str
        What is wrong, where, what was expected and the nearest thing that exists.
    **facts
        The same values for programs; each becomes an attribute.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        if name != "facts" and name in self.__dict__.get("facts", ()):
            return self.facts[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __str__(self) -> str:
        return self.message

    @classmethod
    def at(cls, path: str | Path, text: str, **facts: Any) -> Self:
        """The error of a file or folder, which stands before the text (further fact: path)."""
        return cls(f"{path}: {text}", path=str(path), **facts)

    @classmethod
    def in_tree(cls, data: Any, text: str, **facts: Any) -> Self:
        """The error of a plan or partition (further facts: file, tree)."""
        return cls(text, file=data.file, tree=data.tree, **facts)


class ConfigError(MLaaSError):
    """dataset.yaml or an override is wrong (facts: file, line, key, nearest)."""


class DataError(MLaaSError):
    """A data file lacks what was asked for (facts: file, tree, branch, entries, nearest)."""


class UnreadableFileError(DataError):
    """A data file could not be opened or read (facts: file, reason)."""


class SpecsError(MLaaSError):
    """Specs cannot be merged, read or applied (facts: branch, file)."""


class ExpressionError(MLaaSError):
    """An expression cannot be parsed or evaluated (facts: expression, name, column, nearest)."""


class CodeError(MLaaSError):
    """What a user wrote cannot be found or imported (facts: callable)."""


class FunctionError(MLaaSError):
    """A user's function of events cannot be imported or run (facts: callable)."""


class EncodeError(MLaaSError):
    """Events do not fit the layout (facts: event, branch)."""


class BundleError(MLaaSError):
    """A bundle is incomplete, altered or of another version (facts: path, member)."""


class WriteError(MLaaSError):
    """A file of events cannot be written (facts: path, branch)."""


class ModelError(MLaaSError):
    """A user's model cannot be imported, built or run (facts: callable, shape)."""


class TrainingError(MLaaSError):
    """Training cannot start or did not finish (facts: rank, attempts)."""


class PayloadError(EncodeError):
    """What a client sent is not in the form of its protocol (facts: event, branch)."""


class TooLargeError(PayloadError):
    """A client sent more at once than is taken (facts: event, branch)."""


class EventError(PayloadError):
    """An event does not fit the branches, or has no score (facts: event, branch)."""


class BusyError(MLaaSError):
    """No more can be scored now; later it may."""


class UnknownModelError(MLaaSError):
    """No model has the name (facts: name, nearest)."""


class ServerError(MLaaSError):
    """The server cannot start (facts: address)."""


class ClusterError(MLaaSError):
    """A Dask cluster cannot be reached or started (facts: address)."""


class RecordError(MLaaSError):
    """The records of a run cannot be read (facts: file)."""


class MissingExtraError(MLaaSError):
    """An optional dependency is not installed (facts: extra, module)."""

    @classmethod
    def of(cls, extra: str, *, module: str) -> Self:
        """The error for a missing module, with the command that installs it."""
        return cls(
            f"{module!r} is not installed; it comes with: pip install 'mlaas4hep_dask[{extra}]'",
            extra=extra,
            module=module,
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the system, such as a full disk, become one that names the file."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{path} cannot be written ({error.strerror or error})", path=str(path)
        ) from error


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like ``name``, or None when none is near; case does not count."""
    by_folded = {candidate.casefold(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def names_in(folder: Path) -> list[str]:
    """The names in a folder; none when it cannot be read."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest candidate, or an empty string."""
    near = nearest(name, candidates)
    return f"; did you mean {near!r}?" if near else ""


def listed(names: Sequence[str], *, most: int = 5, by: str = ", ") -> str:
    """The first ``most`` names and how many more there are: ``a, b and 7 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return by.join(names[:most]) + more


def either(names: Iterable[str]) -> str:
    """Names in a sentence: ``a, b or c``."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def shown(value: Any) -> str:
    """A JSON value in a few words, whatever its size."""
    if isinstance(value, str):
        text = value if len(value) <= MAX_SHOWN else f"{value[:MAX_SHOWN]}..."
        return repr(text)
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    return json.dumps(value)


def unknown_keyword(function: Callable[..., Any], keywords: Iterable[str]) -> str:
    """What to say of the first keyword that a user's function does not take; else empty."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of C code without a signature
        return ""
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return ""
    for name in keywords:
        if name not in parameters:
            takes = ", ".join(parameters)
            return f"has no parameter {name!r}, it takes {takes}{did_you_mean(name, parameters)}"
    return ""
