"""From a partition to its events as the configuration wants them: read, derive, cut, select."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlaas4hep_dask.config import Function, Places
from mlaas4hep_dask.derive import Expression
from mlaas4hep_dask.derive.binding import component_text
from mlaas4hep_dask.derive.recipe import Prepared, Recipe
from mlaas4hep_dask.errors import CodeError, ExpressionError, unknown_keyword
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.reader import FilePlan, Partition, read
from mlaas4hep_dask.reader.flatten import Field
from mlaas4hep_dask.reader.function import Traced, UserFunction, run_function
from mlaas4hep_dask.reader.joins import what_to_write
from mlaas4hep_dask.specs.meter import Meter
from mlaas4hep_dask.usercode import find_code

HEAD_EVENTS = 1_000  # of a file, on which things are tried before a cluster is started


@dataclass(frozen=True)
class FunctionUse:
    """A user's function, and what it takes and gives.

    Parameters
    ----------
    function : UserFunction
        The function.
    tree : tuple of Branch
        Branches of the tree, which it may read.
    fields : mapping of str to Field
        Fields that it returns, by the names of their branches.
    """

    function: UserFunction
    tree: tuple[Branch, ...]
    fields: Mapping[str, Field]

    def run(self, partition: Partition, branches: Sequence[Branch]) -> Prepared:
        """The events that it returns."""
        fields = [self.fields[branch.name] for branch in branches]
        events, selected = run_function(partition, self.function, self.tree, fields)
        return Prepared(events, selected, {self.function.reference: len(events)})


@dataclass(frozen=True)
class Preparation:
    """What is read of a partition, and what becomes of it.

    Parameters
    ----------
    reads : tuple of Branch
        Branches that are read from the files, or taken from what the function returns.
    keep : tuple of str
        Branches of the prepared events.
    recipe : Recipe
        Derived branches, object cuts and selection.
    use : FunctionUse or None
        The user's function, which comes first.
    """

    reads: tuple[Branch, ...]
    keep: tuple[str, ...]
    recipe: Recipe = field(default_factory=Recipe)
    use: FunctionUse | None = None

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        keep: Sequence[str],
        available: Mapping[str, Branch],
        use: FunctionUse | None = None,
    ) -> Preparation:
        """The preparation that gives the branches ``keep`` of selected events.

        Parameters
        ----------
        recipe : Recipe
            Derived branches, object cuts and selection.
        keep : sequence of str
            Branches of the files and derived ones.
        available : mapping of str to Branch
            Branches of the files, or those that the function returns.
        use : FunctionUse, optional
            The user's function.
        """
        names = recipe.steps(keep).read
        if not recipe:  # in the order that was asked for
            names = tuple(keep)
        reads = tuple(available[name] for name in names)
        needed = {*names, *recipe.derived, *keep}
        branches = {name: branch for name, branch in recipe.branches.items() if name in needed}
        if use is not None:
            use = replace(use, fields={name: use.fields[name] for name in names})
        return cls(reads, tuple(keep), replace(recipe, branches=branches), use)

    def fewer(self, keep: Sequence[str]) -> Preparation:
        """The preparation of some of the branches, which reads no more than these need."""
        available = {branch.name: branch for branch in self.reads}
        return Preparation.of(self.recipe, keep, available, self.use)

    @property
    def leaves_out(self) -> bool:
        """True when some events or objects that are read may not be kept."""
        collections = self.recipe.steps(self.keep).collections
        return bool(self.recipe.cuts or collections) or self.use is not None

    def counting(self) -> Preparation | None:
        """The preparation that reads no more than cuts need; None when there is none."""
        if not self.leaves_out:
            return None
        collections = self.recipe.steps(self.keep).collections
        names = {name for each in collections for name in self.recipe.objects[each].names}
        return self.fewer(sorted(names))


def prepare(
    partition: Partition, preparation: Preparation, keep: tuple[str, ...] | None = None
) -> Prepared:
    """The selected events of one partition.

    Parameters
    ----------
    partition : Partition
        Entry range of a file.
    preparation : Preparation
        What is read, and what becomes of it.
    keep : tuple of str, optional
        Branches of the result, in this order; by default those of the preparation.

    Raises
    ------
    UnreadableFileError
        When the file cannot be read.
    """
    if keep is not None and keep != preparation.keep:
        preparation = preparation.fewer(keep)
    return applied(read_raw(partition, preparation), preparation)


def applied(raw: Prepared, preparation: Preparation) -> Prepared:
    """The selected events of those before the recipe."""
    if not preparation.recipe:
        return raw
    prepared = preparation.recipe.prepare(raw.events, preparation.keep)
    if raw.selected is None:
        return prepared
    selected = raw.selected.copy()
    if prepared.selected is not None:
        selected[raw.selected] = prepared.selected
    return replace(prepared, selected=selected, cut_flow={**raw.cut_flow, **prepared.cut_flow})


def read_raw(
    partition: Partition,
    preparation: Preparation,
    meter: Meter | None = None,
    needed: Collection[str] | None = None,
) -> Prepared:
    """The events before the recipe: those of the file, or those that the function returns.

    Values of the file are given to ``meter``. Those that are not ``needed`` may then be absent.
    """
    if preparation.use is None:
        return Prepared(read(partition, preparation.reads, meter, needed))
    return preparation.use.run(partition, preparation.reads)


def function_of(function: Function | None, places: Places) -> UserFunction | None:
    """The function of a configuration, once it can be imported.

    Parameters
    ----------
    function : Function or None
        The section of the configuration, if there is one.
    places : Places
        Where files are, and where keys were written, for errors.

    Raises
    ------
    ConfigError
        When it cannot, or takes no such keyword arguments.
    """
    if function is None:
        return None
    try:
        code = find_code(function.callable, resolve=places.resolve, values=function.kwargs)
        callable_ = code.load()
    except CodeError as error:
        key = "function.callable"
        raise places.error(key, f"{key}: {error.message}") from error
    if wrong := unknown_keyword(callable_, function.kwargs):
        key = "function.kwargs"
        raise places.error(key, f"{key}: {code.reference!r} {wrong}")
    return UserFunction(code, function.events, function.kwargs)


def trace(function: UserFunction, file_plan: FilePlan) -> Traced:
    """What a function does with the first events of a file.

    Raises
    ------
    FunctionError
        When it fails.
    """
    return Traced(first_events(file_plan), function, list(file_plan.branches.values()))


def first_events(file_plan: FilePlan, max_events: int | None = None) -> Partition:
    """The first events of a file, on which things are tried."""
    number = min(file_plan.num_entries, HEAD_EVENTS, max_events or HEAD_EVENTS)
    return file_plan.planned([]).partition(0, number)


@dataclass(frozen=True)
class Texts:
    """What a configuration writes of derived branches, object cuts and the selection.

    Parameters
    ----------
    derive, objects : mapping of str to str
        Expressions by the names of branches, conditions by the names of collections.
    select : sequence of str
        Conditions.
    include : sequence of str
        Names and patterns of the inputs, which may name a component of a momentum.
    """

    derive: Mapping[str, str] = field(default_factory=dict)
    objects: Mapping[str, str] = field(default_factory=dict)
    select: Sequence[str] = ()
    include: Sequence[str] = ()

    def names_of(self, key: str) -> tuple[str, ...]:
        """The branches that the expression of a key names; none where it is no expression."""
        section, _, name = key.partition(".")
        by_section = {"derive": self.derive, "objects": self.objects}
        text = self.select[int(name)] if section == "select" else by_section[section].get(name)
        try:
            return Expression(text or "").names
        except ExpressionError:
            return ()


def recipe_of(
    texts: Texts,
    available: Mapping[str, Branch],
    left_out: Mapping[str, str],
    unlike: Mapping[str, str],
    places: Places,
    *,
    counters: Mapping[str, str],
) -> Recipe:
    """The recipe of a configuration.

    Parameters
    ----------
    texts : Texts
        The expressions and conditions.
    available : mapping of str to Branch
        The branches of the tree.
    left_out : mapping of str to str
        Branches of the tree that hold something else than numbers, with the reason.
    unlike : mapping of str to str
        Branches in no common collection, though their names suggest it, and why.
    places : Places
        Where keys were written, for errors.
    counters : mapping of str to str
        By branch that counts objects, as the file tells: their collection.

    Raises
    ------
    ConfigError
        When an expression is wrong or does not fit the branches.
    """
    # p4.pt of a vector that has px, py, pz and E is an input if it is asked for
    derive = {
        name: text
        for name in texts.include
        if name not in texts.derive and (text := component_text(name, available)) is not None
    }
    derive |= texts.derive
    try:
        return Recipe.of(
            available,
            derive=derive,
            objects=texts.objects,
            select=texts.select,
            counters=counters,
        )
    except ExpressionError as error:
        key = error.facts.get("key", "derive")
        name = str(error.facts.get("name"))
        reason = f"; the branch {name!r} is {left_out[name]}" if name in left_out else ""
        apart = [one for one in texts.names_of(key) if one in unlike]
        if apart and not reason:
            reason = (
                f"; {unlike[apart[0]]}; {what_to_write(apart[0].split('_', 1)[0], is_apart=True)}"
            )
        place = key.replace("select.", "select[") + "]" if key.startswith("select.") else key
        text = f"{place}: {error.message}{reason}"
        raise places.error(key, text, error.facts.get("nearest")) from None
