"""The options of `encode`: fitted to the branches, with users' functions turned into numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlaas4hep_dask.config import Encoding as EncodeKeys
from mlaas4hep_dask.config import Image, Places
from mlaas4hep_dask.encode.encoding import (
    Encoding,
    chosen,
    clipped_branches,
    normalisations_of,
    sorts_of,
)
from mlaas4hep_dask.encode.layout import width_rules
from mlaas4hep_dask.encode.rules import rules_of
from mlaas4hep_dask.encode.scaling import require_usable
from mlaas4hep_dask.errors import CodeError, DataError, EncodeError
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.formulas.names import LINE, TABLE
from mlaas4hep_dask.patterns import matches
from mlaas4hep_dask.specs import BranchSpecs, Specs
from mlaas4hep_dask.usercode import RAISED, UserCode, find_code, limited, where_of

Normaliser = Callable[[BranchSpecs], Any]


def check_encode(
    encode: EncodeKeys,
    inputs: Sequence[Branch],
    available: Mapping[str, Branch],
    places: Places,
    left_out: Mapping[str, str],
) -> tuple[Branch, ...]:
    """The branches to sort by that are no inputs, once all of ``encode`` fits the branches.

    Parameters
    ----------
    encode : Encoding
        The section of the configuration.
    inputs : sequence of Branch
        The inputs.
    available : mapping of str to Branch
        All branches that could be read.
    places : Places
        Where keys were written, for errors.
    left_out : mapping of str to str
        Branches that cannot be read, with the reason.

    Raises
    ------
    ConfigError
        When a pattern matches nothing, or a branch to sort by is not in its collection; names
        the line.
    """
    names = [branch.name for branch in inputs]
    collections = sorted({branch.collection for branch in inputs if branch.collection is not None})
    try:
        normalisations_of(encode.normalisation, names)
        for pattern, how in rules_of(encode.normalisation):
            if isinstance(how, Mapping):
                require_usable(pattern, how)
        clipped_branches(encode.out_of_range, names)
        width_rules(encode.width, collections)
        sorts = sorts_of(encode.sort, list(available.values()), collections)
    except EncodeError as error:
        key = f"encode.{error.option}.{error.pattern}"
        matched = [name for name in sorted(available) if matches(error.pattern, name)]
        hint = ""
        if matched and not set(matched) & set(names):
            hint = f"; {matched[0]!r} is not among the inputs that branches.include names"
        if error.option == "sort":
            name = str(encode.sort.get(error.pattern, "")).removeprefix("-")
            hint = f"; the branch {name!r} is {left_out[name]}" if name in left_out else hint
        raise places.error(key, f"encode.{error}{hint}") from error
    keys = {sort.branch.name: sort.branch for sort in sorts if sort.branch.name not in names}
    return tuple(keys[name] for name in sorted(keys))


def find_normalisers(references: Iterable[str], places: Places) -> dict[str, UserCode]:
    """The functions that ``encode.normalisation`` names, by their references.

    Parameters
    ----------
    references : iterable of str
        Each ``module:callable`` or ``file.py:callable``.
    places : Places
        Where files are, and where keys were written, for errors.

    Raises
    ------
    ConfigError
        When a function cannot be imported.
    """
    functions = {}
    for reference in sorted(set(references)):
        try:
            functions[reference] = find_code(reference, resolve=places.resolve)
            functions[reference].load()
        except CodeError as error:
            key = "encode.normalisation"
            raise places.error(key, f"{key}: {error.message}") from error
    return functions


def encode_options(
    encode: EncodeKeys,
    image: Image | None,
    specs: Specs,
    keys: Sequence[Branch],
    normalisers: Mapping[str, UserCode],
) -> dict[str, Any]:
    """Options of `Encoding.from_specs` as JSON values, which need no code of the user.

    Parameters
    ----------
    encode : Encoding
        The section of the configuration.
    image : Image or None
        What events become; None for rows.
    specs : Specs
        Specs of the whole data set; functions are called with those of one branch after the
        other, and what they return stands in the options.
    keys : sequence of Branch
        From `check_encode`.
    normalisers : mapping of str to UserCode
        From `find_normalisers`.

    Raises
    ------
    EncodeError
        When a function fails, or returns neither two numbers nor two lists.
    """
    options = encode.model_dump(mode="json")
    if image is not None:
        options["image"] = image.model_dump(mode="json")
    options["keys"] = [asdict(key) for key in keys]
    functions = {reference: code.load() for reference, code in normalisers.items()}
    hows = chosen(options["normalisation"], specs, options.get("image"))
    by_name = {
        name: _called(functions[how], how, specs.branches[name])
        if isinstance(how, str) and how in functions
        else how
        for name, how in hows.items()
    }
    # By name: what follows from specs is never found anew, by another version or elsewhere.
    options["normalisation"] = [{name: by_name[name]} for name in sorted(by_name)]
    return options


def _called(function: Normaliser, reference: str, specs: BranchSpecs) -> dict[str, Any]:
    """What a user's function says of a branch, as `scaling_of` takes it."""
    name = specs.branch.name
    if specs.min is None or specs.is_constant:
        return {"shift": specs.min or 0.0, "scale": 1.0}
    try:
        with limited():
            first, second = function(specs)
        is_table = hasattr(first, "__len__")
        keys = TABLE if is_table else LINE
        values = [
            list(map(float, value)) if is_table else float(value) for value in (first, second)
        ]
    except RAISED as error:  # whatever the user's code raises
        raise EncodeError(
            f"{reference} failed{where_of(error)} for branch {name!r} ({type(error).__name__}: "
            f"{error}); it returns shift and scale, or the x and y of a table",
            branch=name,
            option="normalisation",
        ) from error
    return dict(zip(keys, values, strict=True))


def with_columns(encoding: Encoding) -> Encoding:
    """The encoding; DataError when its rows have no column, which no network can learn from."""
    if encoding.image is None and not encoding.columns():
        names = ", ".join(branch.name for branch in encoding.branches)
        raise DataError(
            f"no selected event has an object in any of the inputs {names}: rows would have no "
            "column"
        )
    return encoding
