"""Generated events in the shape of the published validation: 27 flat branches, 8 + 1 files.

They stand for events of six jets, and what is made of them: pairs of top quarks with a Higgs boson
(signal) against others (background), the case of Kuznetsov, Giommi and Bonacorsi (Comput. Softw.
Big Sci. 2021). All is drawn from simple distributions; nothing is a simulation of physics.
"""

from __future__ import annotations

from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import uproot

SIGNAL_SHARE = 0.108
BACKGROUND_SHARES = (0.26, 0.20, 0.16, 0.12, 0.10, 0.07, 0.05, 0.04)  # one file each, ever harder
NUM_JETS = 6


def generate(folder: Path, *, events: int, seed: int = 1) -> list[Path]:
    """Paths of the signal file and of the eight background files, with ``events`` in all.

    Parameters
    ----------
    folder : Path
        Where the files go.
    events : int
        Events over all files, of which 10.8 % are signal.
    seed : int
        Seed of the values, and of the files' UUIDs, on which the split depends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    num_signal = round(SIGNAL_SHARE * events)
    edges = np.round(np.cumsum((0, *BACKGROUND_SHARES)) * (events - num_signal)).astype(int)
    paths = []
    for number, size in enumerate([num_signal, *np.diff(edges)]):
        path = folder / ("signal.root" if number == 0 else f"background_{number}.root")
        rng = np.random.default_rng([seed, number])
        branches = _signal(rng, size) if number == 0 else _background(rng, size, number)
        identity = uuid5(NAMESPACE_URL, f"mlaas4hep_dask/validation/{seed}/{events}/{path.name}")
        with uproot.recreate(path, uuid_function=lambda identity=identity: identity) as file:
            file.mktree("Events", dict.fromkeys(branches, "float32")).extend(branches)
        paths.append(path)
    return paths


def _signal(rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    mass = np.where(rng.random(size) < 0.5, rng.normal(120, 16, size), _falling(rng, size, 110))
    return _event(rng, size, scale=62.0, share_of_b=0.5, spread=1.15, mass=mass)


def _background(rng: np.random.Generator, size: int, number: int) -> dict[str, np.ndarray]:
    return _event(
        rng,
        size,
        scale=34.0 + 5.0 * number,
        share_of_b=0.26 + 0.02 * number,
        spread=1.6,
        mass=_falling(rng, size, 95 + 5 * number),
    )


def _falling(rng: np.random.Generator, size: int, mean: float) -> np.ndarray:
    return rng.gamma(3.0, mean / 3.0, size)


def _event(
    rng: np.random.Generator,
    size: int,
    *,
    scale: float,
    share_of_b: float,
    spread: float,
    mass: np.ndarray,
) -> dict[str, np.ndarray]:
    """27 branches of float32, momenta and masses in GeV."""
    shape = (size, NUM_JETS)
    hardness = rng.lognormal(0.0, 0.35, size)[:, None]
    pt = 30 + np.sort(rng.exponential(scale * hardness, shape))[:, ::-1]
    eta = np.clip(rng.normal(0.0, spread / hardness**0.3, shape), -2.4, 2.4)
    btag = np.where(
        rng.random(shape) < share_of_b, rng.beta(4.0, 1.3, shape), rng.beta(1.2, 4.0, shape)
    )
    ht = pt.sum(axis=1)
    energy = (pt * np.cosh(eta)).sum(axis=1)
    branches = {
        f"jet{jet + 1}_{name}": values[:, jet]
        for name, values in (("pt", pt), ("eta", eta), ("btag", btag))
        for jet in range(NUM_JETS)
    }
    branches |= {
        "ht": ht,
        "met": rng.gamma(2.0, 12.0, size) + 0.02 * ht,
        "num_jets": NUM_JETS + rng.poisson(0.4 + 0.8 * hardness[:, 0]),
        "num_btags": (btag > 0.7).sum(axis=1),
        "centrality": ht / energy,
        "mass_bb": mass,
        "mass_jjb": rng.normal(172, 22, size) + rng.exponential(40 * spread, size),
        "delta_r_bb": np.hypot(rng.normal(0, 1.0, size), rng.normal(0, 1.0, size)) + 80 / mass,
        "delta_eta_jj": np.abs(eta[:, 0] - eta[:, 1]),
    }
    return {name: values.astype(np.float32) for name, values in branches.items()}
