"""Recipe: derived branches, object cuts and the event selection, applied in one order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.derive.expression import Expression
from mlaas4hep_dask.derive.rows import chosen_events, chosen_objects, only, with_branch
from mlaas4hep_dask.derive.texts import (
    at_key,
    in_order,
    label,
    parsed,
    require_cut,
    require_mask,
)
from mlaas4hep_dask.errors import DataError, ExpressionError
from mlaas4hep_dask.events.events import Branch, Events


@dataclass(frozen=True)
class Prepared:
    """Events to which a recipe was applied.

    Parameters
    ----------
    events : Events
        The selected events with the branches that were asked for.
    selected : ndarray of bool, shape (events read,), or None
        Which of the events read they are; None for all.
    cut_flow : mapping of str to int
        By condition of the selection, in order: events that are left after it.
    removed : mapping of str to int
        By collection: objects that its cut removed from the events read.
    """

    events: Events
    selected: NDArray[np.bool_] | None = None
    cut_flow: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.selected is not None:
            num_selected = int(np.count_nonzero(self.selected))
            if num_selected != len(self.events):
                what = f"{len(self.events)} events, of which {num_selected} were selected"
                raise DataError(f"{what}: one belongs to other events than the other")


@dataclass(frozen=True)
class Steps:
    """What a recipe does for some branches, in this order.

    Parameters
    ----------
    read : tuple of str
        Branches that it starts from, in alphabetical order.
    early : tuple of str
        Derived branches that object cuts need.
    collections : tuple of str
        Collections whose objects are cut.
    late : tuple of str
        All other derived branches.
    """

    read: tuple[str, ...]
    early: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    late: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Derived branches, object cuts and the event selection; `Recipe.of` makes one.

    Object cuts come first, so that derived branches and the selection see the objects that are
    left; a derived branch that an object cut needs comes before it. A branch that counts the
    objects of a cut collection counts those that are left: one of which the file says so, and a
    whole number called ``n`` or ``N`` and the collection, such as ``nJet``.

    Parameters
    ----------
    derived : mapping of str to Expression
        By name, each after those that it needs.
    objects : mapping of str to Expression
        By collection: the condition that objects to be kept fulfil.
    cuts : tuple of Expression
        Conditions that selected events fulfil.
    branches : mapping of str to Branch
        The branches it was made for and the derived ones.
    early : frozenset of str
        Derived branches that come before object cuts. They do so also where the cut that needs
        them is not asked for, so that they have the same values in training and when served.
    told_counters : mapping of str to str
        By branch that counts objects, as the file tells: their collection.
    """

    derived: Mapping[str, Expression] = field(default_factory=dict)
    objects: Mapping[str, Expression] = field(default_factory=dict)
    cuts: tuple[Expression, ...] = ()
    branches: Mapping[str, Branch] = field(default_factory=dict)
    early: frozenset[str] = frozenset()
    told_counters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        available: Mapping[str, Branch],
        *,
        derive: Mapping[str, str] | None = None,
        objects: Mapping[str, str] | None = None,
        select: Sequence[str] = (),
        early: Sequence[str] = (),
        counters: Mapping[str, str] | None = None,
    ) -> Recipe:
        """The recipe of some texts, checked on the branches that there are.

        Parameters
        ----------
        available : mapping of str to Branch
            Branches of the tree.
        derive : mapping of str to str
            By name: the expression of a derived branch, which may use others.
        objects : mapping of str to str
            By collection: a condition on its objects.
        select : sequence of str
            Conditions on events.
        early : sequence of str
            Derived branches that come before object cuts, beside those that these cuts need.
        counters : mapping of str to str
            By branch that counts objects, as the file tells: their collection.

        Raises
        ------
        ExpressionError
            When a text is no expression, does not fit the branches or is needed by itself; its
            fact ``key`` is ``derive.NAME``, ``objects.COLLECTION`` or ``select.NUMBER``.
        """
        derived = {name: parsed(text, f"derive.{name}") for name, text in (derive or {}).items()}
        branches = dict(available)
        for name in derived:
            if name in available:
                raise ExpressionError(
                    f"the tree has a branch {name!r} already; choose another name",
                    key=f"derive.{name}",
                    name=name,
                )
        names = {*available, *derived}
        for name, expression in derived.items():
            with at_key(f"derive.{name}"):
                derived[name] = expression.bound(names - {name})
        order = in_order(derived)
        for name in order:
            with at_key(f"derive.{name}"):
                branches[name] = derived[name].result(name, branches)
        masks = {}
        for collection, text in (objects or {}).items():
            mask = parsed(text, f"objects.{collection}")
            with at_key(f"objects.{collection}"):
                masks[collection] = mask.bound(names)
                require_mask(masks[collection], collection, branches)
        cuts: dict[str, Expression] = {}
        for number, text in enumerate(select):
            key = f"select.{number}"
            for cut in parsed(text, key).conjuncts:
                with at_key(key):
                    bound_cut = cut.bound(names)
                    require_cut(bound_cut, branches)
                cuts.setdefault(label(cut), bound_cut)
        ordered = {name: derived[name] for name in order}
        recipe = cls(
            ordered, masks, tuple(cuts.values()), branches, told_counters=dict(counters or {})
        )
        first = recipe.operands({*early, *recipe._of_masks()})
        return replace(recipe, early=frozenset(first & ordered.keys()))

    def __bool__(self) -> bool:
        return bool(self.derived or self.objects or self.cuts)

    def to_json(self) -> dict[str, Any]:
        """The texts of derived branches and object cuts, which are applied when serving too."""
        early = self.early - self.operands(self._of_masks())
        counters = {
            name: collection
            for name, collection in self.counters.items()
            if name in self.told_counters and collection in self.objects
        }
        return {
            "derive": {name: expression.text for name, expression in self.derived.items()},
            "objects": {name: mask.text for name, mask in self.objects.items()},
            "select": [label(cut) for cut in self.cuts],
            **({"early": sorted(early)} if early else {}),
            **({"counters": counters} if counters else {}),
        }

    def narrowed(self, keep: Iterable[str]) -> Recipe:
        """The recipe without what the branches ``keep`` do not need, for events as they come."""
        steps = self.steps(keep, select=False)
        derived = {*steps.early, *steps.late}
        return replace(
            self,
            derived={
                name: expression for name, expression in self.derived.items() if name in derived
            },
            objects={name: self.objects[name] for name in steps.collections},
            branches={
                name: branch
                for name, branch in self.branches.items()
                if name in {*steps.read, *derived, *keep}
            },
            early=self.early & derived,
        )

    @cached_property
    def counters(self) -> Mapping[str, str]:
        """The collection of each branch that counts its objects, such as ``nJet``."""
        names: dict[str, str] = {}
        for branch in self.branches.values():
            if branch.collection is not None:  # uproot counts each branch by one of its own
                counted = (branch.collection, branch.name)
                names |= {f"{n}{each}": branch.collection for each in counted for n in "nN"}
        return {
            name: collection
            for name, collection in {**names, **self.told_counters}.items()
            if name in self.branches
            and name not in self.derived
            and self.branches[name].collection is None
            and np.dtype(self.branches[name].dtype).kind in "iu"
        }

    def steps(self, keep: Iterable[str], *, select: bool = True) -> Steps:
        """What is read and done to get the branches ``keep`` of selected events.

        Parameters
        ----------
        keep : iterable of str
            Branches of the tree and derived ones.
        select : bool
            Whether events are selected.
        """
        required = {*keep}
        if select:
            required.update(name for cut in self.cuts for name in cut.names)
        required = self.operands(required)
        collections: set[str] = set()
        needed: set[str] = set()
        # A cut may need a branch of another collection, which has a cut as well.
        while more := self._cut_collections(required | needed) - collections:
            collections |= more
            needed |= self.operands(
                name for collection in more for name in self.objects[collection].names
            )
        names = required | needed
        return Steps(
            read=tuple(sorted(names - self.derived.keys())),
            early=tuple(name for name in self.derived if name in names & self.early),
            collections=tuple(name for name in self.objects if name in collections),
            late=tuple(name for name in self.derived if name in names - self.early),
        )

    def giving_away(self, names: Iterable[str], counted: Iterable[str] = ()) -> set[str]:
        """These branches, all that they are derived from, and what is derived from any of it.

        Parameters
        ----------
        names : iterable of str
            The branches.
        counted : iterable of str
            Those of which the number of objects is taken. What else counts the same objects gives
            that away.
        """
        telling = self.operands(names)
        collections = self.collections_of(telling, counted)
        telling |= {name for name, of in self.counters.items() if of in collections}
        for name, expression in self.derived.items():  # each after those that it needs
            if not telling.isdisjoint(expression.names):
                telling.add(name)
        return telling

    def collections_of(self, names: Iterable[str], counted: Iterable[str] = ()) -> set[str]:
        """The collections of whose objects there are as many as some branches say.

        Parameters
        ----------
        names : iterable of str
            The branches, of which those count that count objects.
        counted : iterable of str
            Branches of the collections.
        """
        counted = {*counted}
        operands = self.operands(names)
        for name in operands & self.derived.keys():
            counted.update(self.derived[name].counted)
        collections = {self.branches[name].collection for name in counted}
        collections |= {self.counters[name] for name in operands & self.counters.keys()}
        return {collection for collection in collections if collection is not None}

    def prepare(self, events: Events, keep: Sequence[str], *, select: bool = True) -> Prepared:
        """The selected events with the branches ``keep``.

        Parameters
        ----------
        events : Events
            Events with the branches that `steps` says are read.
        keep : sequence of str
            Branches of the result, in this order.
        select : bool
            Whether events are selected; a server scores all that it is sent.

        Raises
        ------
        ExpressionError
            When a branch is absent.
        DataError
            When arrays of the events have other lengths than the others say.
        """
        events.checked()
        steps = self.steps(keep, select=select)
        for name in steps.early:
            events = with_branch(events, name, self.derived[name].value(events))
        removed: dict[str, int] = {}
        if steps.collections:
            masks = {
                collection: self.objects[collection].value(events).values
                for collection in steps.collections
            }
            removed = {
                collection: mask.size - int(np.count_nonzero(mask))
                for collection, mask in masks.items()
            }
            events = chosen_objects(events, masks, self.counters)
        for name in steps.late:
            events = with_branch(events, name, self.derived[name].value(events))
        selected: NDArray[np.bool_] | None = None
        cut_flow: dict[str, int] = {}
        for cut in self.cuts if select else ():
            passed = cut.per_event(events)
            selected = passed if selected is None else selected & passed
            cut_flow[label(cut)] = int(np.count_nonzero(selected))
        events = only(events, keep)
        if selected is not None:
            events = chosen_events(events, selected)
        return Prepared(events, selected, cut_flow, removed)

    def _of_masks(self) -> set[str]:
        """The branches that the object cuts name."""
        return {name for mask in self.objects.values() for name in mask.names}

    def operands(self, names: Iterable[str]) -> set[str]:
        """These branches and all that they are derived from."""
        operands: set[str] = set()
        stack = [*names]
        while stack:
            name = stack.pop()
            if name not in operands:
                operands.add(name)
                stack.extend(self.derived[name].names if name in self.derived else ())
        return operands

    def _cut_collections(self, names: set[str]) -> set[str]:
        collections = {self.counters.get(name) for name in names}
        collections |= {self.branches[name].collection for name in names if name in self.branches}
        return {collection for collection in self.objects if collection in collections}
