"""Which fields of an RNTuple can be inputs, and of what kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import uproot

from mlaas4hep_dask.events.events import Branch
from mlaas4hep_dask.reader.shapes import numbers_in
from mlaas4hep_dask.reader.source import Source

Found = Source | tuple[str, str]
_MEMBERS = "of a record, with a dot in a name, which uproot cannot read"


def fields_of(tree: Any) -> Iterator[Found]:
    """The fields in their order: what each offers, or its name and why it cannot be an input."""
    ntuple = tree.ntuple
    tops = [top for top in tree.fields if not top.name.startswith("_collection")]  # fields beside
    names = _member_names(ntuple, tops)
    for top in tops:
        try:
            found = list(_columns(ntuple, top, names))
            yield from found or [(top.name, f"of type {top.typename}, without a number")]
        except Exception as error:  # uproot raises whatever a type that it does not know causes
            yield top.name, f"of a type that uproot cannot read ({type(error).__name__}: {error})"


def late_fields(ntuple: Any) -> set[int]:
    """Numbers of the fields that were added after the first entries, and of what they are in."""
    late: set[int] = set()
    for column in ntuple.column_records:
        if column.flags & uproot.const.RNTupleColumnFlags.DEFERRED:
            number = column.field_id
            while number not in late:  # a field at the top is its own parent
                late.add(number)
                number = ntuple.field_records[number].parent_field_id
    return late


def is_dotted(holder: Any) -> bool:
    """True for a field with a dot in its own name, whose path uproot takes for that of a member.

    uproot writes such names, ROOT does not.
    """
    return isinstance(holder, uproot.models.RNTuple.RField) and "." in holder.name


def _columns(ntuple: Any, top: Any, names: dict[str, str]) -> Iterator[Found]:
    # Of this field alone, without the members of records: to_akform() compares all names with all
    # names, which takes seconds for a thousand fields.
    form = ntuple.field_form(top.field_id, ())
    if form.is_record or (form.is_list and form.content.is_record):
        collection = top.name if form.is_list else None
        if is_dotted(top):
            yield top.name, _MEMBERS
            return
        is_vector = [member.name for member in top.fields] == ["fCoordinates"]
        for member in top.fields:
            path = f"{top.name}.{member.name}"
            name = path if is_vector else names.get(path, path)
            yield from _member(ntuple, member, name, collection)
    else:
        counter = _counter(ntuple, top, form) if form.is_list and not form.is_regular else top.name
        yield from _numbers(top, form, top.name, None, counter)


def _member(ntuple: Any, member: Any, name: str, collection: str | None) -> Iterator[Found]:
    """What a member of a record has for every event, or every object of a collection."""
    form = ntuple.field_form(member.field_id, ())  # lists of records come without their members
    has_objects = form.is_list and form.content.is_record
    if is_dotted(member):
        yield name, _MEMBERS
    elif has_objects and collection is not None:
        yield name, f"doubly nested {member.typename or '(a list of records)'}"
    elif form.is_record or has_objects:
        for inner in member.fields:
            of = name if has_objects else collection
            yield from _member(ntuple, inner, f"{name}.{inner.name}", of)
    else:
        yield from _numbers(member, form, name, collection, name)


def _numbers(
    field: Any, form: Any, name: str, collection: str | None, counter: str
) -> Iterator[Found]:
    """The numbers of a field; ``collection`` is that of the objects that have one each."""
    for inside in numbers_in(form):
        depth, full_name = inside.list_at, f"{name}{inside.suffix}"
        reason = inside.reason
        if depth is not None and collection is not None:
            reason = f"doubly nested ({form.type})"
        if inside.dtype is None or reason:
            for beginning in ("of type", "doubly nested"):
                if reason.startswith(beginning):
                    reason = f"{beginning} {field.typename}"
            yield full_name, reason
            continue
        of = collection
        if depth is not None:
            of = counter if depth == 0 else f"{name}.{'.'.join(map(str, inside.steps[:depth]))}"
        branch = Branch(full_name, "flat" if of is None else "jagged", inside.dtype, of)
        key = f"{field.path} ({field.field_id})" if is_dotted(field) else field.path
        yield Source(branch, key, field, None, inside.steps)


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
    times = Counter([*names.values(), *(top.name for top in tops)])
    return {path: name if times[name] == 1 else path for path, name in names.items()}


def _counter(ntuple: Any, top: Any, form: Any) -> str:
    """The column that counts the objects, or the field's own name if it counts no others'."""
    field_id = ntuple.column_records[int(form.form_key.removeprefix("column-"))].field_id
    return str(top.name if field_id == top.field_id else form.form_key)
