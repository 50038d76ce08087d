"""Which branches of a tree are inputs, and why the others are not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mlaas4hep_dask.config.problems import Places
from mlaas4hep_dask.config.sections import Branches
from mlaas4hep_dask.errors import ConfigError, nearest
from mlaas4hep_dask.patterns import any_matches, matches


@dataclass(frozen=True)
class Selection:
    """What becomes of the branches of a tree; every list is in alphabetical order.

    Parameters
    ----------
    inputs
        Branches that the model sees.
    identifiers
        Branches that identify an event and are kept beside the inputs.
    excluded
        Branches that would be inputs or identifiers, had ``exclude`` not named them.
    left_out
        Branches that only wildcards ask for and that cannot be inputs, with the reason.
    targets
        Branches that would be inputs, did labels or targets not come from them.
    weights
        Branches that only wildcards ask for and that weights come from.
    told
        Inputs that ``include`` names though labels, targets or weights come from them, with what
        they tell of.
    named
        Inputs that ``include`` names, and not only matches.
    """

    inputs: list[str]
    identifiers: list[str]
    excluded: list[str]
    left_out: dict[str, str]
    targets: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    named: list[str] = field(default_factory=list)


def select_branches(
    branches: Branches,
    available: Mapping[str, str | None],
    places: Places,
    *,
    targets: Collection[str] = (),
    weights: Collection[str] = (),
    itself: Collection[str] = (),
    beside: Collection[str] = (),
    own_names: Mapping[str, str] | None = None,
) -> Selection:
    """Inputs and identifiers among the branches of a tree.

    ``exclude`` beats ``identifiers``, which beat ``include``. The result does not depend on the
    order of ``available``.

    Parameters
    ----------
    branches
        The section ``branches`` of the config.
    available
        Every branch of the tree, with None, or with the reason why it cannot be an input.
    places
        Where every key was written, for errors.
    targets
        Branches that tell of labels or targets: inputs only if ``include`` names them.
    weights
        Branches that tell of weights: inputs only if ``include`` names them.
    itself
        Branches that are the label or target itself: never inputs.
    beside
        Branches that may tell of targets: inputs only if ``include`` names them, or has a pattern
        for them that tells more than ``*``.
    own_names
        By branch of a friend tree: its name there, by which identifiers are known too.

    Raises
    ------
    ConfigError
        A name or a pattern in ``include`` or ``exclude`` matches no branch, a name in
        ``include`` cannot be an input or is a target, or no input is left.
    """
    included = _matched(branches.include, available, "branches.include", places)
    excluded = _matched(branches.exclude, available, "branches.exclude", places)
    names_there = own_names or {}
    identifying = {
        name
        for name in available
        if any_matches(branches.identifiers, name)
        or any_matches(branches.identifiers, names_there.get(name, name))
    }
    unfit = {name: reason for name, reason in available.items() if reason is not None}
    for index, name in enumerate(branches.include):
        if name in unfit and name not in excluded | identifying:
            text = f"branch {name!r} cannot be an input: {unfit[name]}"
            raise _error(f"branches.include.{index}", text, places)
        if name in itself and name not in excluded:
            text = f"branch {name!r} cannot be an input: target.branch reads it, as it is"
            raise _error(f"branches.include.{index}", text, places)
    requested = (included | identifying) - excluded
    patterns = [pattern for pattern in branches.include if pattern.strip("*?")]
    beside = {name for name in beside if not any_matches(patterns, name)}
    hidden = ({*targets, *weights} - set(branches.include)) | beside | set(itself)
    inputs = sorted(requested - identifying - unfit.keys() - hidden)
    if not inputs:
        reasons = [
            f"; branch {n!r} cannot be one: {unfit[n]}" for n in sorted(requested & unfit.keys())
        ]
        reasons += [f"; branch {n!r} is an identifier" for n in sorted(included & identifying)]
        reasons += [
            f"; {what} reads branch {n!r}, which is an input only if include names it"
            for what, sources in (("target.branch", targets), ("weight", weights))
            for n in sorted(requested & hidden & set(sources))
        ]
        reasons += [
            f"; branch {n!r} may tell of target.branch, and is an input only if include names it"
            for n in sorted(requested & beside)
        ]
        why = reasons[0] if reasons else ""
        text = f"no inputs are left of the {len(available)} branches of the tree{why}"
        raise _error("branches.include", text, places)
    return Selection(
        inputs=inputs,
        identifiers=sorted((requested & identifying) - unfit.keys()),
        excluded=sorted((included | identifying) & excluded),
        left_out={name: unfit[name] for name in sorted(requested & unfit.keys())},
        targets=sorted(requested & hidden & {*targets, *beside}),
        weights=sorted(requested & hidden - {*targets, *beside}),
        told={
            name: "target" if name in targets else "weight"
            for name in inputs
            if name in targets or name in weights
        },
        named=sorted({*inputs} & {*branches.include}),
    )


def check_collections(
    collections: Mapping[str, Sequence[str]],
    jagged: Mapping[str, bool],
    places: Places,
) -> None:
    """Raise a ConfigError unless the key ``collections`` names branches that can be joined.

    Parameters
    ----------
    collections
        By name: patterns of the branches of a collection; none for those that stay apart.
    jagged
        By branch that can be an input: whether it is jagged.
    places
        Where every key was written, for errors.
    """
    names = [name for name, is_jagged in jagged.items() if is_jagged]
    owners: dict[str, str] = {}
    for collection, patterns in collections.items():
        for index, pattern in enumerate(patterns):
            at = f"collections.{collection}.{index}"
            members = [name for name in names if matches(pattern, name)]
            if not members:
                is_flat = pattern in jagged
                what = "has one value per event" if is_flat else "is no jagged branch"
                near = None if is_flat else nearest(pattern, [*names, *_likely_patterns(names)])
                raise _error(at, f"{pattern!r} {what}", places, near)
            for name in members:
                if owners.setdefault(name, collection) != collection:
                    text = f"branch {name!r} is of collection {owners[name]!r} already"
                    raise _error(at, text, places)


def _matched(
    patterns: list[str], available: Mapping[str, str | None], key: str, places: Places
) -> set[str]:
    matched: set[str] = set()
    for index, pattern in enumerate(patterns):
        names = {name for name in available if matches(pattern, name)}
        names = names or _parts_of(pattern, available)
        if not names:
            at = f"{key}.{index}"
            if any(character in pattern for character in "*?["):
                near = nearest(pattern, _likely_patterns(available))
                raise _error(at, f"pattern {pattern!r} matches no branch", places, near)
            text = f"branch {pattern!r} is not in the tree"
            raise _error(at, text, places, nearest(pattern, available))
        matched |= names
    return matched


def _parts_of(name: str, available: Iterable[str]) -> set[str]:
    """The elements of an array, or the members of a struct, of that name."""
    return {each for each in available if each.startswith((f"{name}[", f"{name}."))}


def _likely_patterns(names: Iterable[str]) -> set[str]:
    parts = [name.split("_") for name in names]
    return {f"{p[0]}_*" for p in parts if len(p) > 1} | {f"*_{p[-1]}" for p in parts if len(p) > 1}


def _error(key: str, text: str, places: Places, near: str | None = None) -> ConfigError:
    hint = f"; did you mean {near!r}?" if near else ""
    return places.error(key, f"{text}{hint}", near)
