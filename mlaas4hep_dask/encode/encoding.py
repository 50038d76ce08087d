"""Encoding: the layout and the normalisation of every branch, as derived from specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlaas4hep_dask.encode.automatic import automatic
from mlaas4hep_dask.encode.image import Image
from mlaas4hep_dask.encode.layout import Layout
from mlaas4hep_dask.encode.order import Sort
from mlaas4hep_dask.encode.placeholders import roles_of
from mlaas4hep_dask.encode.rules import apply_rules, rules_of
from mlaas4hep_dask.encode.scaling import Scaling, scaling_of
from mlaas4hep_dask.errors import EncodeError, did_you_mean
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.formulas import NAMES, OUT_OF_RANGE, parts_of
from mlaas4hep_dask.specs import Specs


@dataclass(frozen=True)
class Encoding:
    """All that `encode` and `decode` need to know.

    Parameters
    ----------
    layout : Layout
        Column of every value.
    scalings : tuple of Scaling
        One for each of ``layout.branches``.
    branches : tuple of Branch
        The same branches with their kind, dtype and collection.
    sorts : tuple of Sort
        At most one for each collection; its branch need not be one of ``branches``.
    image : Image or None
        Events become images; None for rows.
    """

    layout: Layout
    scalings: tuple[Scaling, ...]
    branches: tuple[Branch, ...]
    sorts: tuple[Sort, ...] = ()
    image: Image | None = None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one encoded event: (columns,), or (channels, ny, nx) of an image."""
        return (self.layout.num_columns,) if self.image is None else self.image.shape

    def columns(self) -> list[str]:
        """Names of the columns, or of the channels of an image."""
        return self.layout.columns() if self.image is None else self.image.channel_names

    @property
    def reads(self) -> tuple[Branch, ...]:
        """The branches that events must have: ``branches``, and those to sort by."""
        keys = {sort.branch.name: sort.branch for sort in self.sorts}
        for branch in self.branches:
            keys.pop(branch.name, None)
        return self.branches + tuple(keys[name] for name in sorted(keys))

    @classmethod
    def from_specs(
        cls,
        specs: Specs,
        *,
        normalisation: Any = "auto",
        width: Any = "max",
        sort: Mapping[str, str] | None = None,
        keys: Sequence[Branch | Mapping[str, Any]] = (),
        out_of_range: Any = "pass",
        image: Mapping[str, Any] | None = None,
    ) -> Encoding:
        """Encoding of the branches in ``specs``.

        Parameters
        ----------
        specs : Specs
            Specs of the whole data set.
        normalisation : str or mapping
            How values become numbers near 0; or a mapping, or a list of mappings, from patterns
            of branches to that. The first pattern that matches holds; ``auto`` does for a
            branch that none matches, and follows from the specs of the branch: see `automatic`.
            ``minmax`` maps the extremes to 0 and 1, as the published
            pipeline does (Kuznetsov, Giommi, Bonacorsi, Comput. Softw. Big Sci. 2021);
            ``standard`` the mean to 0 and one standard deviation to 1; ``robust`` the median to
            0 and the distance of the quartiles to 1; ``none`` keeps values. ``log-`` or
            ``symlog-`` in front takes the logarithm first. For others see `scaling_of`.
        width : str, int or mapping
            Objects kept per collection; see `Layout.from_specs`.
        sort : mapping of str to str, optional
            By collection: the branch that objects are sorted by before the width cuts them, with
            ``-`` in front for the largest first. By default objects keep their order.
        keys : sequence of Branch or mapping
            Branches that ``sort`` may name though they are not in ``specs``.
        out_of_range : {"pass", "clip"} or mapping
            What happens to values outside the extremes in the specs; or patterns of branches and
            that, as for ``normalisation``, with ``pass`` for a branch that none matches.
        image : mapping, optional
            The section ``image`` of dataset.yaml, to encode events as images; see
            `Image.from_specs`.

        Raises
        ------
        EncodeError
            When an option has another value, as that of a bundle's manifest may, a pattern
            matches nothing, or the branch to sort by is not in the collection.
        """
        layout = Layout.from_specs(specs, width=width)
        hows = chosen(normalisation, specs, image)
        entries = [specs.branches[name] for name in layout.branches]
        clipped = clipped_branches(out_of_range, layout.branches)
        scalings = tuple(
            replace(scaling_of(entry, hows[entry.branch.name]), clip=entry.branch.name in clipped)
            for entry in entries
        )
        branches = tuple(entry.branch for entry in entries)
        key_branches = [key if isinstance(key, Branch) else Branch(**key) for key in keys]
        sorts = sorts_of(sort or {}, [*branches, *key_branches], layout.collections)
        image_rules = None if image is None else Image.from_specs(image, specs)
        return cls(layout, scalings, branches, sorts=sorts, image=image_rules)


def normalisations_of(normalisation: Any, branches: Sequence[str]) -> dict[str, Any]:
    """How each branch is normalised; see `Encoding.from_specs` and `apply_rules`."""
    return apply_rules(
        rules_of(normalisation),
        branches,
        default="auto",
        option="normalisation",
        what="branch",
    )


def chosen(
    normalisation: Any, specs: Specs, image: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """How each branch is normalised, with numbers in place of ``auto``; see `automatic`.

    Parameters
    ----------
    normalisation, image
        As for `Encoding.from_specs`.
    specs : Specs
        Specs of the whole data set.
    """
    hows = normalisations_of(normalisation, list(specs.branches))
    channel_values = {channel.get("value") for channel in (image or {}).get("channels", ())}
    names = [name for name, how in hows.items() if how == "auto"]
    roles = roles_of(specs, [name for name in names if name not in channel_values])
    for name in names:
        role = roles.get(name, "beside")
        hows[name] = automatic(specs.branches[name], is_shown=name in channel_values, role=role)
    return hows


def clipped_branches(out_of_range: Any, branches: Sequence[str]) -> set[str]:
    """The branches whose values outside the specs are clipped; see `Encoding.from_specs`.

    Raises
    ------
    EncodeError
        When a value is none of `OUT_OF_RANGE`, or a pattern matches nothing.
    """
    rules = rules_of(out_of_range)
    for _, value in rules:
        if value not in OUT_OF_RANGE:
            expected = " or ".join(map(repr, OUT_OF_RANGE))
            raise EncodeError(
                f"out_of_range is {value!r}; expected {expected}", option="out_of_range"
            )
    fate_of = apply_rules(rules, branches, default="pass", option="out_of_range", what="branch")
    return {name for name, value in fate_of.items() if value == "clip"}


def transforms_of(normalisation: Any, branches: Sequence[str]) -> dict[str, str]:
    """By branch: the function that its normalisation takes, whose moments specs must hold."""
    transforms = {}
    for name, how in normalisations_of(normalisation, branches).items():
        if isinstance(how, str) and how != "auto" and how in NAMES:
            function, _ = parts_of(how)
            if function is not None:
                transforms[name] = function.name
    return transforms


def sorts_of(
    sort: Mapping[str, str], branches: Sequence[Branch], collections: Sequence[str]
) -> tuple[Sort, ...]:
    """How collections are sorted, in alphabetical order.

    Parameters
    ----------
    sort : mapping of str to str
        Branch by collection, with ``-`` in front for descending.
    branches : sequence of Branch
        What can be sorted by.
    collections : sequence of str
        The collections of the inputs.

    Raises
    ------
    EncodeError
        When there is no such collection, or no such branch in it (facts: option, pattern).
    """
    sorts = []
    for collection, key in sorted(sort.items()):
        if collection not in collections:
            near = did_you_mean(collection, collections)
            raise EncodeError(
                f"sort: no input is in a collection {collection!r}{near}",
                option="sort",
                pattern=collection,
            )
        name = key.removeprefix("-")
        inside = {branch.name: branch for branch in branches if branch.collection == collection}
        if name not in inside:
            raise EncodeError(
                f"sort: branch {name!r} is not in collection {collection!r}"
                f"{did_you_mean(name, inside)}",
                option="sort",
                pattern=collection,
            )
        sorts.append(Sort(collection, inside[name], key.startswith("-")))
    return tuple(sorts)
