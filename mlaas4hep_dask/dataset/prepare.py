"""From a partition to its events as the configuration wants them: read, derive, cut, select."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.derive.recipe import Prepared, Recipe
from mlaas4hep_dask.errors import ConfigError, ExpressionError
from mlaas4hep_dask.reader import Partition, read
from mlaas4hep_dask.specs import Branch


@dataclass(frozen=True)
class Preparation:
    """What is read of a partition, and what becomes of it.

    Parameters
    ----------
    reads : tuple of Branch
        Branches that are read from the files.
    keep : tuple of str
        Branches of the prepared events.
    recipe : Recipe
        Derived branches, object cuts and selection.
    """

    reads: tuple[Branch, ...]
    keep: tuple[str, ...]
    recipe: Recipe = field(default_factory=Recipe)

    @classmethod
    def of(
        cls, recipe: Recipe, keep: Sequence[str], available: Mapping[str, Branch]
    ) -> Preparation:
        """The preparation that gives the branches ``keep`` of selected events.

        Parameters
        ----------
        recipe : Recipe
            Derived branches, object cuts and selection.
        keep : sequence of str
            Branches of the files and derived ones.
        available : mapping of str to Branch
            Branches of the files.
        """
        names = recipe.steps(keep).read
        if not recipe:  # in the order that was asked for
            names = tuple(keep)
        reads = tuple(available[name] for name in names)
        needed = {*names, *recipe.derived, *keep}
        branches = {name: branch for name, branch in recipe.branches.items() if name in needed}
        return cls(reads, tuple(keep), replace(recipe, branches=branches))

    def fewer(self, keep: Sequence[str]) -> Preparation:
        """The preparation of some of the branches, which reads no more than these need."""
        return Preparation.of(self.recipe, keep, {branch.name: branch for branch in self.reads})

    def counting(self) -> Preparation | None:
        """The preparation that reads no more than cuts need; None when there is none."""
        collections = self.recipe.steps(self.keep).collections
        if not self.recipe.cuts and not collections:
            return None
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
    events = read(partition, preparation.reads)
    if not preparation.recipe:
        return Prepared(events)
    return preparation.recipe.prepare(events, preparation.keep)


def recipe_of(
    config: Config, available: Mapping[str, Branch], left_out: Mapping[str, str]
) -> Recipe:
    """The recipe of a configuration.

    Parameters
    ----------
    config : Config
        With ``derive``, ``objects`` and ``select``.
    available : mapping of str to Branch
        The branches of the tree.
    left_out : mapping of str to str
        Branches of the tree that hold something else than numbers, with the reason.

    Raises
    ------
    ConfigError
        When an expression is wrong or does not fit the branches.
    """
    try:
        return Recipe.of(
            available, derive=config.derive, objects=config.objects, select=config.select
        )
    except ExpressionError as error:
        key = error.facts.get("key", "derive")
        name = str(error.facts.get("name"))
        reason = f"; the branch {name!r} is {left_out[name]}" if name in left_out else ""
        shown = key.replace("select.", "select[") + "]" if key.startswith("select.") else key
        raise ConfigError(
            f"{config.where(key)}: {shown}: {error.message}{reason}",
            file=None if config.source is None else str(config.source),
            line=config.line_of(key),
            key=key,
            nearest=error.facts.get("nearest"),
        ) from None
