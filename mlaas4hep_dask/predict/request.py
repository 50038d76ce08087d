"""What is to be scored, checked as far as one file and the bundle tell."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlaas4hep_dask.bundle import Bundle
from mlaas4hep_dask.catalog import DataFile, befriended, expand_files
from mlaas4hep_dask.config import Branches, Friend, Reading
from mlaas4hep_dask.errors import ConfigError, UnreadableFileError, did_you_mean
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.formats import FORMATS
from mlaas4hep_dask.inputs.description import access_of
from mlaas4hep_dask.patterns import matches
from mlaas4hep_dask.reader import (
    Access,
    FilePlan,
    plan_file,
    require_same_branches,
    require_schemes,
)
from mlaas4hep_dask.writer import RootFormat, check_output

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """Files to be scored.

    Parameters
    ----------
    bundle : Bundle
        The verified bundle.
    files : tuple of DataFile
        Paths and URLs with the tree in each, in the order of the output.
    tree : str
        Name of the tree in the output: that of the first file.
    reference : FilePlan
        Inputs and copied branches, which every file has to hold; all are compared with it.
    copied : tuple of Branch
        Identifiers, then the branches that the caller asked for.
    """

    bundle: Bundle
    files: tuple[DataFile, ...]
    tree: str
    reference: FilePlan
    copied: tuple[Branch, ...]


def check_request(
    bundle: Bundle,
    files: Sequence[str],
    output: str | Path,
    *,
    tree: str | None = None,
    patterns: Sequence[str] = (),
    skip: bool = False,
    overwrite: bool = False,
    root_format: RootFormat = "auto",
    reading: Reading | None = None,
    friends: Sequence[Friend] | None = None,
) -> Request:
    """The request, once its files, tree and branches are known to exist.

    Parameters
    ----------
    bundle : Bundle
        The model.
    files : sequence of str
        Paths, globs, lists and URLs, from the current directory.
    output : str or Path
        The file to write.
    tree : str, optional
        Name of the tree in files that name none themselves; by default that of the data the model
        was trained on.
    patterns : sequence of str
        Branches to copy beside the identifiers.
    skip : bool
        Leave out files that cannot be opened.
    overwrite : bool
        Replace an existing output.
    root_format : {"auto", "ttree", "rntuple"}
        What a ``.root`` output is to hold.
    reading : Reading, optional
        How the files are reached and read, as the section of dataset.yaml tells it.
    friends : sequence of Friend, optional
        Friend trees of the files; by default as those of the data that the model was trained on.

    Raises
    ------
    ConfigError
        When a file or a branch does not exist, or the tree is not known.
    DataError
        When the first file lacks an input or holds it as another type.
    WriteError
        When the output cannot be written, or exists.
    """
    output = Path(output)
    check_output(output, overwrite=overwrite, root_format=root_format)
    recorded = bundle.manifest.get("data")
    recorded = recorded if isinstance(recorded, Mapping) else {}
    tree = recorded.get("tree") if tree is None else tree
    tree_name = tree if isinstance(tree, str) else None
    data_files = expand_files(files, Path.cwd(), where="files", tree=tree_name, reading=reading)
    if friends is None:
        friends = _friends(bundle, recorded.get("friends"))
    data_files = befriended(data_files, friends, Path.cwd(), reading=reading or Reading())
    if recorded.get("function"):
        logger.warning(
            "model %r learned from what the function %s made of the files; these files have to "
            "hold that already",
            bundle.name,
            recorded["function"],
        )
    if not all(file.tree for file in data_files):
        text = f"{bundle.source} does not tell the name of it"
        if isinstance(tree, list):
            text = f"model {bundle.name!r} learned from {', '.join(map(repr, tree))}"
        raise ConfigError(f"which tree is to be scored? {text}; give it with --tree")
    if any(file.file == str(output.absolute()) for file in data_files):
        raise ConfigError(f"{output} is among the files to be scored")
    access = access_of(reading or Reading(), _collections(bundle))
    require_schemes([file.file for file in data_files], access)
    if all(FORMATS[access.format_of(file.file)].is_text for file in data_files):
        # Text does not tell float32 from float64: it is read as the model learned it.
        learned_types = {branch.name: branch.dtype for branch in bundle.reads}
        access = replace(access, types=tuple({**learned_types, **dict(access.types)}.items()))
    first = _first_readable(data_files, bundle.name, access, skip=skip)
    inputs = {branch.name: branch for branch in bundle.reads}
    learned = replace(first, file=f"the bundle of model {bundle.name!r}", branches=inputs)
    require_same_branches(learned, first, list(inputs))
    identifiers = recorded.get("identifiers")
    if not isinstance(identifiers, list):  # a bundle that no run has made
        identifiers = Branches().identifiers
    copied = _copied(first, list(map(str, identifiers)), patterns)
    needed = {name: first.branches[name] for name in (*inputs, *copied)}
    reference = first.narrowed(list(needed))
    tree = data_files[0].tree.rpartition("/")[2].partition(";")[0]
    return Request(
        bundle, tuple(data_files), tree, reference, tuple(needed[name] for name in copied)
    )


def _friends(bundle: Bundle, recorded: Any) -> list[Friend]:
    """The friends of the training data, where they can be those of any file."""
    try:
        friends = [Friend.model_validate(each) for each in recorded or []]
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{bundle.source} does not tell the friend trees ({error})") from None
    for friend in friends:
        if isinstance(friend.files, list):
            raise ConfigError(
                f"model {bundle.name!r} reads branches of friend trees, which were listed "
                f"by name: give those of these files, as in --set 'friends=[{{tree: {friend.tree}, "
                'files: {"*.root": "*_friend.root"}}]\''
            )
    return friends


def _collections(bundle: Bundle) -> dict[str, list[str]]:
    """The collections that the model learned, which other files may not tell."""
    by_collection: dict[str, list[str]] = {}
    for branch in bundle.reads:
        if branch.collection is not None:
            by_collection.setdefault(branch.collection, []).append(branch.name)
    return by_collection


def _first_readable(
    files: Sequence[DataFile], name: str, access: Access, *, skip: bool
) -> FilePlan:
    blank = None
    reasons: list[str] = []
    for file in files:
        try:
            file_plan = plan_file(file.file, file.tree, name, access, file.friends)
        except UnreadableFileError as error:
            if not skip:
                raise
            reasons.append(error.message)
            continue
        if not file_plan.is_blank:
            return file_plan
        blank = blank or file_plan
    if blank is not None:
        return blank
    text = f"none of {len(files)} files can be read, the first: {reasons[0]}"
    raise UnreadableFileError(text, file=files[0].file, reason=reasons[0])


def _copied(first: FilePlan, identifiers: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Names of the branches to copy: flat ones that identify, then those of each pattern."""
    names = dict.fromkeys(
        name
        for pattern in identifiers
        for name, branch in first.branches.items()
        if matches(pattern, name) and branch.kind == "flat"
    )
    for pattern in patterns:
        matching = [name for name in first.branches if matches(pattern, name)]
        if not matching:
            reason = first.left_out.get(pattern)
            problem = (
                f"is not in tree {first.tree!r} of {first.file}"
                if reason is None
                else f"cannot be copied: it is {reason}"
            )
            near = did_you_mean(pattern, first.branches)
            raise ConfigError(f"--branches: branch {pattern!r} {problem}{near}", key="branches")
        names.update(dict.fromkeys(matching))
    return list(names)
