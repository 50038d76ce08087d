"""Expressions over the branches of events: one number per event, or one per object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.derive import functions
from mlaas4hep_dask.derive.grammar import Apply, Name, Node, Number, Pick, Slice, parse, shown
from mlaas4hep_dask.errors import ExpressionError, did_you_mean, nearest
from mlaas4hep_dask.specs.events import Branch, Events, offsets_of

EVENT = None  # the collection of a value that an event has once


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

    Parameters
    ----------
    text : str
        The expression.

    Raises
    ------
    ExpressionError
        When the text is no expression.
    """

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        with _named(self.text):
            self._root = parse(self.text)

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __reduce__(self) -> tuple[type[Expression], tuple[str]]:
        return Expression, (self.text,)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The branches that it reads, in alphabetical order."""
        return tuple(sorted({node.name for node in _names(self._root)}))

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
        evaluation = _Evaluation(events)
        with _named(self.text), np.errstate(all="ignore"):
            found = evaluation.of(self._root)
            if not isinstance(found.values, np.ndarray):
                # not NumPy's int64: a whole number may be as large as uint64
                found = _Operand(np.full(events.num_events, found.values), EVENT)
        offsets = None if found.collection is EVENT else evaluation.offsets[found.collection]
        return Value(found.values, found.collection, offsets)

    def evaluate(self, events: Events) -> NDArray[Any] | tuple[NDArray[Any], str]:
        """Values of shape (events,); or of shape (objects,) and the collection's name.

        The parameters and errors are those of `value`.
        """
        values, collection, _ = self.value(events)
        return values if collection is EVENT else (values, collection)

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
                f"in {self.text!r}: one value per event was expected, this has one per object of "
                f"{collection!r}; any(), all(), sum(), count(), min(), max() or [:, 0] make one",
                expression=self.text,
            )
        return values

    def result(self, name: str, available: Mapping[str, Branch]) -> Branch:
        """The branch ``name`` that the expression makes of ``available`` ones.

        Raises
        ------
        ExpressionError
            When it cannot be evaluated on such branches.
        """
        with _named(self.text):
            for node in _names(self._root):
                if node.name not in available:
                    raise _absent(node, available)
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


class _Operand(NamedTuple):
    values: Any  # an array, or a Python number
    collection: str | None

    @property
    def kind(self) -> str:
        """The kind character of the dtype."""
        values = self.values
        return str(values.dtype.kind) if isinstance(values, np.ndarray) else _KINDS[type(values)]


_KINDS = {bool: "b", int: "i", float: "f"}
_MEANING = {"b": "a condition", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}


class _Evaluation:
    """Evaluates the nodes of an expression for some events."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.collections = {branch.name: branch.collection for branch in events.branches}
        self.offsets = dict(events.offsets)

    def of(self, node: Node) -> _Operand:
        match node:
            case Number(value):
                return _Operand(value, EVENT)
            case Name(name):
                if name not in self.collections:
                    raise _absent(node, self.collections)
                return _Operand(self.events.contents[name], self.collections[name])
            case Pick(operand, index):
                of = self.objects(self.of(operand), f"[:, {index}]")
                values = functions.picked(_floating(of.values), self.offsets_of(of), index)
                return _Operand(values, EVENT)
            case Slice(operand, start, stop):
                of = self.objects(self.of(operand), "a slice")
                bounds = ":".join("" if bound is None else str(bound) for bound in (start, stop))
                positions, counts = functions.in_slice(self.offsets_of(of), start, stop)
                return self.subset(of.values[positions], counts, f"{of.collection}[:, {bounds}]")
            case Apply("chosen", (operand, mask)):
                return self.chosen(self.of(operand), self.of(mask), shown(mask))
            case Apply(name, operands):
                return self.applied(name, [self.of(operand) for operand in operands])

    def applied(self, name: str, operands: list[_Operand]) -> _Operand:
        if name in functions.ARITHMETIC:
            return self.elementwise(functions.ARITHMETIC[name], operands, dtype=np.float64)
        if name == "-":
            if len(operands) == 1:
                return self.elementwise(lambda x: np.negative(_floating(x)), operands)
            return self.elementwise(np.subtract, operands, dtype=np.float64)
        if name in functions.COMPARISONS:
            if len({operand.kind == "b" for operand in operands}) > 1:
                operands = [_number(operand) for operand in operands]
            return self.elementwise(functions.COMPARISONS[name], operands)
        if name in functions.LOGIC or name == "!":
            return self.logical(name, operands)
        if name in functions.EXACT:
            exact = functions.EXACT[name]
            return self.elementwise(lambda x: exact(_floating(x)), operands)
        if name in functions.TESTS:
            return self.elementwise(functions.TESTS[name], operands)
        if name in functions.EXTREMES and len(operands) > 1:
            extreme = functions.EXTREMES[name]
            return self.elementwise(
                lambda *given: _over(extreme, [_floating(x) for x in given]), operands
            )
        if name == "delta_phi":
            return self.elementwise(functions.delta_phi, operands)
        if name == "where":
            if operands[0].kind != "b":
                raise _wrong("where()", "a condition", operands[0])
            return self.elementwise(functions.where, operands)
        return self.reduced(name, self.objects(operands[0], f"{name}()"))

    def reduced(self, name: str, operand: _Operand) -> _Operand:
        values, offsets = operand.values, self.offsets_of(operand)
        is_condition = operand.kind == "b"
        if name in ("any", "all"):
            if not is_condition:
                raise _wrong(f"{name}()", "a condition", operand)
            reduce = functions.any_of if name == "any" else functions.all_of
            return _Operand(reduce(values, offsets), EVENT)
        if name in functions.EXTREMES:
            return _Operand(functions.extremes(name, _floating(values), offsets), EVENT)
        if name == "count":
            counts = functions.sums(values, offsets) if is_condition else np.diff(offsets)
            return _Operand(counts, EVENT)
        sums = functions.sums(values, offsets)
        if name == "mean":
            return _Operand(np.divide(sums, np.diff(offsets), dtype=np.float64), EVENT)
        return _Operand(sums, EVENT)

    def logical(self, name: str, operands: list[_Operand]) -> _Operand:
        kinds = {operand.kind for operand in operands}
        if name == "!":
            if kinds != {"b"}:
                raise _wrong("'!'", "a condition", operands[0])
            return self.elementwise(np.logical_not, operands)
        if kinds == {"b"}:
            return self.elementwise(functions.LOGIC[name], operands)
        if kinds <= {"i", "u"}:  # whole numbers are flags of bits
            return self.elementwise(partial(functions.bitwise, name), operands)
        wrong = max(operands, key=lambda operand: "biuf".index(operand.kind))
        hint = ""
        if kinds <= {"b", "i", "u"}:
            hint = f" beside a condition; bits are compared in parentheses: (x {name} 1) > 0"
        raise _wrong(f"{name!r}", "a condition or whole numbers on both sides", wrong, hint)

    def chosen(self, operand: _Operand, mask: _Operand, text: str) -> _Operand:
        self.objects(operand, "[condition]")
        if mask.kind != "b":
            hint = ""
            if not isinstance(mask.values, np.ndarray):
                hint = f"; one object of every event is [:, {mask.values}]"
            raise _wrong("[]", "a condition", mask, hint)
        if mask.collection != operand.collection:
            raise ExpressionError(
                f"objects of {operand.collection!r} are chosen by a condition on them, found one "
                f"on {_whose(mask.collection)}"
            )
        counts = functions.sums(mask.values, self.offsets_of(operand))
        return self.subset(operand.values[mask.values], counts, f"{operand.collection}[{text}]")

    def subset(self, values: NDArray[Any], counts: NDArray[Any], collection: str) -> _Operand:
        self.offsets[collection] = offsets_of(counts)
        return _Operand(values, collection)

    def elementwise(self, function: Any, operands: list[_Operand], **options: Any) -> _Operand:
        """A function of values that belong together, one by one."""
        collections = list(dict.fromkeys(o.collection for o in operands if o.collection))
        if len(collections) > 1:
            raise ExpressionError(
                f"objects of {collections[0]!r} and of {collections[1]!r} cannot be combined one "
                "by one"
            )
        collection = collections[0] if collections else EVENT
        arrays = []
        for operand in operands:
            values = operand.values
            is_array = isinstance(values, np.ndarray)
            if is_array and collection is not EVENT and operand.collection is EVENT:
                values = np.repeat(values, np.diff(self.offsets[collection]))
            arrays.append(values)
        found = function(*arrays, **options)
        if all(not isinstance(values, np.ndarray) for values in arrays):
            found = np.asarray(found).item()
        return _Operand(found, collection)

    def objects(self, operand: _Operand, what: str) -> _Operand:
        if operand.collection is EVENT:
            raise ExpressionError(f"{what} needs one value per object, found one per event")
        return operand

    def offsets_of(self, operand: _Operand) -> NDArray[np.int64]:
        assert operand.collection is not None  # `objects` has seen to it
        return self.offsets[operand.collection]


def _floating(values: Any) -> Any:
    """The same numbers as floating-point ones."""
    if isinstance(values, np.ndarray):
        return values if values.dtype.kind == "f" else values.astype(np.float64)
    return float(values)


def _number(operand: _Operand) -> _Operand:
    """A condition as 0 and 1; NumPy compares one with no whole number beyond int64."""
    if operand.kind != "b":
        return operand
    values = operand.values
    values = values.astype(np.int8) if isinstance(values, np.ndarray) else int(values)
    return _Operand(values, operand.collection)


def _over(function: Any, arrays: list[Any]) -> Any:
    found = arrays[0]
    for other in arrays[1:]:
        found = function(found, other)
    return found


def _wrong(what: str, expected: str, found: _Operand, hint: str = "") -> ExpressionError:
    return ExpressionError(f"{what} needs {expected}, found {_MEANING[found.kind]}{hint}")


def _whose(collection: str | None) -> str:
    return "events" if collection is EVENT else f"objects of {collection!r}"


def _absent(node: Name, available: Mapping[str, Any]) -> ExpressionError:
    candidates = [*available, *functions.CONSTANTS]  # Python's True is true here
    return ExpressionError(
        f"column {node.column}: there is no branch {node.name!r}"
        f"{did_you_mean(node.name, candidates)}",
        name=node.name,
        column=node.column,
        nearest=nearest(node.name, candidates),
    )


def _names(node: Node) -> Iterator[Name]:
    match node:
        case Name():
            yield node
        case Pick(operand) | Slice(operand):
            yield from _names(operand)
        case Apply(_, operands):
            for operand in operands:
                yield from _names(operand)


def _conjuncts(node: Node) -> Iterator[Node]:
    match node:
        case Apply("&", operands):
            for operand in operands:
                yield from _conjuncts(operand)
        case _:
            yield node


class _named:  # noqa: N801  # reads as a statement: with _named(text)
    """Adds the expression to errors that pass through."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, ExpressionError):
            short = self._text if len(self._text) <= 100 else f"{self._text[:97]}..."
            message = f"in {short!r}: {error.message}"
            raise ExpressionError(message, **{**error.facts, "expression": self._text}) from None
