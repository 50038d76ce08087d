"""Compares the branches of the files of a data set with those of the first."""

from __future__ import annotations

from collections.abc import Sequence

from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.events.events import Branch
from mlaas4hep_dask.reader.fileplan import FilePlan
from mlaas4hep_dask.reader.joins import what_to_write


def _why_left_out(file_plan: FilePlan, name: str) -> str | None:
    """Why the file lacks a branch, or all of the array or struct that it is an element of."""
    ends = [at for at, sign in enumerate(name) if sign in "[./"]
    wholes = (name[:at] for at in (len(name), *reversed(ends)))
    return next((file_plan.left_out[each] for each in wholes if each in file_plan.left_out), None)


def require_same_branches(
    reference: FilePlan, other: FilePlan, names: Sequence[str], *, advice: str = ""
) -> None:
    """Raise a DataError unless both files hold the branches ``names`` with equal types.

    A user's function may read those that cannot be inputs too. A file without events has none that
    could be of another type, and fits all others; a text does if its header does. ``advice`` ends
    the error of a branch that is missing.
    """
    if other.is_blank:
        if not other.lines:
            return
        header = other.branches.keys() | other.left_out.keys()  # JSON lines have none
        names = [n for n in names if header and n in reference.branches and n not in header]
    is_text = bool(other.lines) or bool(reference.lines)
    hint = "; types that the first lines do not tell can be given in reading.types"
    theirs, others_theirs = reference.own_names, other.own_names
    for name in names:
        expected = reference.branches.get(name)
        actual = other.branches.get(name)
        if expected is None:
            reason, why = reference.left_out[name], other.left_out.get(name)
            if why == reason:
                continue
            state = why or (actual.described() if actual else "missing")
            text = (
                f"is {state} in tree {other.tree!r} of {other.file}; it is {reason} in "
                f"{reference.file}"
            )
        elif actual is None:
            why = _why_left_out(other, name)
            state = f"is {why}" if why else "is missing"
            missing = [n for n in names if n in reference.branches and n not in other.branches]
            others = f"; {len(missing)} branches are missing there" if missing[1:] else ""
            text = (
                f"{state} in tree {other.tree!r} of {other.file}; it is {expected.kind} "
                f"{expected.dtype} in {reference.file}{others}{advice}"
            )
        elif (name in theirs) != (name in others_theirs):
            here, there = (reference, other) if name in theirs else (other, reference)
            text = (
                f"is of a friend tree of {here.file}, and of the tree itself in {there.file}; a "
                "prefix tells them apart"
            )
        elif _is_told_apart(name, expected, actual, reference, other):
            whole = actual if actual.collection != name else expected
            why = other.unlike.get(name) or reference.unlike.get(name)
            text = (
                f"is of collection {actual.collection!r} in {other.file} and of "
                f"{expected.collection!r} in {reference.file}{f': {why}' if why else ''}; "
                f"{what_to_write(str(whole.collection))}"
            )
        elif (expected.kind, expected.dtype) != (actual.kind, actual.dtype):
            text = (
                f"is {actual.described()} in {other.file} but {expected.described()} in "
                f"{reference.file}{hint if is_text and actual.dtype != expected.dtype else ''}"
            )
        else:
            continue
        raise DataError.in_tree(other, f"branch {name!r} {text}", branch=name)


def _is_told_apart(
    name: str, expected: Branch, actual: Branch, reference: FilePlan, other: FilePlan
) -> bool:
    """True for jagged branches of two collections, unless one file has no object to tell by."""
    if expected.kind != actual.kind or expected.collection == actual.collection:
        return False
    return name not in reference.vague and name not in other.vague
