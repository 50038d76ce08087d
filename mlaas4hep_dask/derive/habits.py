"""What is written in other ways elsewhere: in TTree::Draw, RDataFrame, NumPy, awkward, Python."""

from __future__ import annotations

import re

from mlaas4hep_dask.derive.functions import FUNCTIONS

_OBJECTS = "mass(p4(pt, eta, phi, mass)) has one per object, and mass(sum(p4(…))) that of their sum"
_COUNT = "the number of objects is count(x)"

# By name, in lower case and without the name of a module: what it is here.
_INSTEAD = {
    **dict.fromkeys(("len", "length", "size", "num", "nelements", "ndim"), _COUNT),
    **dict.fromkeys(("fabs", "absolute"), "it is abs(x) here"),
    "power": "a power is x ** y or pow(x, y) here",
    "square": "a square is x ** 2 here",
    "sq": "a square is x ** 2 here",
    "arcsin": "it is asin(x) here",
    "arccos": "it is acos(x) here",
    "arctan": "it is atan(x) here",
    "arctan2": "it is atan2(y, x) here",
    "arcsinh": "it is asinh(x) here",
    "ln": "the natural logarithm is log(x)",
    "rint": "it is round(x) here",
    "ceiling": "it is ceil(x) here",
    "fmod": "the remainder is x % y here",
    "mod": "the remainder is x % y here",
    "average": "it is mean(x) here",
    "avg": "it is mean(x) here",
    "maximum": "it is max(x, y) here",
    "minimum": "it is min(x, y) here",
    "amax": "it is max(x) here",
    "amin": "it is min(x) here",
    "maxif": "it is max(x[condition]) here",
    "minif": "it is min(x[condition]) here",
    "alt": "it is where(isnan(x), y, x) here",
    "isnull": "it is isnan(x) here",
    "finite": "it is isfinite(x) here",
    "first": "the first object of every event is x[:, 0]",
    "firsts": "the first object of every event is x[:, 0]",
    "last": "the last object of every event is x[:, -1]",
    "at": "an object of every event is x[:, 0], x[:, 1] and so on",
    "if": "a choice is where(condition, x, y)",
    "iif": "a choice is where(condition, x, y)",
    "take": "the first objects of every event are x[:, :2]",
    "filter": "objects are chosen by x[condition]",
    "deltar": "it is delta_r(eta, phi, eta, phi) here",
    "dr": "it is delta_r(eta, phi, eta, phi) here",
    "deltaphi": "it is delta_phi(phi, phi) here",
    "dphi": "it is delta_phi(phi, phi) here",
    "phi_mpi_pi": "it is delta_phi(phi, 0) here",
    **dict.fromkeys(
        ("invariantmass", "invariantmasses", "invmass", "m", "minv", "inv_mass"), _OBJECTS
    ),
    **dict.fromkeys(
        ("lorentzvector", "tlorentzvector", "ptetaphimvector"), "it is p4(pt, eta, phi, mass) here"
    ),
    "ptetaphievector": "it is p4_energy(pt, eta, phi, energy) here",
    "pxpypzevector": "it is p4_xyz(px, py, pz, energy) here",
    **dict.fromkeys(("int", "integer"), "whole numbers are made by floor(x) and round(x)"),
    **dict.fromkeys(("float", "double"), "arithmetic is that of 64 bits without it"),
    "argmax": "there are no positions here; max(x) is the value, and x[y == max(y)] the objects",
    "argmin": "there are no positions here; min(x) is the value, and x[y == min(y)] the objects",
    "sort": "objects are sorted by the key encode.sort",
    "reverse": "objects are sorted by the key encode.sort",
}
_CONSTANTS = {
    "pi": "pi",
    "twopi": "2 * pi",
    "piover2": "pi / 2",
    "e": "exp(1)",
    "infinity": "inf",
    "quietnan": "nan",
}
_PLACES = "numbers of entries and of objects cannot be written here"
_SPECIAL = dict.fromkeys(("entry", "iteration", "entries", "localentry"), _PLACES)


def instead_of(name: str) -> str:
    """``; it is abs(x) here`` for the name of a function elsewhere; empty if it is not known.

    Names of modules and classes before the last dot or pair of colons do not count.
    """
    head, last = _parted(name)
    low = last.lower().rstrip("$")
    if low in _INSTEAD:
        return f"; {_INSTEAD[low]}"
    if head and low in _CONSTANTS:
        return f"; it is {_CONSTANTS[low]} here"
    if (head or last != low) and low in FUNCTIONS:
        return f"; it is {low}({'y, x' if low == 'atan2' else 'x'}) here"
    return ""


def instead_of_text(text: str, place: int) -> str:
    """What to write in place of ``TMath::Abs``, ``Sum$`` and the like around a position."""
    for match in re.finditer(r"[A-Za-z_]\w*(?:(?:::|\.)[A-Za-z_]\w*)*\$?", text):
        name = match[0]
        if not match.start() <= place <= match.end() or not ("::" in name or name.endswith("$")):
            continue
        if name.endswith("$") and name[:-1].lower() in _SPECIAL:
            return f"; {_SPECIAL[name[:-1].lower()]}"
        hint = instead_of(name)
        if not hint and name.endswith("$"):
            hint = "; functions have no dollar here: sum(x), count(x), max(x) and the like"
        return hint or "; names with '::' are not accepted"
    return ""


def _parted(name: str) -> tuple[str, str]:
    parts = re.split(r"::|\.", name)
    return parts[-2] if len(parts) > 1 else "", parts[-1]
