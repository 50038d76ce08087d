"""Expressions over the branches of events: one number per event, or one per object."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.derive.binding import bound
from mlaas4hep_dask.derive.evaluation import EVENT, NUMBERS_OF_IT, Evaluation, Operand, absent
from mlaas4hep_dask.derive.grammar import Apply, Name, Node, Pick, Slice, parse, shown
from mlaas4hep_dask.derive.momenta import Momenta
from mlaas4hep_dask.errors import ExpressionError
from mlaas4hep_dask.events.events import Branch, Events


class Value(NamedTuple):
    """What an expression is for some events.

    Parameters
    ----------
    values : ndarray, shape (events,) or (objects,)
        One value per event, or one per object of the collection.
    collection : str or None
        None for one value per event. The objects that ``Jet_pt[Jet_pt > 30]`` leaves are a
        collection of their own, called ``Jet[(Jet_pt > 30)]``.
    offsets : ndarray of int64, shape (events + 1,), or None
        Where each event's objects begin.
    """

    values: NDArray[Any]
    collection: str | None
    offsets: NDArray[np.int64] | None


class Expression:
    """An expression such as ``sum(Jet_pt[abs(Jet_eta) < 2.4])``.

    Arithmetic is that of float64. Comparisons are made in the branch's own precision. Logic
    (``&`` ``|`` ``!``, also written ``&&`` ``||`` ``and`` ``or`` ``not``) binds weaker than
    comparisons. Values of an event are repeated for its objects where both occur. The object that
    an event lacks is NaN, and so are extremes and means of no object.

    ``Muon`` in ``mass(Muon[:, 0] + Muon[:, 1])`` stands for the momenta of objects. Which branches
    these are made of is known once the branches that there are: `bound` writes them out.

    Parameters
    ----------
    text : str
        The expression.
    written : str, optional
        What the user wrote for it, if that was something else.

    Raises
    ------
    ExpressionError
        When the text is no expression.
    """

    def __init__(self, text: str, written: str = "") -> None:
        self.text = text.strip()
        self.written = written or self.text
        with _named(self.written):
            self._root = parse(self.text)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __reduce__(self) -> tuple[type[Expression], tuple[str, str]]:
        return Expression, (self.text, self.written)

    def bound(self, available: Collection[str]) -> Expression:
        """The expression with the branches in place of the objects whose momenta it uses.

        Parameters
        ----------
        available : collection of str
            Names of the branches that there are.

        Raises
        ------
        ExpressionError
            When there are none to make the momenta of.
        """
        with _named(self.written):
            root = bound(self._root, available)
            text = shown(root)
            return self if text == self.written_out else Expression(text, self.written)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The branches that it reads, in alphabetical order."""
        return tuple(sorted({node.name for node in _names(self._root)}))

    @cached_property
    def counted(self) -> tuple[str, ...]:
        """The branches of which ``count()`` takes the number of objects, in alphabetical order."""
        calls = _calls_of("count", self._root)
        return tuple(sorted({node.name for call in calls for node in _names(call)}))

    @cached_property
    def conjuncts(self) -> tuple[Expression, ...]:
        """The conditions that ``&`` joins at the top, in order; the expression if there is none."""
        nodes = tuple(_conjuncts(self._root))
        return tuple(map(Expression, map(shown, nodes))) if len(nodes) > 1 else (self,)

    @cached_property
    def written_out(self) -> str:
        """The text with all its parentheses, whatever was written for ``&`` and the like."""
        return shown(self._root)

    def value(self, events: Events) -> Value:
        """The values for some events, with the collection that they belong to.

        Parameters
        ----------
        events : Events
            Events with at least the branches in ``names``.

        Raises
        ------
        ExpressionError
            When a branch is absent, or an operand has the wrong kind or collection.
        """
        evaluation = Evaluation(events)
        with _named(self.written), np.errstate(all="ignore"):
            result = evaluation.of(self._root)
            if isinstance(result.values, Momenta):
                raise ExpressionError(
                    f"numbers were expected, found momenta; {NUMBERS_OF_IT} make numbers"
                )
            if not isinstance(result.values, np.ndarray):
                # not NumPy's int64: a whole number may be as large as uint64
                result = Operand(np.full(events.num_events, result.values), EVENT)
        offsets = None if result.collection is EVENT else evaluation.offsets[result.collection]
        return Value(result.values, result.collection, offsets)

    def per_event(self, events: Events) -> NDArray[Any]:
        """Values of shape (events,).

        Raises
        ------
        ExpressionError
            As `value`, and when the expression has one value per object.
        """
        values, collection, _ = self.value(events)
        if collection is not EVENT:
            raise ExpressionError(
                f"in {self.written!r}: one value per event was expected, this has one per object "
                f"of {collection!r}; any(), all(), sum(), count(), min(), max() or [:, 0] make one",
                expression=self.written,
            )
        return values

    def result(self, name: str, available: Mapping[str, Branch]) -> Branch:
        """The branch ``name`` that the expression makes of ``available`` ones.

        Raises
        ------
        ExpressionError
            When it cannot be evaluated on such branches.
        """
        with _named(self.written):
            for node in _names(self._root):
                if node.name not in available:
                    raise absent(node, available)
        values, collection, _ = self.value(no_events([available[name] for name in self.names]))
        return Branch(
            name, "flat" if collection is EVENT else "jagged", values.dtype.name, collection
        )


def no_events(branches: list[Branch]) -> Events:
    """Zero events with the given branches, on which expressions are tried."""
    contents = {branch.name: np.empty(0, dtype=branch.dtype) for branch in branches}
    collections = {branch.collection for branch in branches if branch.collection is not None}
    offsets = {collection: np.zeros(1, dtype=np.int64) for collection in collections}
    return Events(0, tuple(branches), contents, offsets)


def _names(node: Node) -> Iterator[Name]:
    match node:
        case Name():
            yield node
        case Pick(operand) | Slice(operand):
            yield from _names(operand)
        case Apply(_, operands):
            for operand in operands:
                yield from _names(operand)


def _calls_of(function: str, node: Node) -> Iterator[Apply]:
    match node:
        case Pick(operand) | Slice(operand):
            yield from _calls_of(function, operand)
        case Apply(name, operands):
            if name == function:
                yield node
            for operand in operands:
                yield from _calls_of(function, operand)


def _conjuncts(node: Node) -> Iterator[Node]:
    match node:
        case Apply("&", operands):
            for operand in operands:
                yield from _conjuncts(operand)
        case _:
            yield node


@contextmanager
def _named(text: str) -> Iterator[None]:
    """Adds the expression to errors that pass through."""
    try:
        yield
    except ExpressionError as error:
        short = text if len(text) <= 100 else f"{text[:97]}..."
        message = f"in {short!r}: {error.message}"
        raise ExpressionError(message, **{**error.facts, "expression": text}) from None
