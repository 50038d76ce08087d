"""What the components of ROOT's vectors are called, which have other names in each class.

A Lorentz vector has px, py, pz or pt, eta, phi, and E or mass; others x, y, z or what they are made
of. This holds whether the vector is a branch of its own, a member, or split into sub-branches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_COORDINATES = (
    {"fX": "px", "fY": "py", "fZ": "pz", "fT": "E"},
    {"fX": "px", "fY": "py", "fZ": "pz", "fM": "mass"},
    {"fPt": "pt", "fEta": "eta", "fPhi": "phi", "fM": "mass"},
    {"fPt": "pt", "fEta": "eta", "fPhi": "phi", "fE": "E"},
    {"fX": "x", "fY": "y", "fZ": "z"},
    {"fRho": "rho", "fEta": "eta", "fPhi": "phi"},
    {"fRho": "rho", "fZ": "z", "fPhi": "phi"},
    {"fR": "r", "fTheta": "theta", "fPhi": "phi"},
    {"fX": "x", "fY": "y"},
    {"fR": "r", "fPhi": "phi"},
)
_BY_MEMBERS: dict[frozenset[str], Mapping[str, str]] = {frozenset(c): c for c in _COORDINATES}
_OLD = {"TVector3": ("x", "y", "z"), "TVector2": ("x", "y")}  # without fCoordinates
_SPLIT = re.compile(r"(?P<head>.+?)[/.]fCoordinates(/fCoordinates)?\.(?P<member>f[A-Za-z]+)")
_MOMENTUM = re.compile(r"(?P<head>.+)[/.](fP\.(?P<axis>[xyz])|fE)")


def components(form: Any) -> dict[tuple[str, ...], str] | None:
    """By the way to each number of a record that is a vector: its name; None for any other.

    Parameters
    ----------
    form : awkward.forms.RecordForm
        What uproot makes of an object.
    """
    kind, fields = form.parameter("__record__") or "", list(form.fields)
    if kind == "TLorentzVector" and fields == ["fP", "fE"]:
        momentum: dict[tuple[str, ...], str] = {("fP", f"f{a.upper()}"): f"p{a}" for a in "xyz"}
        return momentum | {("fE",): "E"}
    if kind in _OLD:
        return {(f"f{axis.upper()}",): axis for axis in _OLD[kind]}
    if fields == ["fCoordinates"] and form.contents[0].is_record:
        inner = components(form.contents[0])
        return inner and {("fCoordinates", *way): name for way, name in inner.items()}
    if kind.startswith("ROOT::Math::") and (members := _BY_MEMBERS.get(frozenset(fields))):
        return {(member,): name for member, name in members.items()}
    return None


def tidied(names: Iterable[str]) -> dict[str, str]:
    """By name of a component of a vector that was split into sub-branches: the name it gets.

    ``p4/fCoordinates/fCoordinates.fPt`` is ``p4.pt``; ``muons/muons.fP.x`` beside
    ``muons/muons.fE`` is ``muons.px``. The other names of the tree stay as they are.
    """
    names = list(names)
    split: dict[str, dict[str, str]] = {}
    momenta: dict[str, dict[str, str]] = {}
    for name in names:
        if match := _SPLIT.fullmatch(name):
            split.setdefault(match["head"], {})[match["member"]] = name
        elif match := _MOMENTUM.fullmatch(name):
            component = f"p{match['axis']}" if match["axis"] else "E"
            momenta.setdefault(match["head"], {})[component] = name
    renamed: dict[str, str] = {}
    for head, members in split.items():
        if (names_of_members := _BY_MEMBERS.get(frozenset(members))) is not None:
            renamed |= {
                name: f"{bare(head)}.{names_of_members[member]}" for member, name in members.items()
            }
    for head, members in momenta.items():
        if members.keys() == {"px", "py", "pz", "E"}:
            renamed |= {name: f"{bare(head)}.{component}" for component, name in members.items()}
    others = set(names) - renamed.keys()
    return {name: new for name, new in renamed.items() if new not in others}


def bare(path: str) -> str:
    """A path without the repetition that ROOT makes of a branch in its sub-branches' names."""
    return re.sub(r"(^|/)([^/]+?)\.?/\2$", r"\1\2", path)
