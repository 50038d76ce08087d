"""From the names of objects, such as ``Muon``, to the branches that their momenta are made of."""

from __future__ import annotations

from collections.abc import Collection

from mlaas4hep_dask.derive.grammar import Apply, Name, Node, Number, Pick, Slice
from mlaas4hep_dask.derive.momenta import COMPONENTS, NUMBERS, members_of
from mlaas4hep_dask.errors import ExpressionError, did_you_mean, nearest

_KEPT = ("+", "-", "sum")  # of momenta they make momenta


def bound(node: Node, available: Collection[str]) -> Node:
    """The same tree with ``p4(Muon_pt, …)`` where the momenta of ``Muon`` are meant.

    ``p3[0]`` becomes the branch of that name, if there is one, and ``p4.pt`` what it is of the
    other components of ``p4``, if there is none.

    Momenta are meant where momenta are needed, as in ``mass(Muon[:, 0] + Muon[:, 1])``, and nowhere
    else: a name in any other place is that of a branch.

    Raises
    ------
    ExpressionError
        When there are no branches to make them of.
    """
    match node:
        case Name():
            return _component(node, available) or node
        case Number():
            return node
        case Apply("chosen", (_, Number())) if (element := _element(node)) in available:
            return Name(element, 0, node.depth)
        case Pick(operand, index):
            return Pick(bound(operand, available), index, node.depth)
        case Slice(operand, start, stop):
            return Slice(bound(operand, available), start, stop, node.depth)
        case Apply(name, operands):
            takes_objects = (name in NUMBERS and len(operands) == 1) or (
                name == "delta_r" and len(operands) == 2
            )
            bind = _objects if takes_objects else bound
            return _again(node, tuple(bind(operand, available) for operand in operands))


def _objects(node: Node, available: Collection[str]) -> Node:
    """As `bound`, where momenta are needed."""
    match node:
        case Name():
            return _made(node, available)
        case Pick(operand, index):
            return Pick(_objects(operand, available), index, node.depth)
        case Slice(operand, start, stop):
            return Slice(_objects(operand, available), start, stop, node.depth)
        case Apply("chosen", (operand, mask)):
            return _again(node, (_objects(operand, available), bound(mask, available)))
        case Apply("where", (condition, *choices)):
            results = (_objects(choice, available) for choice in choices)
            return _again(node, (bound(condition, available), *results))
        case Apply(name, operands) if name in _KEPT:
            return _again(node, tuple(_objects(operand, available) for operand in operands))
        case _:
            return bound(node, available)


def component_text(name: str, available: Collection[str]) -> str | None:
    """The expression for a component that a vector does not have as a branch: ``pt(p4)``."""
    of, dot, component = name.rpartition(".")
    if not dot or name in available or component not in COMPONENTS:
        return None
    _, members = members_of(of, available) or ("", ())
    return f"{COMPONENTS[component]}(`{of}`)" if len(members) == 4 else None


def _component(node: Name, available: Collection[str]) -> Node | None:
    if component_text(node.name, available) is None:
        return None
    of, _, component = node.name.rpartition(".")
    momenta = _made(Name(of, node.column), available)
    return Apply(COMPONENTS[component], (momenta,), momenta.depth + 1)


def _element(node: Node) -> str:
    """``mat[0][1]`` of an element of an array that is written like that; else empty."""
    match node:
        case Name(name):
            return name
        case Apply("chosen", (operand, Number(value))) if type(value) is int:
            name = _element(operand)
            return f"{name}[{value}]" if name else ""
        case _:
            return ""


def _made(node: Name, available: Collection[str]) -> Node:
    momentum = members_of(node.name, available)
    if momentum is None:
        if node.name in available:
            return node  # numbers, of which the evaluation says that they are none
        objects = {_object_of(name) for name in available} - {""}
        candidates = [
            each for each in objects if len((members_of(each, available) or ((), ()))[1]) == 4
        ]
        raise ExpressionError(
            f"column {node.column}: there are no objects {node.name!r}: no branches "
            f"{node.name}_pt, {node.name}_eta, {node.name}_phi and {node.name}_mass, and none of "
            f"the other names that are known{did_you_mean(node.name, candidates)}",
            name=node.name,
            column=node.column,
            nearest=nearest(node.name, candidates),
        )
    maker, members = momentum
    if len(members) < 4:
        what = "mass" if maker == "p4" else "energy"
        call = f"{maker}({', '.join(members)}, …)"
        raise ExpressionError(
            f"column {node.column}: the objects {node.name!r} have no {what}; write {call} with "
            f"their {what}, which may be a number such as 0, in place of {node.name}",
            name=node.name,
            column=node.column,
        )
    names = tuple(Name(member, node.column) for member in members)
    return Apply(maker, names, node.depth + 1)


def _object_of(name: str) -> str:
    for ending in ("_pt", ".pt", ".PT", "_px", ".px"):
        if name.endswith(ending):
            return name.removesuffix(ending).rpartition("/")[2]
    return ""


def _again(node: Apply, operands: tuple[Node, ...]) -> Apply:
    depth = 1 + max((operand.depth for operand in operands), default=0)
    return Apply(node.name, operands, depth)
