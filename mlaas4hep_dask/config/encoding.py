"""The section ``encode`` of dataset.yaml: normalisation, widths and order of objects."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from mlaas4hep_dask.config.problems import CALLABLE, Problem, describe, invalid
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.errors import either, nearest
from mlaas4hep_dask.formulas import FUNCTIONS, NAMES, NUMBERS, OUT_OF_RANGE, SCALES

_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 2}
_HOW_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"enum": list(NAMES)},
        {"type": "string", "pattern": CALLABLE},
        *(
            {
                "type": "object",
                "properties": {**dict.fromkeys(keys, of_each), "missing": {"type": "number"}},
                "required": [*keys],
                "additionalProperties": False,
            }
            for keys, of_each in zip(NUMBERS, ({"type": "number"}, _NUMBERS), strict=True)
        ),
    ]
}
_OUT_OF_RANGE_SCHEMA: dict[str, Any] = {"anyOf": [{"enum": list(OUT_OF_RANGE)}]}
_WIDTH_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"const": "max"},
        {"type": "integer", "minimum": 1},
        {
            "type": "object",
            "properties": {"quantile": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}},
            "required": ["quantile"],
            "additionalProperties": False,
        },
    ]
}


def _rules(value: Any, check: Callable[[Any], Problem | None]) -> Any:
    """A mapping from patterns to values as a list, in which the order of patterns counts."""
    entries = value if isinstance(value, list) else [value]
    pairs: list[tuple[str, str, Any]] = []
    problems = []
    for index, entry in enumerate(entries):
        at = f"{index}." if isinstance(value, list) else ""
        if isinstance(entry, dict) and entry:
            pairs.extend((f"{at}{pattern}", pattern, how) for pattern, how in entry.items())
        else:
            text = f"expected a mapping from patterns, found {describe(entry)}"
            problems.append(Problem(at.rstrip("."), text))
    if not entries:
        problems.append(Problem("", "expected at least one entry, found an empty list"))
    for key, _, how in pairs:
        if (problem := check(how)) is not None:
            inner = ".".join(filter(None, (key, problem.key)))
            problems.append(Problem(inner, problem.text, problem.nearest))
    if problems:
        raise invalid(*problems)
    return [{pattern: how} for _, pattern, how in pairs]


def _checked(
    check: Callable[[Any], Problem | None], *, of_one: Sequence[str] = ()
) -> BeforeValidator:
    """Checks a value for all names, perhaps a mapping with these keys; or makes rules of it."""

    def checked(value: Any) -> Any:
        is_one = isinstance(value, dict) and value.keys() == {*of_one}
        if isinstance(value, dict | list) and not is_one:
            return _rules(value, check)
        if (problem := check(value)) is not None:
            raise invalid(problem)
        return value

    return BeforeValidator(checked)


def _by_pattern(schema: dict[str, Any], *examples: Any) -> WithJsonSchema:
    """The schema of a value for all names, or of values by pattern."""
    by_pattern = {"type": "object", "additionalProperties": schema, "minProperties": 1}
    listed = {"type": "array", "items": by_pattern, "minItems": 1}
    whole = {"anyOf": [*schema["anyOf"], by_pattern, listed], "examples": list(examples)}
    return WithJsonSchema(whole, mode="validation")


def _numbers_for_all(value: Any) -> Any:
    return {"*": value} if _has_numbers(value) else value


def _has_numbers(how: Any) -> bool:
    return isinstance(how, dict) and how.keys() - {"missing"} in map(set, NUMBERS)


def _normalisation_problem(how: Any) -> Problem | None:
    if _has_numbers(how):
        numbers = list(how.values())
        flat = [n for part in numbers for n in (part if isinstance(part, list) else [part])]
        if all(_is_number(n) for n in flat):
            return None
        return Problem("", "expected finite numbers")
    if isinstance(how, str) and (how in NAMES or re.match(CALLABLE, how)):
        return None
    near = nearest(how, NAMES) if isinstance(how, str) else None
    expected = f"{', '.join(map(repr, NAMES))}, 'module:callable', shift and scale, or x and y"
    return Problem("", f"expected {expected}, found {describe(how)}", near)


def _width_problem(width: Any) -> Problem | None:
    if width == "max" or (type(width) is int and width >= 1):
        return None
    if isinstance(width, dict) and width.keys() == {"quantile"}:
        fraction = width["quantile"]
        if _is_number(fraction) and 0 < fraction <= 1:
            return None
        text = f"expected more than 0 and at most 1, found {describe(fraction)}"
        return Problem("quantile", text)
    near = nearest(width, ["max"]) if isinstance(width, str) else None
    expected = "'max', a number of objects, or a mapping with the key 'quantile'"
    return Problem("", f"expected {expected}, found {describe(width)}", near)


def _out_of_range_problem(value: Any) -> Problem | None:
    if isinstance(value, str) and value in OUT_OF_RANGE:
        return None
    near = nearest(value, OUT_OF_RANGE) if isinstance(value, str) else None
    return Problem("", f"expected {either(map(repr, OUT_OF_RANGE))}, found {describe(value)}", near)


def clipped_by_default(out_of_range: Any) -> Any:
    """The rules with ``clip`` for branches that no pattern matches; other values as they are."""
    rules = out_of_range if isinstance(out_of_range, list) else [out_of_range]
    if not all(isinstance(rule, dict) for rule in rules) or any("*" in rule for rule in rules):
        return out_of_range
    return [*rules, {"*": "clip"}]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


class Encoding(Section):
    """How jagged events become rows of numbers."""

    normalisation: Annotated[
        Any,
        _by_pattern(_HOW_SCHEMA, "standard", {"*_pt": "log-standard", "*_phi": "none"}),
        _checked(_normalisation_problem),
        BeforeValidator(_numbers_for_all),
    ] = Field(
        default="auto",
        description="How the values of a branch become numbers near 0: auto, which follows from "
        f"its quantiles; {either(SCALES)}, after {either(FUNCTIONS)}; module:callable; "
        "fixed numbers; or a mapping from patterns of branches to these, in which the first that "
        "matches holds.",
    )
    width: Annotated[
        Any,
        _by_pattern(_WIDTH_SCHEMA, "max", 16, {"Jet": {"quantile": 0.99}, "Muon": 4}),
        _checked(_width_problem, of_one=["quantile"]),
    ] = Field(
        default="max",
        description="Objects kept per collection: max for all, a number, or a quantile of the "
        "multiplicities; or a mapping from patterns of collections to these. Objects beyond are "
        "counted as truncated.",
    )
    sort: dict[str, str] = Field(
        default={},
        description="By collection: the branch that its objects are sorted by, with - in front "
        "for the largest first.",
        examples=[{"Jet": "-Jet_pt"}],
    )
    out_of_range: Annotated[
        Any,
        _by_pattern(_OUT_OF_RANGE_SCHEMA, "clip", {"*_pt": "clip", "*_phi": "pass"}),
        _checked(_out_of_range_problem),
    ] = Field(
        default="pass",
        description="What happens to a value outside the range of the specs, pass or clip; or a "
        "mapping from patterns of branches to these. It is counted either way.",
    )

    def callables(self) -> list[str]:
        """The references ``module:callable`` in ``normalisation``."""
        rules = self.normalisation
        hows = [rules] if isinstance(rules, str) else [h for rule in rules for h in rule.values()]
        return [how for how in hows if isinstance(how, str) and ":" in how]
