"""Which fields of an RNTuple can be inputs, and of what kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from mlaas4hep_dask.reader.source import Source
from mlaas4hep_dask.specs.events import Branch


def fields_of(tree: Any) -> Iterator[Source | tuple[str, str]]:
    """The fields in their order: what each offers, or its name and why it cannot be an input."""
    ntuple = tree.ntuple
    tops = [top for top in tree.fields if not top.name.startswith("_collection")]  # fields beside
    names = _member_names(ntuple, tops)
    for top in tops:
        try:
            yield from list(_columns(ntuple, top, names))
        except Exception as error:  # uproot raises whatever a type that it does not know causes
            yield top.name, f"of a type that uproot cannot read ({type(error).__name__}: {error})"


def _columns(ntuple: Any, top: Any, names: dict[str, str]) -> Iterator[Source | tuple[str, str]]:
    name = top.name
    # Of this field alone, without the members of records: to_akform() compares all names with all
    # names, which takes seconds for a thousand fields.
    form = ntuple.field_form(top.field_id, ())
    if form.is_record or (form.is_list and form.content.is_record):
        collection = name if form.is_list else None
        for member in top.fields:
            own = ntuple.field_form(member.field_id, ())
            called = names.get(member.path, member.path)
            yield _member(ntuple, member, called, own, collection)
    elif form.is_list and form.content.is_numpy and not form.parameter("__array__"):
        yield _primitive(top, name, "jagged", form.content, _counter(ntuple, top, form))
    else:
        yield _member(ntuple, top, name, form, None)


def _member_names(ntuple: Any, tops: list[Any]) -> dict[str, str]:
    """By the path of a member of a record, ``Jet.pt``: its name ``Jet_pt``.

    A member whose name another field has is called as its path.
    """
    records = ntuple.field_records  # uproot's own paths take seconds for a thousand
    inside: dict[int, list[int]] = {}
    for number, record in enumerate(records):
        if record.parent_field_id != number:
            inside.setdefault(record.parent_field_id, []).append(number)
    paths = []
    for top in tops:
        members = inside.get(top.field_id, [])
        if [records[member].field_name for member in members] == ["_0"]:  # what a list holds
            members = inside.get(members[0], [])
        paths += [f"{top.name}.{records[member].field_name}" for member in members]
    names = {path: path.replace(".", "_") for path in paths}
    taken = Counter([*names.values(), *(top.name for top in tops)])
    return {path: name if taken[name] == 1 else path for path, name in names.items()}


def _member(
    ntuple: Any, member: Any, name: str, form: Any, collection: str | None
) -> Source | tuple[str, str]:
    """A field with one value per event, or per object of a collection; or why it is no input."""
    if form.is_numpy:
        kind = "flat" if collection is None else "jagged"
        return _primitive(member, name, kind, form, collection)
    if form.parameter("__array__") == "string":
        return name, "a string"
    if form.is_list and (collection is not None or form.content.is_list):
        return name, f"doubly nested ({form.type})"
    return name, f"of type {ntuple.field_records[member.field_id].type_name or form.type}"


def _counter(ntuple: Any, top: Any, form: Any) -> str:
    """The column that counts the objects, or the field's own name if it counts no others'."""
    own = ntuple.column_records[int(form.form_key.removeprefix("column-"))].field_id
    return str(top.name if own == top.field_id else form.form_key)


def _primitive(
    field: Any, name: str, kind: Any, form: Any, collection: str | None
) -> Source | tuple[str, str]:
    if form.inner_shape or np.dtype(form.primitive).kind not in "biuf":
        return name, f"of type {form.type}"
    dtype = "float32" if form.primitive == "float16" else form.primitive
    return Source(Branch(name, kind, dtype, collection), field.path, field)
