"""Which branches of a tree can be inputs, and of what kind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import uproot

from mlaas4hep_dask.events.events import Branch, Kind, unit_in
from mlaas4hep_dask.reader.lists import containers_of_numbers
from mlaas4hep_dask.reader.ntuple import fields_of, late_fields
from mlaas4hep_dask.reader.objects import is_leaf_list
from mlaas4hep_dask.reader.reduced import reduced_precision
from mlaas4hep_dask.reader.shapes import Inside, numbers_in, numbers_of
from mlaas4hep_dask.reader.source import Catalogue, Source, distinct
from mlaas4hep_dask.reader.truncated import Lists
from mlaas4hep_dask.reader.vectors import bare, tidied
from mlaas4hep_dask.reader.whole import Whole, whole_objects, why_not_read

_FURTHER = "a further branch of this name, of which the first is read"
_NOT_UTF_8 = "of a name that is no UTF-8, which a model cannot keep"


def classify(tree: Any) -> Catalogue:
    """What a TTree or an RNTuple holds.

    Of two branches with one name the first is offered, as ROOT and uproot do. A branch that was
    filled for fewer or more entries than the tree has is left out, for nothing tells which
    entries its values belong to.
    """
    if not hasattr(tree, "branches"):
        catalogue = _named(list(fields_of(tree)), {}, {})
        late = late_fields(tree.ntuple)
        names = {name for name, each in catalogue.sources.items() if each.holder.field_id in late}
        return replace(catalogue, late=frozenset(names))
    return _ttree(tree)


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """A TBranch with its place in the tree."""

    path: str
    branch: Any
    is_group: bool


def _nodes(parent: Any, path: str = "") -> Iterator[_Node]:
    for branch in parent.branches:
        node_path = f"{path}{branch.name}"
        is_group = len(branch.branches) > 0
        yield _Node(node_path, branch, is_group)
        if is_group:
            yield from _nodes(branch, f"{node_path}/")


def _ttree(tree: Any) -> Catalogue:
    nodes = list(_nodes(tree))
    # A group holds multiplicities at most: its leaves have the names that people use.
    leaves_first = sorted(nodes, key=lambda node: node.is_group)
    keys = dict(zip(leaves_first, distinct(node.path for node in leaves_first), strict=True))
    # A counter is known by its leaf: uproot takes another branch for its owner.
    owners = {id(leaf): node for node in nodes for leaf in node.branch.member("fLeaves")}
    offers: list[Source | tuple[str, str]] = []
    filled: dict[str, int] = {}
    for node in nodes:
        if node.is_group or _is_bookkeeping(node.branch):
            continue  # the sub-branches of a group come one by one
        key = keys[node]
        leaf = node.branch.count_leaf
        owner = None if leaf is None else owners.get(id(leaf))
        numbers = [_num_filled(n.branch, tree.num_entries) for n in (node, owner) if n]
        short = [number for number in numbers if number != tree.num_entries]
        if node.branch.streamer is not None and node.branch.streamer.name == "fUniqueID":
            offers.append((key, _NUMBER))
        elif key != node.path:
            offers.append((key, _FURTHER))
        elif short:
            filled[key] = short[0]
            whose = ""
            if owner is not None and numbers[0] == tree.num_entries:
                whose = f"counted by {keys[owner]!r}, which is "
            offers.append((key, f"{whose}filled for {short[0]} of {tree.num_entries} entries"))
        else:
            counter = None if owner is None else keys[owner]
            offers += _sources(node.branch, key, counter)
    return _named(offers, filled, {keys[node]: node.branch for node in nodes})


# Named after what it is: by it samples can be told apart, as their processes have others.
_NUMBER = "the number of an object in the process that wrote it"


def _is_bookkeeping(branch: Any) -> bool:
    """True for the bits of a TObject, which are no data and not always of one length.

    ROOT writes two bytes more for an object that others refer to.
    """
    return branch.streamer is not None and branch.streamer.name == "fBits"


def _num_filled(branch: Any, expected: int) -> int:
    """Entries that a TBranch has; where it says as many as expected, those of its baskets."""
    if branch.num_entries != expected:
        return int(branch.num_entries)
    embedded = branch.embedded_baskets
    num_written = branch.num_baskets - len(embedded)
    in_file = int(branch.member("fBasketEntry")[num_written]) if num_written else 0
    return in_file + sum(int(basket.num_entries) for basket in embedded)


def _sources(branch: Any, key: str, counter: str | None) -> list[Source | tuple[str, str]]:
    """What a TBranch offers: one number, or all that its array, struct or class holds."""
    try:
        special: Any = (
            reduced_precision(branch) or containers_of_numbers(branch) or whole_objects(branch)
        )
        interpretation = branch.interpretation if special is None else special
        kind = branch.typename if special is None else "of reduced precision"
        unit = unit_in(branch.title)
        if isinstance(interpretation, uproot.AsStrings):
            return [(key, "a string")]
        is_jagged = isinstance(interpretation, uproot.AsJagged)
        dtype = _number(interpretation.content if is_jagged else interpretation)
        if dtype is not None:
            collection = (counter or key) if is_jagged else None
            shape: Kind = "jagged" if is_jagged else "flat"
            number = Branch(key, shape, dtype, collection, unit)
            return [Source(number, key, branch, counter, interpretation=special)]
        if isinstance(special, Whole):
            insides = numbers_in(special.form(branch.file))
        elif isinstance(special, Lists):
            insides = numbers_in(special.form())
        elif is_leaf_list(interpretation):
            insides = numbers_of(interpretation.to_dtype)
        else:
            insides = numbers_in(interpretation.awkward_form(branch.file))
    except uproot.interpretation.identify.UnknownInterpretation:
        return [(key, f"of unknown type {branch.typename}")]
    except uproot.interpretation.objects.CannotBeAwkward:
        return [(key, why_not_read(branch))]
    except (OSError, TimeoutError):
        raise
    except Exception as error:  # uproot raises whatever a class that it does not know causes
        return [(key, f"of a type that uproot cannot read ({type(error).__name__}: {error})")]
    if len(insides) == 1 and insides[0].reason.startswith("doubly nested"):
        return [(key, f"doubly nested ({kind})")]
    if len(insides) == 1 and insides[0].reason.startswith("of type"):
        return [(key, why_not_read(branch) if special is None else f"of type {kind}")]
    if not insides:
        return [(key, f"of type {branch.typename}, without a number")]
    base = _base(key) if any(inside.steps for inside in insides) else key
    offers = [_inside(each, base, key, branch, counter, unit) for each in insides]
    if special is None:
        return offers
    return [
        each if isinstance(each, tuple) else replace(each, interpretation=special)
        for each in offers
    ]


def _base(key: str) -> str:
    """What is common to the names of all that a TBranch holds.

    ROOT puts the number of elements behind the name of a member, and ``_M_elems`` for that of a
    ``std::array``; the coordinates of a vector are the vector.
    """
    base = re.sub(r"(\[[0-9]*\])+$", "", key)
    inner = re.sub(r"[/.](_M_elems|fCoordinates)$", "", base)
    return base if inner == base else bare(inner)


def _inside(
    inside: Inside, base: str, key: str, branch: Any, counter: str | None, unit: str | None
) -> Source | tuple[str, str]:
    name = f"{base}{inside.suffix}"
    if inside.dtype is None:
        return name, inside.reason
    if inside.list_at is None:
        return Source(
            Branch(name, "flat", inside.dtype, None, unit), key, branch, None, inside.steps
        )
    collection = counter or key
    if inside.list_at:
        collection = f"{key}.{'.'.join(map(str, inside.steps[: inside.list_at]))}"
    number = Branch(name, "jagged", inside.dtype, collection, unit)
    return Source(number, key, branch, counter, inside.steps)


def _number(interpretation: Any) -> str | None:
    if type(interpretation) is not uproot.AsDtype:
        return None
    dtype = interpretation.to_dtype
    if dtype.shape != () or dtype.kind not in "biuf":
        return None
    return str(dtype.newbyteorder("=").name)


def _named(
    offers: Iterable[Source | tuple[str, str]],
    filled: Mapping[str, int],
    holders: Mapping[str, Any],
) -> Catalogue:
    """The catalogue, with the file's counters replaced by the collections' names.

    The counter ``nJet`` or ``NJet`` makes the collection ``Jet``; an RNTuple's anonymous one is
    called after what its branches' names have in common. Any other gives its own name, the
    branch ``reco/hits`` of a class that of its path.
    """
    sources, left_out = _distinct(offers, holders)
    members: dict[str, list[str]] = {}
    for name, source in sources.items():
        if source.branch.collection is not None:
            members.setdefault(source.branch.collection, []).append(name)
    names = {
        counter: in_unicode(_collection_name(counter, fields))
        for counter, fields in members.items()
    }
    all_names = list(names.values())
    names = {
        counter: name if all_names.count(name) == 1 else counter for counter, name in names.items()
    }
    for name, source in sources.items():
        if source.branch.collection is not None:
            branch = replace(source.branch, collection=names[source.branch.collection])
            sources[name] = replace(source, branch=branch)
    short = {in_unicode(key): number for key, number in filled.items()}
    return Catalogue(sources, left_out, short, holders)


def in_unicode(name: str) -> str:
    r"""A name with escapes, such as ``\udcb5_pt``, for bytes that are no UTF-8.

    ROOT writes whatever bytes a program has; a JSON document, hence a bundle, cannot hold them.
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _distinct(
    offers: Iterable[Source | tuple[str, str]], holders: Mapping[str, Any]
) -> tuple[dict[str, Source], dict[str, str]]:
    """The sources by the names that people use, each of which stands for one; and the others."""
    sources: dict[str, Source] = {}
    left_out: dict[str, str] = {}
    for each in offers:
        if isinstance(each, tuple):
            left_out[in_unicode(each[0])] = each[1]
        elif in_unicode(each.branch.name) != each.branch.name:
            left_out[in_unicode(each.branch.name)] = _NOT_UTF_8
        elif each.branch.name in sources:
            left_out[f"{each.branch.name} of {each.key}"] = _FURTHER
        else:
            sources[each.branch.name] = each
    for name, tidy in tidied(sources).items():
        if tidy not in holders and tidy not in sources:
            source = sources.pop(name)
            sources[tidy] = replace(source, branch=replace(source.branch, name=tidy))
    return sources, left_out


def _collection_name(counter: str, fields: list[str]) -> str:
    if counter.startswith("column-"):
        prefixes = {field.split("_", 1)[0] for field in fields}
        return prefixes.pop() if len(prefixes) == 1 else fields[0]
    path, slash, leaf = counter.rpartition("/")
    if leaf[:1] in "nN" and leaf[1:2].isupper():
        leaf = leaf[1:]
    return f"{path}{slash}{leaf.removesuffix('.')}"
