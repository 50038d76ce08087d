"""The options of `encode`: fitted to the branches, with users' functions turned into numbers."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.encode.encoding import Encoding, clipped_branches, normalisations_of, sorts_of
from mlaas4hep_dask.encode.layout import width_rules
from mlaas4hep_dask.encode.rules import matches, rules_of
from mlaas4hep_dask.encode.scaling import require_usable
from mlaas4hep_dask.errors import ConfigError, DataError, EncodeError, did_you_mean
from mlaas4hep_dask.specs import Branch, BranchSpecs, Specs

Normaliser = Callable[[BranchSpecs], Any]


def check_encode(
    config: Config, inputs: Sequence[Branch], available: Mapping[str, Branch]
) -> tuple[Branch, ...]:
    """The branches to sort by that are no inputs, once all of ``encode`` fits the branches.

    Parameters
    ----------
    config : Config
        Its section ``encode`` is checked.
    inputs : sequence of Branch
        The inputs.
    available : mapping of str to Branch
        All branches that could be read.

    Raises
    ------
    ConfigError
        When a pattern matches nothing, a branch to sort by is not in its collection, or a
        function cannot be imported; names the line.
    """
    names = [branch.name for branch in inputs]
    collections = sorted({branch.collection for branch in inputs if branch.collection is not None})
    try:
        normalisations_of(config.encode.normalisation, names)
        for pattern, how in rules_of(config.encode.normalisation):
            if isinstance(how, Mapping):
                require_usable(pattern, how)
        clipped_branches(config.encode.out_of_range, names)
        width_rules(config.encode.width, collections)
        sorts = sorts_of(config.encode.sort, list(available.values()), collections)
    except EncodeError as error:
        key = f"encode.{error.option}.{error.pattern}"
        matched = [name for name in sorted(available) if matches(error.pattern, name)]
        hint = ""
        if matched and not set(matched) & set(names):
            hint = f"; {matched[0]!r} is not among the inputs that branches.include names"
        raise ConfigError(
            f"{config.where(key)}: encode.{error}{hint}", line=config.line_of(key), key=key
        ) from error
    find_normalisers(config)
    keys = {sort.branch.name: sort.branch for sort in sorts if sort.branch.name not in names}
    return tuple(keys[name] for name in sorted(keys))


def find_normalisers(config: Config) -> dict[str, Normaliser]:
    """The functions that ``encode.normalisation`` names, by their references.

    Raises
    ------
    ConfigError
        When a function cannot be imported.
    """
    return {
        reference: _find(reference, config) for reference in sorted(set(config.encode.callables()))
    }


def _find(reference: str, config: Config) -> Normaliser:
    module_name, _, name = reference.rpartition(":")
    try:
        if module_name.endswith(".py"):
            path = config.resolve(module_name)
            # Read anew each time: a notebook's user edits the file between two runs.
            spec = importlib.util.spec_from_file_location(f"_normalise_{path.stem}", path)
            assert spec is not None and spec.loader is not None  # noqa: PT018  # it ends in .py
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises at import
        reason = f"{type(error).__name__}: {error}"
        raise _error(config, reference, f"cannot be imported ({reason})") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise _error(config, reference, f"does not exist{did_you_mean(name, vars(module))}")
    return function  # type: ignore[no-any-return]


def source_digest(config: Config) -> str:
    """The sha256, in hex, of the files that the functions of ``encode.normalisation`` are in."""
    digest = hashlib.sha256()
    for reference, function in find_normalisers(config).items():
        digest.update(reference.encode())
        try:
            digest.update(inspect.getsource(inspect.unwrap(function)).encode())
        except (OSError, TypeError):  # compiled
            continue
    return digest.hexdigest()


def encode_options(config: Config, specs: Specs, keys: Sequence[Branch]) -> dict[str, Any]:
    """Options of `Encoding.from_specs` as JSON values, which need no code of the user.

    Parameters
    ----------
    config : Config
        The section ``encode``.
    specs : Specs
        Specs of the whole data set; functions are called with those of one branch after the
        other, and what they return stands in the options.
    keys : sequence of Branch
        From `check_encode`.

    Raises
    ------
    EncodeError
        When a function fails, or returns neither two numbers nor two lists.
    """
    options = config.encode.model_dump(mode="json")
    if config.image is not None:
        options["image"] = config.image.model_dump(mode="json")
    options["keys"] = [asdict(key) for key in keys]
    functions = find_normalisers(config)
    if functions:
        hows = normalisations_of(options["normalisation"], sorted(specs.branches))
        fixed = {
            name: _called(functions[how], how, specs.branches[name])
            for name, how in hows.items()
            if isinstance(how, str) and how in functions
        }
        rules = options["normalisation"]
        rest = [
            {pattern: how}
            for rule in ([] if isinstance(rules, str) else rules)
            for pattern, how in rule.items()
            if not (isinstance(how, str) and how in functions)
        ]
        options["normalisation"] = [{name: how} for name, how in fixed.items()] + rest
    return options


def _called(function: Normaliser, reference: str, specs: BranchSpecs) -> dict[str, Any]:
    """What a user's function says of a branch, as `scaling_of` takes it."""
    name = specs.branch.name
    if specs.min is None or specs.is_constant:
        return {"shift": specs.min or 0.0, "scale": 1.0}
    try:
        first, second = function(specs)
        is_table = hasattr(first, "__len__")
        keys = ("x", "y") if is_table else ("shift", "scale")
        values = [
            list(map(float, value)) if is_table else float(value) for value in (first, second)
        ]
    except Exception as error:  # whatever the user's code raises
        raise EncodeError(
            f"{reference} failed for branch {name!r} ({type(error).__name__}: {error}); it returns "
            "shift and scale, or the x and y of a table",
            branch=name,
            option="normalisation",
        ) from error
    return dict(zip(keys, values, strict=True))


def _error(config: Config, reference: str, what: str) -> ConfigError:
    key = "encode.normalisation"
    return ConfigError(
        f"{config.where(key)}: {key}: {reference} {what}", line=config.line_of(key), key=key
    )


def with_columns(encoding: Encoding) -> Encoding:
    """The encoding; DataError when its rows have no column, which no network can learn from."""
    if encoding.image is None and not encoding.columns():
        names = ", ".join(branch.name for branch in encoding.branches)
        raise DataError(
            f"no selected event has an object in any of the inputs {names}: rows would have no "
            "column"
        )
    return encoding
