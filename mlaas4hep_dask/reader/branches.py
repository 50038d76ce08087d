"""Which branches of a tree can be inputs, and of what kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import uproot

from mlaas4hep_dask.reader.opened import OpenTree
from mlaas4hep_dask.specs.events import Branch, unit_in


def classify(opened: OpenTree) -> dict[str, Branch | str]:
    """Every branch of the tree, in its order: what it holds, or why it cannot be an input."""
    found = dict(_rntuple(opened) if opened.is_rntuple else _ttree(opened.tree))
    return _with_collection_names(found)


def _ttree(tree: Any) -> Iterator[tuple[str, Branch | str]]:
    for name, branch in tree.iteritems(recursive=True):
        if len(branch.branches):
            continue  # its sub-branches come one by one
        try:
            interpretation = branch.interpretation
        except uproot.interpretation.identify.UnknownInterpretation:
            yield name, f"of unknown type {branch.typename}"
            continue
        unit = unit_in(branch.title)
        if isinstance(interpretation, uproot.AsJagged):
            inner = interpretation.content
            dtype = _number(inner)
            if dtype is None:
                yield name, f"of type {branch.typename}"
            else:
                counter = branch.count_branch
                collection = name if counter is None else counter.name
                yield name, Branch(name, "jagged", dtype, collection, unit)
        elif (dtype := _number(interpretation)) is not None:
            yield name, Branch(name, "flat", dtype, None, unit)
        elif isinstance(interpretation, uproot.AsStrings):
            yield name, "a string"
        elif "vector<vector" in branch.typename.replace(" ", "").replace("std::", ""):
            yield name, f"doubly nested ({branch.typename})"
        else:
            yield name, f"of type {branch.typename}"


def _number(interpretation: Any) -> str | None:
    if type(interpretation) is not uproot.AsDtype:
        return None
    dtype = interpretation.to_dtype
    if dtype.shape != () or dtype.kind not in "biuf":
        return None
    return str(dtype.newbyteorder("=").name)


def _rntuple(opened: OpenTree) -> Iterator[tuple[str, Branch | str]]:
    ntuple = opened.tree.ntuple
    names = {path: name for name, path in opened.members.items()}
    for top in opened.tree.fields:
        name = top.name
        if name.startswith("_collection"):
            continue  # its fields stand beside it under their own names
        # Of this field alone, without the members of records: to_akform() compares all names
        # with all names, which takes seconds for a thousand fields.
        field = ntuple.field_form(top.field_id, ())
        if field.is_record or (field.is_list and field.content.is_record):
            collection = name if field.is_list else None
            for member in top.fields:
                own = ntuple.field_form(member.field_id, ())
                called = names.get(member.path, member.path)
                yield called, _member(ntuple, member, called, own, collection)
        elif field.is_list and field.content.is_numpy and not field.parameter("__array__"):
            yield name, _primitive(name, "jagged", field.content, _counter(ntuple, top, field))
        else:
            yield name, _member(ntuple, top, name, field, None)


def _member(ntuple: Any, member: Any, name: str, form: Any, collection: str | None) -> Branch | str:
    """A field with one value per event, or per object of a collection; or why it is no input."""
    if form.is_numpy:
        kind = "flat" if collection is None else "jagged"
        return _primitive(name, kind, form, collection)
    if form.parameter("__array__") == "string":
        return "a string"
    if form.is_list and (collection is not None or form.content.is_list):
        return f"doubly nested ({form.type})"
    return f"of type {ntuple.field_records[member.field_id].type_name or form.type}"


def _counter(ntuple: Any, top: Any, field: Any) -> str:
    """The column that counts the objects, or the field's own name if it counts no others'."""
    own = ntuple.column_records[int(field.form_key.removeprefix("column-"))].field_id
    return str(top.name if own == top.field_id else field.form_key)


def _primitive(name: str, kind: Any, form: Any, collection: str | None) -> Branch | str:
    if form.inner_shape or np.dtype(form.primitive).kind not in "biuf":
        return f"of type {form.type}"
    return Branch(name, kind, form.primitive, collection)


def _with_collection_names(found: dict[str, Branch | str]) -> dict[str, Branch | str]:
    """The same branches, with the file's counters replaced by the collections' names.

    The counter ``nJet`` or ``NJet`` makes the collection ``Jet``; an RNTuple's anonymous one is
    called after what its branches' names have in common.
    """
    members: dict[str, list[str]] = {}
    for name, branch in found.items():
        if isinstance(branch, Branch) and branch.collection is not None:
            members.setdefault(branch.collection, []).append(name)
    names = {counter: _collection_name(counter, fields) for counter, fields in members.items()}
    taken = list(names.values())
    names = {
        counter: name if taken.count(name) == 1 else counter for counter, name in names.items()
    }
    return {
        name: Branch(name, branch.kind, branch.dtype, names[branch.collection], branch.unit)
        if isinstance(branch, Branch) and branch.collection is not None
        else branch
        for name, branch in found.items()
    }


def _collection_name(counter: str, fields: list[str]) -> str:
    if counter[:1] in "nN" and counter[1:2].isupper():
        return counter[1:]
    if counter.startswith("column-"):
        prefixes = {field.split("_", 1)[0] for field in fields}
        return prefixes.pop() if len(prefixes) == 1 else fields[0]
    return counter
