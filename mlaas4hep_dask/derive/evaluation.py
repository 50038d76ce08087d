"""What the nodes of an expression are for some events."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.derive import functions, momenta
from mlaas4hep_dask.derive.grammar import Apply, Name, Node, Number, Pick, Slice, shown
from mlaas4hep_dask.derive.momenta import Momenta, members_of
from mlaas4hep_dask.derive.whole import arithmetic
from mlaas4hep_dask.errors import ExpressionError, did_you_mean, nearest
from mlaas4hep_dask.events.events import Events, offsets_of

MAX_NAMED = 5
EVENT = None  # the collection of a value that an event has once


class Operand(NamedTuple):
    """A value inside of an expression, one per event or per object of a collection."""

    values: Any  # an array, momenta, or a Python number
    collection: str | None

    @property
    def kind(self) -> str:
        """The kind character of the dtype."""
        values = self.values
        return str(values.dtype.kind) if isinstance(values, np.ndarray) else _KINDS[type(values)]

    def of_each(self, function: Any) -> Any:
        """The values, or the components of the momenta, after a function that moves them."""
        values = self.values
        return values.of_each(function) if isinstance(values, Momenta) else function(values)


_KINDS = {bool: "b", int: "i", float: "f", Momenta: "p"}
_MEANING = {
    "b": "a condition",
    "i": "whole numbers",
    "u": "whole numbers",
    "f": "numbers",
    "p": "momenta",
}
NUMBERS_OF_IT = "mass(), pt(), eta(), phi() or energy() of them"


class Evaluation:
    """Evaluates the nodes of an expression for some events."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.collections = {branch.name: branch.collection for branch in events.branches}
        self.offsets = dict(events.offsets)

    def of(self, node: Node) -> Operand:
        """The value of a node.

        Raises
        ------
        ExpressionError
            When a branch is absent, or an operand has the wrong kind or collection.
        """
        match node:
            case Number(value):
                return Operand(value, EVENT)
            case Name(name):
                if name not in self.collections:
                    raise absent(node, self.collections)
                return Operand(self.events.contents[name], self.collections[name])
            case Pick(operand, index):
                of = self._objects(self.of(operand), f"[:, {index}]")
                offsets = self._offsets_of(of)
                values = of.of_each(lambda x: functions.picked(_floating(x), offsets, index))
                return Operand(values, EVENT)
            case Slice(operand, start, stop):
                of = self._objects(self.of(operand), "a slice")
                bounds = ":".join("" if bound is None else str(bound) for bound in (start, stop))
                positions, multiplicities = functions.in_slice(self._offsets_of(of), start, stop)
                part = of.of_each(lambda x: x[positions])
                return self._subset(part, multiplicities, f"{of.collection}[:, {bounds}]")
            case Apply("chosen", (operand, mask)):
                return self._chosen(self.of(operand), self.of(mask), shown(mask))
            case Apply(name, operands):
                return self._applied(name, [self.of(operand) for operand in operands])

    def _applied(self, name: str, operands: list[Operand]) -> Operand:
        if any(operand.kind == "p" for operand in operands) or name in _OF_MOMENTA:
            return self._of_momenta(name, operands)
        if name in functions.ARITHMETIC:
            return self._elementwise(partial(arithmetic, functions.ARITHMETIC[name]), operands)
        if name == "-":
            if len(operands) == 1:
                return self._elementwise(lambda x: np.negative(_floating(x)), operands)
            return self._elementwise(partial(arithmetic, np.subtract), operands)
        if name in functions.COMPARISONS:
            if len({operand.kind == "b" for operand in operands}) > 1:
                operands = [_number(operand) for operand in operands]
            return self._elementwise(functions.COMPARISONS[name], operands)
        if name in functions.LOGIC or name == "!":
            return self._logical(name, operands)
        if name in functions.EXACT:
            exact = functions.EXACT[name]
            return self._elementwise(lambda x: exact(_floating(x)), operands)
        if name in functions.TESTS:
            return self._elementwise(functions.TESTS[name], operands)
        if name in functions.EXTREMES and len(operands) > 1:
            extreme = functions.EXTREMES[name]
            return self._elementwise(
                lambda *values: _over(extreme, [_floating(x) for x in values]), operands
            )
        if name == "delta_phi":
            return self._elementwise(functions.delta_phi, operands)
        if name == "where":
            if operands[0].kind != "b":
                raise _wrong("where()", "a condition", operands[0])
            return self._elementwise(functions.where, operands)
        return self._reduced(name, self._objects(operands[0], f"{name}()"))

    def _of_momenta(self, name: str, operands: list[Operand]) -> Operand:
        """What is made of momenta, or momenta that are made of numbers."""
        if name in momenta.MADE or (name in ("mass", "delta_r") and len(operands) > 2):
            for operand in operands:
                if operand.kind not in "iuf":
                    raise _wrong(f"{name}()", "numbers", operand)
            makers = {"mass": momenta.mass_of, "delta_r": momenta.delta_r}
            return self._elementwise(momenta.MADE.get(name) or makers[name], operands)
        if name == "count":
            first = self._objects(operands[0], "count()")
            return Operand(np.diff(self._offsets_of(first)), EVENT)
        if name not in (*momenta.NUMBERS, *_OF_TWO, "sum", "where"):
            wrong = next(operand for operand in operands if operand.kind == "p")
            what = f"{name}()" if name.isidentifier() else f"{name!r}"
            raise _wrong(what, "numbers", wrong, f"; {NUMBERS_OF_IT} make numbers")
        condition, others = operands[:1], operands[1:]
        for operand in others if name == "where" else operands:
            if operand.kind != "p":
                what = f"{name}()" if name.isidentifier() else f"{name!r} of momenta"
                hint = "; p4(pt, eta, phi, mass) makes them"
                raise _wrong(what, "momenta", operand, hint)
        if name == "sum":
            of = self._objects(operands[0], "sum()")
            return Operand(of.values.sums(self._offsets_of(of)), EVENT)
        if name == "where":
            if condition[0].kind != "b":
                raise _wrong("where()", "a condition", condition[0])
            return self._elementwise(momenta.where, operands)
        if name == "-" and len(operands) == 1:
            raise _wrong("'-'", "two momenta", operands[0])
        function = momenta.NUMBERS.get(name) or _OF_TWO[name]
        return self._elementwise(function, operands)

    def _reduced(self, name: str, operand: Operand) -> Operand:
        values, offsets = operand.values, self._offsets_of(operand)
        is_condition = operand.kind == "b"
        if name in ("any", "all"):
            if not is_condition:
                raise _wrong(f"{name}()", "a condition", operand)
            reduce = functions.any_of if name == "any" else functions.all_of
            return Operand(reduce(values, offsets), EVENT)
        if name in functions.EXTREMES:
            return Operand(functions.extremes(name, _floating(values), offsets), EVENT)
        if name == "count":
            multiplicities = functions.sums(values, offsets) if is_condition else np.diff(offsets)
            return Operand(multiplicities, EVENT)
        sums = functions.sums(values, offsets)
        if name == "mean":
            return Operand(np.divide(sums, np.diff(offsets), dtype=np.float64), EVENT)
        return Operand(sums, EVENT)

    def _logical(self, name: str, operands: list[Operand]) -> Operand:
        kinds = {operand.kind for operand in operands}
        if name == "!":
            if kinds != {"b"}:
                raise _wrong("'!'", "a condition", operands[0])
            return self._elementwise(np.logical_not, operands)
        if kinds == {"b"}:
            return self._elementwise(functions.LOGIC[name], operands)
        if kinds <= {"i", "u"}:  # whole numbers are flags of bits
            return self._elementwise(partial(functions.bitwise, name), operands)
        wrong = max(operands, key=lambda operand: "biuf".index(operand.kind))
        hint = ""
        if kinds <= {"b", "i", "u"}:
            hint = f" beside a condition; bits are compared in parentheses: (x {name} 1) > 0"
        raise _wrong(f"{name!r}", "a condition or whole numbers on both sides", wrong, hint)

    def _chosen(self, operand: Operand, mask: Operand, text: str) -> Operand:
        self._objects(operand, "[condition]")
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
        multiplicities = functions.sums(mask.values, self._offsets_of(operand))
        part = operand.of_each(lambda x: x[mask.values])
        return self._subset(part, multiplicities, f"{operand.collection}[{text}]")

    def _subset(self, values: Any, multiplicities: NDArray[Any], collection: str) -> Operand:
        self.offsets[collection] = offsets_of(multiplicities)
        return Operand(values, collection)

    def _elementwise(self, function: Any, operands: list[Operand]) -> Operand:
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
            if _is_array(values) and collection is not EVENT and operand.collection is EVENT:
                multiplicities = np.diff(self.offsets[collection])
                values = operand.of_each(partial(np.repeat, repeats=multiplicities))
            arrays.append(values)
        result = function(*arrays)
        if not any(map(_is_array, arrays)) and not isinstance(result, Momenta):
            result = np.asarray(result).item()
        return Operand(result, collection)

    def _objects(self, operand: Operand, what: str) -> Operand:
        if operand.collection is EVENT:
            raise ExpressionError(f"{what} needs one value per object, found one per event")
        return operand

    def _offsets_of(self, operand: Operand) -> NDArray[np.int64]:
        assert operand.collection is not None  # `objects` has seen to it
        return self.offsets[operand.collection]


def _is_array(values: Any) -> bool:
    """False for a number, and for a momentum made of numbers."""
    return isinstance(values, np.ndarray | Momenta) and values.ndim > 0


def _floating(values: Any) -> Any:
    """The same numbers as floating-point ones."""
    if isinstance(values, np.ndarray):
        return values if values.dtype.kind == "f" else values.astype(np.float64)
    return float(values)


def _number(operand: Operand) -> Operand:
    """A condition as 0 and 1; NumPy compares one with no whole number beyond int64."""
    if operand.kind != "b":
        return operand
    values = operand.values
    values = values.astype(np.int8) if isinstance(values, np.ndarray) else int(values)
    return Operand(values, operand.collection)


def _over(function: Any, arrays: list[Any]) -> Any:
    result = arrays[0]
    for other in arrays[1:]:
        result = function(result, other)
    return result


def _wrong(what: str, expected: str, operand: Operand, hint: str = "") -> ExpressionError:
    return ExpressionError(f"{what} needs {expected}, found {_MEANING[operand.kind]}{hint}")


def _whose(collection: str | None) -> str:
    return "events" if collection is EVENT else f"objects of {collection!r}"


_OF_TWO: dict[str, Any] = {"+": operator.add, "-": operator.sub, "delta_r": momenta.delta_r}
_OF_MOMENTA = (*momenta.MADE, *momenta.NUMBERS, "delta_r")


def absent(node: Name, available: Mapping[str, Any]) -> ExpressionError:
    """The error that tells that there is no such branch."""
    candidates = [*available, *functions.CONSTANTS]  # Python's True is true here
    if members_of(node.name, available) is not None:
        raise ExpressionError(
            f"column {node.column}: {node.name!r} are objects, and numbers are needed; "
            f"mass({node.name}), pt({node.name}) and the like are numbers, and so are its branches",
            name=node.name,
            column=node.column,
        )
    inside = [name for name in available if name.startswith((f"{node.name}[", f"{node.name}."))]
    there = f"; it has {_listed(inside)}" if inside else did_you_mean(node.name, candidates)
    return ExpressionError(
        f"column {node.column}: there is no branch {node.name!r}{there}",
        name=node.name,
        column=node.column,
        nearest=nearest(node.name, candidates),
    )


def _listed(names: Sequence[str]) -> str:
    more = ", …" if len(names) > MAX_NAMED else ""
    return ", ".join(map(repr, names[:MAX_NAMED])) + more
