"""The texts of a recipe: parsed, put in order, and checked on the branches that there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mlaas4hep_dask.derive.expression import Expression
from mlaas4hep_dask.errors import ExpressionError, did_you_mean, nearest
from mlaas4hep_dask.events.events import Branch


@contextmanager
def at_key(key: str) -> Iterator[None]:
    """Add the key of a text to errors that pass through."""
    try:
        yield
    except ExpressionError as error:
        if "key" in error.facts:
            raise
        raise ExpressionError(error.message, **{**error.facts, "key": key}) from None


def label(cut: Expression) -> str:
    """The text of a condition, without parentheses around all of it."""
    text = cut.written
    if text.startswith("(") and text.endswith(")") and _encloses(text):
        return text[1:-1]
    return text


def parsed(text: str, key: str) -> Expression:
    """The expression of a text that stands at a key."""
    with at_key(key):
        return Expression(text)


def in_order(derived: Mapping[str, Expression]) -> list[str]:
    """The names, each after those that it needs."""
    ordered: dict[str, None] = {}
    for first in derived:
        path: list[str] = []
        stack = [(first, False)]
        while stack:
            name, is_complete = stack.pop()
            if is_complete:
                path.pop()
                ordered[name] = None
                continue
            if name in ordered:
                continue
            if name in path:
                circle = " -> ".join([*path[path.index(name) :], name])
                raise ExpressionError(
                    f"derived branch {name!r} needs itself: {circle}",
                    key=f"derive.{name}",
                    name=name,
                )
            path.append(name)
            stack.append((name, True))
            stack.extend((other, False) for other in derived[name].names if other in derived)
    return list(ordered)


def require_mask(mask: Expression, collection: str, branches: Mapping[str, Branch]) -> None:
    """Raise an ExpressionError unless there is one condition per object of a collection."""
    collections = {each.collection for each in branches.values() if each.collection is not None}
    if collection not in collections:
        raise ExpressionError(
            f"there is no collection {collection!r}{did_you_mean(collection, collections)}",
            name=collection,
            nearest=nearest(collection, collections),
        )
    result = mask.result(collection, branches)
    if result.collection != collection or result.dtype != "bool":
        what = "one value per event" if result.collection is None else f"{result.collection!r}"
        what = what if result.dtype == "bool" else f"numbers ({result.dtype})"
        raise ExpressionError(
            f"in {mask.written!r}: expected a condition on the objects of {collection!r}, "
            f"found {what}"
        )


def require_cut(cut: Expression, branches: Mapping[str, Branch]) -> None:
    """Raise an ExpressionError unless there is one condition per event."""
    result = cut.result("select", branches)
    if result.collection is not None:
        raise ExpressionError(
            f"in {cut.written!r}: expected one condition per event, found one per object of "
            f"{result.collection!r}; any() or all() of it is one"
        )
    if result.dtype != "bool":
        raise ExpressionError(
            f"in {cut.written!r}: expected a condition, found numbers ({result.dtype}); "
            "compare them"
        )


def _encloses(text: str) -> bool:
    """True when the first parenthesis ends with the text."""
    depth = 0
    for place, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return place == len(text) - 1
    return False
