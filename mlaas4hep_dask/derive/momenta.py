"""Four-momenta: sums of objects, and the numbers that are made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.derive.functions import delta_phi, sums


@dataclass(frozen=True, slots=True)
class Momenta:
    """Four-momenta in Cartesian coordinates, in units of the branches that they come from.

    Parameters
    ----------
    x, y, z, energy : ndarray of float64, shape (events,) or (objects,)
        Components; or Python's numbers.
    own_mass : ndarray of float64 or None
        The mass that they were made with. It is lost in the components of a light object, whose
        energy and momentum differ by less than what 64 bits hold. None for a sum.
    """

    x: Any
    y: Any
    z: Any
    energy: Any
    own_mass: Any = None

    @property
    def mass(self) -> Any:
        """The invariant mass; negative where momentum exceeds energy, as in ROOT."""
        if self.own_mass is not None:
            return self.own_mass
        square = self.energy**2 - self.x**2 - self.y**2 - self.z**2
        return np.copysign(np.sqrt(np.abs(square)), square)

    @property
    def pt(self) -> Any:
        """The transverse momentum."""
        return np.hypot(self.x, self.y)

    @property
    def eta(self) -> Any:
        """The pseudorapidity; infinite along the beam, 0 for no momentum at all."""
        return np.where(self.z == 0, 0.0, np.arcsinh(np.divide(self.z, self.pt)))

    @property
    def phi(self) -> Any:
        """The azimuth in radians, in (-pi, pi]; 0 where the transverse momentum is."""
        return np.arctan2(self.y, self.x)

    @property
    def ndim(self) -> int:
        """0 for one momentum that is the same in all events, else 1."""
        return np.ndim(self.x)

    def of_each(self, function: Callable[[Any], Any]) -> Momenta:
        """A function of every component that moves values and computes none."""
        return Momenta(*(None if part is None else function(part) for part in self._parts()))

    def _parts(self) -> Iterator[Any]:
        yield from (self.x, self.y, self.z, self.energy, self.own_mass)

    def __add__(self, other: Momenta) -> Momenta:
        return Momenta(
            self.x + other.x, self.y + other.y, self.z + other.z, self.energy + other.energy
        )

    def __sub__(self, other: Momenta) -> Momenta:
        return Momenta(
            self.x - other.x, self.y - other.y, self.z - other.z, self.energy - other.energy
        )

    def sums(self, offsets: NDArray[np.int64]) -> Momenta:
        """The sum of every event's momenta; nothing, of mass 0, where there is none."""
        parts = (self.x, self.y, self.z, self.energy)
        return Momenta(*(sums(part, offsets) for part in parts))


def p4(pt: Any, eta: Any, phi: Any, mass: Any) -> Momenta:
    """Of transverse momentum, pseudorapidity, azimuth and mass."""
    pt, eta, phi, mass = _together(pt, eta, phi, mass)
    z = pt * np.sinh(eta)
    energy = np.sqrt(pt**2 + z**2 + np.copysign(mass**2, mass))
    return Momenta(pt * np.cos(phi), pt * np.sin(phi), z, energy, mass)


def p4_energy(pt: Any, eta: Any, phi: Any, energy: Any) -> Momenta:
    """Of transverse momentum, pseudorapidity, azimuth and energy."""
    pt, eta, phi, energy = _together(pt, eta, phi, energy)
    return Momenta(pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), energy)


def p4_xyz(px: Any, py: Any, pz: Any, energy: Any) -> Momenta:
    """Of Cartesian components."""
    return Momenta(*_together(px, py, pz, energy))


def p4_xyzm(px: Any, py: Any, pz: Any, mass: Any) -> Momenta:
    """Of Cartesian components of the momentum, and mass."""
    px, py, pz, mass = _together(px, py, pz, mass)
    energy = np.sqrt(px**2 + py**2 + pz**2 + np.copysign(mass**2, mass))
    return Momenta(px, py, pz, energy, mass)


def mass_of(*parts: Any) -> Any:
    """The mass of the sum of objects, each with transverse momentum, eta, phi and mass."""
    groups = (parts[start : start + 4] for start in range(0, len(parts), 4))
    return reduce(Momenta.__add__, (p4(*group) for group in groups)).mass


def delta_r(*parts: Any) -> Any:
    """The distance in pseudorapidity and azimuth, of two momenta or of eta, phi, eta and phi."""
    if len(parts) == 2:
        a, b = parts
        parts = (a.eta, a.phi, b.eta, b.phi)
    eta, phi, other_eta, other_phi = parts
    return np.hypot(np.subtract(eta, other_eta, dtype=np.float64), delta_phi(phi, other_phi))


def where(condition: Any, a: Momenta, b: Momenta) -> Momenta:
    """The momenta ``a`` where the condition holds, else ``b``."""
    parts = [(a.x, b.x), (a.y, b.y), (a.z, b.z), (a.energy, b.energy)]
    if a.own_mass is not None and b.own_mass is not None:
        parts.append((a.own_mass, b.own_mass))
    return Momenta(*(np.where(condition, x, y) for x, y in parts))


def _together(*values: Any) -> list[NDArray[np.float64]]:
    """The same numbers in float64, as many of each."""
    return list(np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in values)))


#: What makes momenta of numbers.
MADE: dict[str, Callable[..., Momenta]] = {
    "p4": p4,
    "p4_energy": p4_energy,
    "p4_xyz": p4_xyz,
    "p4_xyzm": p4_xyzm,
}

#: What makes numbers of one momentum.
NUMBERS: dict[str, Callable[[Momenta], Any]] = {
    "mass": lambda of: of.mass,
    "pt": lambda of: of.pt,
    "eta": lambda of: of.eta,
    "phi": lambda of: of.phi,
    "px": lambda of: of.x,
    "py": lambda of: of.y,
    "pz": lambda of: of.z,
    "energy": lambda of: of.energy,
}

#: What a component of a vector is called after the dot, and what makes it of the momentum.
COMPONENTS = {
    **{name: name for name in NUMBERS},
    "m": "mass",
    "M": "mass",
    "E": "energy",
    "e": "energy",
}

_SEPARATORS = ("_", ".")
_ANGLES = (("pt", "eta", "phi"), ("PT", "Eta", "Phi"), ("Pt", "Eta", "Phi"))
_AXES = (("px", "py", "pz"), ("Px", "Py", "Pz"))
_MASSES = ("mass", "Mass", "m", "M")
_ENERGIES = ("energy", "Energy", "e", "E")


def members_of(name: str, available: Iterable[str]) -> tuple[str, tuple[str, ...]] | None:
    """What makes the momenta of the objects ``name``, and the branches that it is made of.

    The branches of ``Muon`` are ``Muon_pt``, ``Muon_eta``, ``Muon_phi`` and ``Muon_mass``, or have
    a dot there, or other names that experiments use; without a mass there is an energy, without
    angles Cartesian components. Three of four branches are returned where the fourth is absent;
    None where there is none of this.
    """
    there = _by_last_part(available)
    incomplete = None
    for separator in _SEPARATORS:
        for names, maker in ((_ANGLES, "p4"), (_AXES, "p4_xyz")):
            for three in names:
                directions = [there.get(f"{name}{separator}{each}") for each in three]
                if None in directions:
                    continue
                branches = tuple(each for each in directions if each is not None)
                energies = _first(there, name, separator, _ENERGIES)
                masses = _first(there, name, separator, _MASSES)
                if masses is not None and (maker == "p4" or energies is None):
                    return ("p4" if maker == "p4" else "p4_xyzm"), (*branches, masses)
                if energies is not None:
                    return ("p4_energy" if maker == "p4" else maker), (*branches, energies)
                incomplete = incomplete or (maker, branches)
    return incomplete


def _first(
    there: Mapping[str, str], name: str, separator: str, endings: Sequence[str]
) -> str | None:
    names_there = (there.get(f"{name}{separator}{ending}") for ending in endings)
    return next((each for each in names_there if each is not None), None)


def _by_last_part(available: Iterable[str]) -> dict[str, str]:
    """The branches by their names, and by what stands after the last slash if one alone has it."""
    names = list(available)
    last = [name.rpartition("/")[2] for name in names]
    often = Counter(last)
    once = {part: name for part, name in zip(last, names, strict=True) if often[part] == 1}
    return {**once, **{name: name for name in names}}
