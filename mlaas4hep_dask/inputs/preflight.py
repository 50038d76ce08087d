"""What can be checked before a cluster is started, on one file of every sample."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlaas4hep_dask.catalog import DataFile, Recorded, resolve_files
from mlaas4hep_dask.config import (
    Selection,
    check_collections,
    select_branches,
)
from mlaas4hep_dask.derive.recipe import Recipe
from mlaas4hep_dask.encode.encoding import transforms_of
from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.formats import SCHEMAS
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.inputs.description import Description
from mlaas4hep_dask.inputs.head import check_heads
from mlaas4hep_dask.inputs.image import with_image_inputs
from mlaas4hep_dask.inputs.normalise import check_encode, find_normalisers
from mlaas4hep_dask.inputs.prepare import (
    FunctionUse,
    Preparation,
    function_of,
    recipe_of,
    trace,
)
from mlaas4hep_dask.inputs.reuse import SpecsSource, event_facts, reused_specs
from mlaas4hep_dask.inputs.supervision import Supervision
from mlaas4hep_dask.reader import (
    FilePlan,
    PlannedFile,
    counting,
    plan_file,
    reading_needs,
    require_same_branches,
    require_schemes,
)
from mlaas4hep_dask.reader.function import Traced
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.usercode import Need, UserCode

NOT_EVERYWHERE = "; inputs that not all files hold can be left out with branches.exclude"


@dataclass(frozen=True)
class Preflight:
    """What one file of every sample told before the cluster was started.

    Parameters
    ----------
    files : mapping of str to list of DataFile
        By sample: all files, and the tree in each.
    reference : FilePlan
        A file that holds all inputs; all others are compared with it.
    selection : Selection
        Inputs, identifiers, excluded branches and those that cannot be inputs.
    recipe : Recipe
        Derived branches, object cuts and the selection of events.
    context : Context
        What all partitions share.
    specs : Specs or None
        Those that the configuration names to be used, found to agree with it.
    keys : tuple of Branch
        Branches that objects are sorted by and that are no inputs.
    traced : Traced or None
        What the user's function does with some events.
    recorded : mapping of str to Recorded
        By file: what file sets record of it.
    normalisers : mapping of str to UserCode
        The functions that ``encode.normalisation`` names, by their references.
    planned : mapping of (str, DataFile) to PlannedFile
        By sample and file: those that were opened here and need not be planned again.
    """

    files: Mapping[str, list[DataFile]]
    reference: FilePlan
    selection: Selection
    recipe: Recipe
    context: Context
    specs: Specs | None = None
    keys: tuple[Branch, ...] = ()
    traced: Traced | None = None
    recorded: Mapping[str, Recorded] = field(default_factory=dict)
    normalisers: Mapping[str, UserCode] = field(default_factory=dict)
    planned: Mapping[tuple[str, DataFile], PlannedFile] = field(default_factory=dict)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The inputs."""
        return tuple(self.recipe.branches[name] for name in self.selection.inputs)

    @property
    def supervision(self) -> Supervision:
        """How events get a label or targets, and a weight."""
        return self.context.supervision

    @property
    def preparation(self) -> Preparation:
        """What is read, and how it becomes the inputs and all that is kept beside them."""
        return self.context.preparation

    @property
    def needs(self) -> list[Need]:
        """What workers have to be able to import, to read the files and run the function."""
        paths = (file.file for files in self.files.values() for file in files)
        needs = reading_needs(paths, self.reference.access)
        if self.preparation.use is not None:
            function = self.preparation.use.function
            needs.append(Need.of_code("function", function.code))
            if function.events in SCHEMAS:
                needs.append(Need.of(f"the function's events as {function.events}", ["coffea"]))
        return needs

    @property
    def reads(self) -> list[str]:
        """Names of the branches that are read.

        They are those of inputs, cuts, labels, targets and weights, and those to sort by.
        """
        names = [branch.name for branch in self.preparation.reads]
        if self.traced is None:
            return names
        in_tree = self.reference.branches.keys() | self.reference.left_out.keys()
        parts = self.reference.parts  # NanoEvents read by the names of TBranches
        return [
            part
            for name in self.traced.reads(names)
            for part in ([name] if name in in_tree else parts.get(name, ()))
        ]


def preflight(description: Description) -> Preflight:
    """Check files, tree and branches of a data set on the first file of each sample.

    Raises
    ------
    ConfigError
        When a file does not exist, a pattern matches no branch, an expression is wrong, or
        ``encode`` does not fit the branches.
    DataError
        When the tree is missing, the samples hold different branches, or a label, target or weight
        of their first events is not what it has to be.
    SpecsError
        When specs that are to be used do not agree with the configuration.
    """
    places, texts = description.places, description.texts
    recorded: dict[str, Recorded] = {}
    files = resolve_files(description.listing, recorded)
    for listed in files.values():
        require_schemes([each.file for each in listed], description.access)
    first: dict[tuple[str, DataFile], FilePlan] = {}
    reasons: list[str] = []
    with counting() as read_counts:
        for sample, listed in files.items():
            if (one := _first_readable(description, sample, listed, reasons)) is not None:
                file, file_plan = one
                first[sample, file] = file_plan
    plans = list(first.values())
    if not plans:
        text = f"no file of any sample can be read, the first: {reasons[0]}"
        raise UnreadableFileError(text, file=None, reason=reasons[0])
    reference = min(plans, key=lambda plan: (plan.is_blank, not plan.branches))
    if not reference.branches and not reference.left_out:
        raise DataError.in_tree(
            reference,
            f"the trees {reference.tree!r} of all samples hold no events, or have no branches; the "
            f"first is that of {reference.file}",
        )
    jagged = {name: branch.kind == "jagged" for name, branch in reference.branches.items()}
    check_collections(dict(description.access.collections), jagged, places)
    branches, left_out, traced = reference.branches, reference.left_out, None
    if (function := function_of(description.function, places)) is not None:
        traced = trace(
            function, next((file_plan for file_plan in plans if file_plan.num_entries), reference)
        )
        branches, left_out = traced.branches, traced.left_out
    counters = reference.counters_of(branches)
    recipe = recipe_of(texts, branches, left_out, reference.unlike, places, counters=counters)
    available: dict[str, str | None] = dict.fromkeys(recipe.branches)
    available.update(left_out)
    supervision = description.supervision.bound(recipe.branches, places, left_out)
    supervision.check(recipe.branches, places, left_out)
    if traced is not None:
        supervision.check_read(reference.branches, places)
    targets = _giving_away(supervision.target_names, recipe, traced, counted=supervision.counted)
    selection = select_branches(
        description.branches,
        available,
        places,
        targets=targets,
        weights=_giving_away(supervision.weight_names, recipe, traced),
        beside=_beside(targets, supervision, recipe, traced),
        itself=supervision.target_itself,
        own_names=reference.own_names,
    )
    _require_filled(plans, selection)
    selection = with_image_inputs(description.image, selection, recipe.branches, places)
    inputs = [recipe.branches[name] for name in selection.inputs]
    encode = description.encode
    keys = check_encode(encode, inputs, recipe.branches, places, left_out)
    normalisers = find_normalisers(encode.callables(), places)
    specs = None
    if (path := description.specs_path) is not None:
        source = SpecsSource(path, places.resolve(path), places.where("specs"))
        facts = event_facts(texts, function)
        specs = reused_specs(source, inputs, facts, encode.normalisation)
    inputs_and_keys = [*selection.inputs, *(key.name for key in keys)]
    keep = list(dict.fromkeys([*inputs_and_keys, *supervision.names]))
    context = Context(
        _preparation(recipe, keep, reference, traced),
        tuple(selection.inputs),
        supervision,
        description.split.fractions,
        description.seed,
        skip=description.skip,
        transforms=transforms_of(encode.normalisation, selection.inputs),
    )
    checked = Preflight(
        files,
        replace(reference, opened=None),
        selection,
        recipe,
        context,
        specs,
        keys,
        traced,
        recorded,
        normalisers,
    )
    reads = checked.reads
    for file_plan in plans:
        require_same_branches(reference, file_plan, reads, advice=NOT_EVERYWHERE)
    branch_names = None if traced is None else reference.branches.keys()
    check_heads(plans, context, branch_names, max_events=description.max_events)
    planned = {which: file_plan.planned(reads) for which, file_plan in first.items()}
    which = next(iter(planned))
    planned[which] = replace(planned[which], read_counts=read_counts)
    return replace(checked, planned=planned)


def _preparation(
    recipe: Recipe, keep: Sequence[str], reference: FilePlan, traced: Traced | None
) -> Preparation:
    if traced is None:
        return Preparation.of(recipe, keep, reference.branches)
    use = FunctionUse(traced.function, tuple(reference.branches.values()), traced.fields)
    return Preparation.of(recipe, keep, traced.branches, use)


def _giving_away(
    names: set[str], recipe: Recipe, traced: Traced | None, *, counted: set[str] | None = None
) -> set[str]:
    """What tells of targets or weights: all that they are derived from, and what else is of it.

    Of what a function makes, that is all that it had read by then; of numbers of the objects of
    branches ``counted``, all that counts these objects.
    """
    operands = recipe.operands(names)
    if traced is not None:
        function_branches = sorted(operands & traced.branches.keys())
        if any(name not in traced.tree for name in function_branches):
            operands |= {*traced.reads(function_branches)} & traced.branches.keys()
    return recipe.giving_away(operands, counted or ())


def _beside(
    targets: set[str], supervision: Supervision, recipe: Recipe, traced: Traced | None
) -> set[str]:
    """What may tell of targets though they are not made of it.

    Of numbers of objects that are all branches of the collection, for a row shows how many there
    are; and so of a collection whose objects are cut by what tells. If a function makes what
    targets are made of, that is all that it makes: nothing tells what of.
    """
    names = supervision.target_names
    telling = recipe.collections_of(names, supervision.counted)
    told = recipe.giving_away(names, supervision.counted) if names else set()
    cuts = {each: recipe.operands(cut.names) for each, cut in recipe.objects.items()}
    while cut_by_it := {
        collection
        for collection, operands in cuts.items()
        if any(recipe.branches[each].collection != collection for each in told & operands)
    }:
        # How many objects are left tells too, and what other collections are cut by of them.
        telling |= cut_by_it
        members = [name for name, each in recipe.branches.items() if each.collection in cut_by_it]
        told |= recipe.giving_away(members, members)
        cuts = {collection: cut for collection, cut in cuts.items() if collection not in cut_by_it}
    beside = {name for name, each in recipe.branches.items() if each.collection in telling}
    if traced is not None:
        made = traced.branches.keys() - traced.tree
        beside |= made if made & recipe.operands(names) else set()
    return recipe.giving_away(beside) - targets if beside else set()


def _require_filled(plans: Sequence[FilePlan], selection: Selection) -> None:
    """Raise for a branch that a wildcard asks for and that only some entries of the tree have.

    To leave it out would be no less than what becomes of a string, but then nobody would learn
    that the file is not what it was meant to be.
    """
    for file_plan in plans:
        for name in selection.left_out:
            if name in file_plan.filled:
                raise DataError.in_tree(
                    file_plan,
                    f"branch {name!r} is {file_plan.left_out[name]} of tree {file_plan.tree!r} in "
                    f"{file_plan.file}, and nothing tells which; leave it out with "
                    "branches.exclude",
                    branch=name,
                )


def _first_readable(
    description: Description, sample: str, listed: Sequence[DataFile], reasons: list[str]
) -> tuple[DataFile, FilePlan] | None:
    """The first file that tells what its branches are, else one that is blank.

    ``reasons`` is told why others cannot be read.
    """
    blank = None
    for each in listed:
        file, tree, key, friends = each
        try:
            file_plan = plan_file(file, tree, sample, description.access, friends)
        except UnreadableFileError as error:
            if not description.skip:
                raise
            reasons.append(error.message)
            continue
        except DataError as error:
            if "trees" not in error.facts or error.facts["file"] != file:
                raise
            # the tree's own key, for it may stand far from the files
            place = re.sub(r"\.([0-9]+)", r"[\1]", key)
            raise DataError(
                f"{description.places.where(key)}: {place}: {error.message}", **error.facts
            ) from None
        if not file_plan.is_blank:
            return each, file_plan
        blank = blank or (each, file_plan)
    return blank
