"""The grammar of expressions, and the tree that a text becomes.

The grammar is the white list: it has numbers, branches, operators, calls of named functions and
three kinds of subscript. Attributes, text, keywords and everything else of a programming language
cannot be written in it, so a hostile text is a syntax error and never reaches an evaluator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from mlaas4hep_dask.derive.functions import CONSTANTS, FUNCTIONS, TAKES
from mlaas4hep_dask.derive.habits import instead_of, instead_of_text
from mlaas4hep_dask.errors import ExpressionError, did_you_mean, nearest

MAX_LENGTH = 4096  # characters
MAX_DEPTH = 64  # of nested operations
PLAIN = re.compile(r"(?!.*__)[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")

# Logic binds weakest, as one reads it: nJet >= 4 & MET_pt > 100 has two conditions.
GRAMMAR = r"""
?start: disjunction
?disjunction: conjunction
    | disjunction ("|" | "||" | "or" | "OR") conjunction -> either
?conjunction: negation
    | conjunction ("&" | "&&" | "and" | "AND") negation -> both
?negation: comparison
    | ("!" | "~" | "not" | "NOT") negation -> invert
?comparison: sum
    | sum (COMPARISON sum)+ -> compare
?sum: product
    | sum ADDITIVE product -> binary
?product: sign
    | product MULTIPLICATIVE sign -> binary
?sign: power
    | "-" sign -> negative
    | "+" sign -> positive
?power: item
    | item POWER sign -> binary
?item: atom
    | item "[" disjunction "]" -> chosen
    | item "[" ":" "," INDEX "]" -> picked
    | item "[" ":" "," [INDEX] ":" [INDEX] "]" -> sliced
?atom: NUMBER -> number
    | NAME -> name
    | QUOTED -> name
    | NAME "(" [disjunction ("," disjunction)*] ")" -> call
    | "(" disjunction ")"

COMPARISON: "<=" | ">=" | "==" | "!=" | "<" | ">"
ADDITIVE: "+" | "-"
MULTIPLICATIVE: "//" | "*" | "/" | "%"
POWER.3: "**"
INDEX.2: /-?[0-9]+(?=\s*[\]:])/
NUMBER.1: /([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?(?![\w.])/
NAME: /[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*/
QUOTED: /`[^`\n]+`/
%ignore /\s+/
"""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written; ``nan``, ``pi``, ``true`` and their like are numbers too."""

    value: float | int | bool
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Name:
    """The branch of that name."""

    name: str
    column: int
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator or a function, applied to one or more operands."""

    name: str
    operands: tuple[Node, ...]
    depth: int


@dataclass(frozen=True, slots=True)
class Pick:
    """One object of every event, or NaN where the event has not that many."""

    operand: Node
    index: int
    depth: int


@dataclass(frozen=True, slots=True)
class Slice:
    """A range of every event's objects, with the meaning of Python's slices."""

    operand: Node
    start: int | None
    stop: int | None
    depth: int


Node = Number | Name | Apply | Pick | Slice


def parse(text: str) -> Node:
    """The tree of an expression.

    Raises
    ------
    ExpressionError
        When the text is too long, too deeply nested, no expression, or calls an unknown function.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"an expression of {len(text)} characters; at most {MAX_LENGTH} are accepted",
            expression=text[:100],
        )
    try:
        node: Node = cast("Any", _parser().parse(text))
    except UnexpectedInput as error:
        wrong = _syntax_error(text, error)
    except VisitError as error:
        if not isinstance(error.orig_exc, ExpressionError):
            raise
        wrong = error.orig_exc
    else:
        return node
    # Raised out here, without lark's error as its context, which cannot be pickled.
    wrong.__context__ = None
    raise wrong


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", transformer=_Builder(), maybe_placeholders=True)


def shown(node: Node) -> str:
    """The text of a tree with all its parentheses; equal for equal trees."""
    match node:
        case Number(value):
            text = str(value).lower()
            return f"({text})" if text.startswith("-") else text
        case Name(name):
            return name if PLAIN.fullmatch(name) and name not in CONSTANTS else f"`{name}`"
        case Pick(operand, index):
            return f"{shown(operand)}[:, {index}]"
        case Slice(operand, start, stop):
            bounds = ":".join("" if bound is None else str(bound) for bound in (start, stop))
            return f"{shown(operand)}[:, {bounds}]"
        case Apply("chosen", (operand, mask)):
            return f"{shown(operand)}[{shown(mask)}]"
        case Apply(name, operands):
            parts = [shown(operand) for operand in operands]
            if name in FUNCTIONS:
                return f"{name}({', '.join(parts)})"
            if len(parts) == 1:
                return f"({name}{parts[0]})"
            return f"({f' {name} '.join(parts)})"


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Makes nodes while the text is parsed, so that no tree is walked that may be too deep."""

    def number(self, token: Token) -> Node:
        text = str(token)
        # An event number has to be compared as it is written, and float64 ends at 2**53.
        is_whole = text.isdecimal() and len(text) <= 20 and int(text) < 2**64
        return Number(int(text) if is_whole else float(text))

    def name(self, token: Token) -> Node:
        name = str(token).strip("`")
        if "__" in name and not token.startswith("`"):
            raise ExpressionError(
                f"column {token.column}: {name!r} is refused: a name with two underscores "
                "in a row is written between backticks",
                name=name,
                column=token.column,
            )
        if name in CONSTANTS and not token.startswith("`"):
            return Number(CONSTANTS[name])
        return Name(name, token.column or 0)

    def call(self, token: Token, *operands: Any) -> Node:
        name = str(token)
        arguments = tuple(operand for operand in operands if operand is not None)
        if name not in FUNCTIONS:
            near = nearest(name, FUNCTIONS)
            hint = instead_of(name) or did_you_mean(name, FUNCTIONS)
            hint = hint or f"; known are {', '.join(FUNCTIONS)}"
            raise ExpressionError(
                f"column {token.column}: there is no function {name!r}{hint}",
                name=name,
                column=token.column,
                nearest=near,
            )
        low, high = FUNCTIONS[name]
        fits = low <= len(arguments) <= (high or len(arguments))
        if name == "delta_r":
            fits = len(arguments) in (2, 4)
        elif name == "mass":
            fits = len(arguments) == 1 or (len(arguments) > 0 and len(arguments) % 4 == 0)
        if not fits:
            expected = f"{low}" if high == low else f"{low} or more" if high is None else ""
            expected = TAKES.get(name, f"{expected or f'{low} to {high}'} arguments")
            raise ExpressionError(
                f"column {token.column}: {name}() takes {expected}, found {len(arguments)}",
                name=name,
                column=token.column,
            )
        return _apply(name, *arguments)

    def compare(self, first: Node, *rest: Any) -> Node:
        pairs = []
        for place in range(0, len(rest), 2):
            pairs.append(_apply(str(rest[place]), first, rest[place + 1]))
            first = rest[place + 1]
        together: Node = pairs[0]
        for pair in pairs[1:]:
            together = _apply("&", together, pair)
        return together

    def binary(self, left: Node, token: Token, right: Node) -> Node:
        return _apply(str(token), left, right)

    def either(self, left: Node, right: Node) -> Node:
        return _apply("|", left, right)

    def both(self, left: Node, right: Node) -> Node:
        return _apply("&", left, right)

    def invert(self, operand: Node) -> Node:
        return _apply("!", operand)

    def negative(self, operand: Node) -> Node:
        if isinstance(operand, Number):
            value = -operand.value
            return Number(value if value >= -(2**63) else float(value))
        return _apply("-", operand)

    def positive(self, operand: Node) -> Node:
        return operand

    def chosen(self, operand: Node, mask: Node) -> Node:
        return _apply("chosen", operand, mask)

    def picked(self, operand: Node, index: Token) -> Node:
        return Pick(operand, _index(index), _deeper(operand))

    def sliced(self, operand: Node, start: Token | None, stop: Token | None) -> Node:
        first, last = (None if bound is None else _index(bound) for bound in (start, stop))
        return Slice(operand, first, last, _deeper(operand))


def _index(token: Token) -> int:
    if len(token) > 9:
        raise ExpressionError(f"column {token.column}: no event has {token} objects")
    return int(token)


def _apply(name: str, *operands: Node) -> Node:
    return Apply(name, operands, _deeper(*operands))


def _deeper(*operands: Node) -> int:
    depth = 1 + max((operand.depth for operand in operands), default=0)
    if depth > MAX_DEPTH:
        raise ExpressionError(f"more than {MAX_DEPTH} nested operations")
    return depth


def _syntax_error(text: str, error: UnexpectedInput) -> ExpressionError:
    column = max(getattr(error, "column", -1), 1)
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        return ExpressionError("it ends too early", expression=text, column=len(text))
    if isinstance(error, UnexpectedCharacters | UnexpectedToken):
        rest = text.splitlines()[error.line - 1][column - 1 :] if text else ""
        hint = next((advice for start, advice in _ADVICE.items() if rest.startswith(start)), "")
        hint = instead_of_text(text, error.pos_in_stream or 0) or hint
        what = f"{rest[:20]!r} is not understood"
        return ExpressionError(f"column {column}: {what}{hint}", expression=text, column=column)
    return ExpressionError("it is not an expression", expression=text, column=column)


_ADVICE = {
    "^": "; a power is written **",
    "=": "; equality is written ==",
    "'": "; text is not accepted, and unusual branch names stand between backticks",
    '"': "; text is not accepted, and unusual branch names stand between backticks",
    ".": "; attributes are not accepted",
    "?": "; a choice is written where(condition, a, b)",
    "if ": "; a choice is written where(condition, a, b)",
    "in ": "; written out, x in (1, 2) is x == 1 | x == 2",
    ">": "; unequal is written !=, and attributes after -> are not accepted",
    "@": "; the number of objects is count(x)",
}
