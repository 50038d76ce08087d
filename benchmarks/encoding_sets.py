"""Generated data sets that `encodings.py` trains on: branches as physics has them."""

from __future__ import annotations

from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray


class Labelled(NamedTuple):
    """Events and their labels."""

    events: ak.Array
    labels: NDArray[np.int64]


def heavy_tails(num_events: int, seed: int) -> Labelled:
    """Power-law momenta, a mass peak, angles, counts, flags, and one absurd value in three."""
    parts = []
    for label in (0, 1):
        rng = np.random.default_rng(2 * seed + label)
        num = num_events // 2
        pt = 20 * (1 + rng.pareto(2.2 - 0.3 * label, num))
        columns = {
            "pt": pt,
            "ht": pt * (1.5 + rng.gamma(2, 1 + 0.2 * label, num)),
            "eta": rng.normal(0, 1.5 - 0.2 * label, num),
            "phi": rng.uniform(-np.pi, np.pi, num),
            "mass": np.where(
                rng.random(num) < 0.3 + 0.2 * label,
                rng.normal(91, 3, num),
                rng.exponential(60, num),
            ),
            "iso": rng.exponential(0.05 * (1.3 - 0.3 * label), num),
            "const": np.ones(num),
            "big": rng.normal(1e6 + 3e3 * label, 1e4, num),
        }
        single = {name: values.astype("f4") for name, values in columns.items()}
        single["njet"] = rng.poisson(3 + 0.4 * label, num).astype("i4")
        single["flag"] = (rng.random(num) < 0.4 + 0.1 * label).astype("i4")
        single["pt"][0], single["ht"][1], single["iso"][2] = 1e7, 3e38, -999.0
        parts.append(ak.Array(single))
    return Labelled(ak.concatenate(parts), np.repeat([0, 1], num_events // 2))


def muon_pairs(num_events: int, seed: int) -> Labelled:
    """Muons as of NanoAOD; the Z peak against the rest of the mass spectrum; one has 24 TeV."""
    rng = np.random.default_rng(100 + seed)
    is_z = rng.random(num_events) < 0.3
    rest = np.where(
        rng.random(num_events) < 0.6,
        0.3 + rng.exponential(12, num_events),
        rng.choice([0.78, 1.02, 3.1, 9.46], num_events) * rng.normal(1, 0.01, num_events),
    )
    mass = np.where(is_z, np.abs(rng.normal(91.2, 2.8, num_events)), rest)
    boost, rapidity = 5 * rng.pareto(2, num_events) + 1, rng.normal(0, 1.3, num_events)
    cosine, azimuth = rng.uniform(-1, 1, num_events), rng.uniform(-np.pi, np.pi, (2, num_events))
    sine, energy = np.sqrt(1 - cosine**2), mass / 2
    total = np.hypot(mass, boost)
    legs = []
    for sign in (1, -1):
        x, y = (sign * energy * sine * f(azimuth[0]) for f in (np.cos, np.sin))
        along, own = (total * x + boost * energy) / mass, (total * energy + boost * x) / mass
        z = np.cosh(rapidity) * sign * energy * cosine + np.sinh(rapidity) * own
        px = np.cos(azimuth[1]) * along - np.sin(azimuth[1]) * y
        py = np.sin(azimuth[1]) * along + np.cos(azimuth[1]) * y
        pt = np.hypot(px, py)
        legs.append((pt, np.arcsinh(z / np.maximum(pt, 1e-6)).clip(-2.4, 2.4), np.arctan2(py, px)))
    pt, eta, phi = (np.stack(each, axis=1) for each in zip(*legs, strict=True))
    pt[7, 0] = 24_000.0
    charge = rng.choice([-1, 1], num_events)
    other = np.where(~is_z & (rng.random(num_events) < 0.3), charge, -charge)
    order = np.argsort(-pt, axis=1)
    columns = {"pt": pt, "eta": eta, "phi": phi, "charge": np.stack([charge, other], axis=1)}
    events = {
        f"Muon_{name}": np.take_along_axis(values, order, 1).ravel().astype("f4")
        for name, values in columns.items()
    }
    events["Muon_mass"] = np.full(2 * num_events, 0.10565837, "f4")
    counts = np.full(num_events, 2)
    jagged = {name: ak.unflatten(values, counts) for name, values in events.items()}
    return Labelled(ak.Array(jagged), ((mass > 80) & (mass < 100)).astype(np.int64))


def dalitz(num_events: int, seed: int) -> Labelled:
    """Two squared masses with narrow bands, momenta in MeV with long tails, and probabilities."""
    rng = np.random.default_rng(200 + seed)
    labels = (rng.random(num_events) < 0.5).astype(np.int64)
    first, second = rng.uniform(0.6, 2.9, (2, num_events))
    band = (labels == 1) & (rng.random(num_events) < 0.6)
    first = np.where(band, rng.normal(0.8, 0.05, num_events), first)
    band = (labels == 1) & (rng.random(num_events) < 0.3)
    second = np.where(band, rng.normal(1.04, 0.01, num_events), second)
    columns = {"m2_12": 1e6 * first, "m2_23": 1e6 * np.minimum(second, 3.2 - 0.6 * first)}
    momentum = 1e3 * (2 + 10 * rng.pareto(2.5, num_events))
    for leg in range(3):
        angle, azimuth = rng.exponential(0.1, num_events), rng.uniform(-np.pi, np.pi, num_events)
        own = momentum * rng.dirichlet([2, 2, 2], num_events)[:, leg]
        columns[f"H{leg}_PX"] = own * np.sin(angle) * np.cos(azimuth)
        columns[f"H{leg}_PY"] = own * np.sin(angle) * np.sin(azimuth)
        columns[f"H{leg}_PZ"] = own * np.cos(angle)
        columns[f"H{leg}_IPChi2"] = rng.chisquare(2 + labels) * rng.lognormal(0, 1, num_events)
        columns[f"H{leg}_ProbK"] = rng.beta(0.3 + 0.1 * labels, 0.4)
        columns[f"H{leg}_Charge"] = rng.choice([-1, 1], num_events)
    columns["H1_PZ"][5], columns["m2_12"][6] = 1e9, -1e30
    return Labelled(ak.Array(columns), labels)


def placeholders(num_events: int, seed: int) -> Labelled:
    """-999 and -1 for what is not there, many zeros, identifiers, edges, and absurd values."""
    rng = np.random.default_rng(300 + seed)
    labels = (rng.random(num_events) < 0.5).astype(np.int64)

    def uniform() -> NDArray[np.float64]:
        return rng.random(num_events)

    there = uniform() < 0.5 + 0.05 * labels
    columns: dict[str, Any] = {
        "lead_pt": np.where(there, 30 + rng.exponential(40 + 8 * labels), -999.0),
        "lead_eta": np.where(there, rng.normal(0, 1.6 - 0.2 * labels), -999.0),
        "btag": np.where(there, rng.beta(0.5 + 0.15 * labels, 1), -1.0),
        "iso": np.where(uniform() < 0.7 - 0.05 * labels, 0, rng.exponential(0.02, num_events)),
        "njet": rng.poisson(2 + 0.3 * labels).astype("i4"),
        "event": rng.integers(0, 2**31, num_events),
        "flag": uniform() < 0.1 + 0.03 * labels,
        "mass": np.where(
            uniform() < 0.05 + 0.06 * labels,
            rng.normal(125, 1.5, num_events),
            100 + rng.exponential(30, num_events),
        ),
        "edge": np.where(
            uniform() < 0.1 + 0.06 * labels,
            50 * np.sqrt(uniform()),
            rng.exponential(80, num_events),
        ),
        "seconds": 1.6e9 + rng.normal(0, 30 + 3 * labels),
        "nanoseconds": np.full(num_events, 1_700_000_000_000_000_000),
        "chi2": rng.chisquare(3, num_events) * rng.lognormal(0.1 * labels, 1),
        "z": rng.standard_cauchy(num_events) * (1 + 0.2 * labels),
        "tiny": 1e-9 * rng.gamma(2, 1 + 0.1 * labels),
    }
    columns["chi2"][3], columns["lead_pt"][4], columns["tiny"][9] = 1e38, 1e7, 5.0
    return Labelled(ak.Array(columns), labels)


def resonances(num_events: int, seed: int) -> Labelled:
    """Squared masses of a three-body decay in GeV², a band and its spin, and what is beside it."""
    rng = np.random.default_rng(500 + seed)
    labels = (rng.random(num_events) < 0.5).astype(np.int64)
    whole, parts = 1.865, (0.494, 0.1396, 0.1396)
    first = rng.uniform((parts[0] + parts[1]) ** 2, (whole - parts[2]) ** 2, num_events)
    kind = rng.random(num_events)
    is_band = (labels == 1) & (kind < 0.5)
    first = np.where(is_band, rng.normal(0.796, 0.04, num_events), first)
    first = np.where((labels == 1) & (kind > 0.85), rng.normal(1.99, 0.15, num_events), first)
    first = first.clip(0.405, 2.96)
    energy = (first - parts[1] ** 2 + parts[0] ** 2) / 2 / np.sqrt(first)
    other = (whole**2 - first - parts[2] ** 2) / 2 / np.sqrt(first)
    momenta = [
        np.sqrt(np.maximum(e**2 - m**2, 0)) for e, m in ((energy, parts[0]), (other, parts[2]))
    ]
    cosine = rng.uniform(-1, 1, num_events)
    cosine = np.where(is_band, np.cbrt(cosine), cosine)
    second = parts[0] ** 2 + parts[2] ** 2 + 2 * (energy * other - momenta[0] * momenta[1] * cosine)
    pt = rng.gamma(2, 1.5, num_events)
    is_peak = rng.random(num_events) < 0.5 + 0.2 * labels
    is_far = (labels == 0) & (rng.random(num_events) < 0.3)
    columns = {
        "s12": first,
        "s13": second,
        "s23": whole**2 + sum(m**2 for m in parts) - first - second,
        "D_pt": pt,
        "D_eta": rng.uniform(2, 5, num_events),
        "D_m": np.where(
            is_peak, rng.normal(1.865, 0.007, num_events), rng.uniform(1.8, 1.93, num_events)
        ),
        "ipchi2": rng.chisquare(2, num_events) * (1 + 2 * is_far),
        "dira": 1 - 1e-5 * rng.exponential(1.7 - 0.7 * labels),
        "tau": rng.exponential(0.41, num_events) * (1 + 0.2 * labels)
        + rng.normal(0, 0.05, num_events),
    }
    for leg in range(3):
        columns[f"h{leg}_px"] = pt * rng.normal(0, 0.4, num_events)
        columns[f"h{leg}_py"] = pt * rng.normal(0, 0.4, num_events)
        columns[f"h{leg}_pz"] = pt * rng.gamma(3, 3, num_events)
        columns[f"h{leg}_pidk"] = rng.normal(2.0 * labels * (leg == 0), 15)
    columns["tau"][9] = -1000.0
    return Labelled(ak.Array(columns), labels)


def jets(num_events: int, seed: int) -> Labelled:
    """Up to four jets in order of their momenta, with tags; -999 where there is none."""
    rng = np.random.default_rng(600 + seed)
    labels = (rng.random(num_events) < 0.5).astype(np.int64)
    num_jets = rng.poisson(2.2 + 0.5 * labels).clip(0, 4)
    pt = 25 + rng.exponential(35, (num_events, 4)) * (1 + rng.pareto(4, (num_events, 4)))
    pt = -np.sort(-pt * (1 + 0.12 * labels[:, None]), axis=1)
    columns: dict[str, Any] = {"njet": num_jets.astype("i4")}
    for k in range(4):
        is_b = rng.random(num_events) < 0.12 + 0.22 * labels
        own = {
            "pt": pt[:, k],
            "eta": rng.normal(0, 1.5 - 0.25 * labels).clip(-2.5, 2.5),
            "phi": rng.uniform(-np.pi, np.pi, num_events),
            "mass": pt[:, k] * (0.1 + 0.03 * rng.gamma(2, 1, num_events)),
            "btag": np.where(is_b, rng.beta(4, 0.7, num_events), rng.beta(0.5, 4, num_events)),
        }
        for name, values in own.items():
            columns[f"jet{k}_{name}"] = np.where(num_jets > k, values, -999.0).astype("f4")
    is_w = rng.random(num_events) < 0.25 * labels
    mass = np.where(is_w, rng.normal(80.4, 8, num_events), 20 + rng.gamma(2, 40, num_events))
    columns["mjj"] = np.where(num_jets >= 2, mass, -999.0).astype("f4")
    columns["met"] = (rng.rayleigh(25, num_events) * (1 + 0.25 * labels)).astype("f4")
    columns["met_phi"] = rng.uniform(-np.pi, np.pi, num_events).astype("f4")
    columns["jet0_pt"][5] = 1e6
    return Labelled(ak.Array(columns), labels)


def leptons(num_events: int, seed: int) -> Labelled:
    """Isolations near 0 with long tails, impact parameters of both signs, counts and angles."""
    rng = np.random.default_rng(700 + seed)
    labels = (rng.random(num_events) < 0.5).astype(np.int64)

    def drawn(kind: str, *numbers: Any) -> NDArray[Any]:
        made: NDArray[Any] = getattr(rng, kind)(*numbers, num_events)
        return made

    prompt = drawn("random") < 0.35 + 0.4 * labels
    at_zero = np.where(drawn("random") < 0.4, 0, drawn("exponential", 0.04))
    iso = np.where(prompt, at_zero, drawn("exponential", 0.4) * (1 + drawn("pareto", 3)))
    d0 = np.where(prompt, drawn("normal", 0, 0.002), drawn("laplace", 0, 0.02))
    dz = np.where(prompt, drawn("normal", 0, 0.004), 0.05 * drawn("standard_cauchy"))
    error = 0.001 * drawn("lognormal", 0, 0.5)
    columns: dict[str, Any] = {
        "pt": 5 + drawn("exponential", 12 + 10 * labels),
        "eta": drawn("uniform", -2.5, 2.5),
        "phi": drawn("uniform", -np.pi, np.pi),
        "met": drawn("exponential", 20 + 10 * labels),
        "iso03": iso,
        "iso04": iso * drawn("lognormal", 0.3, 0.3),
        "d0": d0,
        "dz": dz,
        "d0sig": d0 / error,
        "sip3d": np.hypot(d0, 0.1 * dz) / error,
        "nhits": drawn("binomial", 15, 0.8),
        "npv": drawn("poisson", 25),
        "chi2": drawn("chisquare", 8) / 8,
        "charge": drawn("choice", [-1, 1]),
        "pdg": drawn("choice", [-13, -11, 11, 13]),
        "run": drawn("integers", 297_047, 306_462),
        "mva": np.tanh(2 * drawn("normal", 0.3 * prompt, 0.8)),
        "rho": drawn("gamma", 9, 2.5),
    }
    columns["pt"][2], columns["dz"][1], columns["chi2"][3] = 24_000.0, -999.0, 1e30
    return Labelled(ak.Array(columns), labels)


def absent_jets(num_events: int, seed: int) -> Labelled:
    """A mass peak, and -999 in seven branches that two, one or no jets leave empty together."""
    rng = np.random.default_rng(800 + seed)
    labels = (rng.random(num_events) < 0.4).astype(np.int64)
    num_jets = rng.choice(4, num_events, p=[0.4, 0.31, 0.2, 0.09])
    is_pair = (labels == 1) & (rng.random(num_events) < 0.15)
    num_jets = np.where(is_pair, num_jets.clip(2), num_jets)
    rest = np.where(
        rng.random(num_events) < 0.6,
        rng.normal(95, 14, num_events),
        60 + rng.gamma(2, 40, num_events),
    )
    mass = np.where(labels == 1, rng.normal(122, 17, num_events), rest)
    width = np.abs(rng.normal(0, 1.6 + labels))
    lepton, tau = 26 + rng.exponential(20, num_events), 20 + rng.exponential(16 + 6 * labels)

    def beside(values: NDArray[Any], is_there: NDArray[np.bool_]) -> NDArray[Any]:
        return np.where(is_there, values, -999.0)

    one, two = num_jets >= 1, num_jets >= 2
    columns = {
        "mass": beside(mass, rng.random(num_events) > 0.15),
        "mt": np.abs(
            np.where(labels == 1, rng.exponential(28, num_events), rng.normal(45, 28, num_events))
        ),
        "mvis": mass * rng.beta(12, 5, num_events),
        "pth": rng.exponential(45 + 25 * labels),
        "deta": beside(width, two),
        "mjj": beside(90 * width + rng.exponential(200, num_events), two),
        "product": beside(rng.normal(0.8 - 2 * labels, 2), two),
        "centrality": beside(rng.beta(0.3 + 0.5 * labels, 0.5), two),
        "j1_pt": beside(30 + rng.exponential(50, num_events), one),
        "j1_eta": beside(rng.normal(0, 1.9, num_events), one),
        "j2_pt": beside(30 + rng.exponential(25, num_events), two),
        "njet": num_jets,
        "dr": np.abs(rng.normal(2.4 - 0.1 * labels, 0.75)),
        "ratio": lepton / tau,
        "lepton_pt": lepton,
        "lepton_phi": rng.uniform(-np.pi, np.pi, num_events),
        "tau_pt": tau,
        "tau_eta": rng.uniform(-2.5, 2.5, num_events),
    }
    return Labelled(ak.Array(columns), labels)


def presence(num_events: int, seed: int) -> Labelled:
    """-999 in each branch by itself: whether a value is there tells more than what it is."""
    rng = np.random.default_rng(950 + seed)
    labels = (rng.random(num_events) < 0.5).astype(np.int64)
    columns = {}
    for k in range(5):
        is_there = rng.random(num_events) < 0.35 + 0.25 * labels
        values = rng.gamma(2, 20, num_events) if k % 2 else rng.normal(5, 3, num_events)
        columns[f"seen{k}"] = np.where(is_there, values, 999.0 if k == 3 else -999.0)
    for k in range(4):
        columns[f"always{k}"] = rng.normal(0.3 * labels, 1)
    return Labelled(ak.Array(columns), labels)


def jet_bins(num_events: int, seed: int) -> Labelled:
    """No, one or two jets, more of them in the signal; a mass that fails for the background."""
    rng = np.random.default_rng(1100 + seed)
    labels = (rng.random(num_events) < 0.45).astype(np.int64)
    num_jets = rng.poisson(0.7 + 0.7 * labels)
    one, two = num_jets >= 1, num_jets >= 2
    failed = rng.random(num_events) < np.where(labels == 1, 0.03, 0.2)
    visible = np.where(labels == 1, rng.normal(80, 14, num_events), rng.gamma(9, 8, num_events))
    leading = 30 + rng.exponential(45 + 15 * labels)
    second = 30 + (leading - 30) * rng.beta(1.5, 2.5, num_events)
    apart = np.abs(rng.normal(0, 1.4 + 0.9 * labels))

    def beside(values: NDArray[Any], is_there: NDArray[np.bool_]) -> NDArray[Any]:
        return np.where(is_there, values, -999.0).astype("f4")

    columns: dict[str, Any] = {
        "mass": beside(1.4 * visible * rng.normal(1, 0.07, num_events), ~failed),
        "mvis": visible,
        "mt": np.abs(rng.normal(42 - 14 * labels, 25)),
        "pth": rng.gamma(2, 22 + 6 * labels),
        "met": rng.rayleigh(28 + 3 * labels),
        "deta": beside(apart, two),
        "mjj": beside(np.sqrt(2 * leading * second * (np.cosh(apart) + 1)), two),
        "zeppenfeld": beside(rng.normal(0, 1.2 - 0.4 * labels), two),
        "lepton_eta": rng.normal(0, 1.2, num_events),
        "dphi": np.pi * rng.beta(2 + labels, 1.5),
    }
    for name, values, is_there in (("j1", leading, one), ("j2", second, two)):
        columns[f"{name}_pt"] = beside(values, is_there)
        columns[f"{name}_eta"] = beside(rng.normal(0, 2, num_events), is_there)
        columns[f"{name}_phi"] = beside(rng.uniform(-np.pi, np.pi, num_events), is_there)
        columns[f"{name}_btag"] = beside(rng.beta(0.8, 3 + labels), is_there)
    return Labelled(ak.Array(columns), labels)


def detectors(num_events: int, seed: int) -> Labelled:
    """Three detectors that a particle may miss, with placeholders of their own; few are signal."""
    rng = np.random.default_rng(1200 + seed)
    labels = (rng.random(num_events) < 0.2).astype(np.int64)
    momentum = 1 + rng.gamma(2, 3, num_events)

    def drawn(kind: str, *numbers: Any) -> NDArray[Any]:
        made: NDArray[Any] = getattr(rng, kind)(*numbers, num_events)
        return made

    in_muon = drawn("random") < 0.25 + 0.3 * labels  # which tells them apart
    in_ring = drawn("random") < 0.7  # which does not
    in_calorimeter = drawn("random") < 0.85 - 0.1 * labels
    energy = momentum * drawn("normal", 0.9 - 0.3 * labels, 0.25)
    columns: dict[str, Any] = {
        "p": momentum,
        "eta": drawn("uniform", 2, 5),
        "track_chi2": drawn("chisquare", 20) / 20,
        "ip": drawn("exponential", 0.05 * (1 + labels)),
        "dedx": drawn("normal", 2 + 0.15 * labels, 0.3),
        "muon_chi2": np.where(in_muon, drawn("chisquare", 4 - labels), -1e3),
        "muon_hits": np.where(in_muon, drawn("normal", 30, 4), -1e3),
        "muon_time": np.where(in_muon, drawn("normal", 0, 2), -1e3),
        "ring_angle": np.where(in_ring, drawn("normal", 25 - labels, 2), 999.0),
        "ring_llk": np.where(in_ring, drawn("normal", 4 * labels - 2, 6), -99.0),
        "calo_energy": np.where(in_calorimeter, energy, -999.0),
        "calo_width": np.where(in_calorimeter, drawn("gamma", 4, 0.4 + 0.1 * labels), -999.0),
    }
    return Labelled(ak.Array(columns), labels)


def photon_pairs(num_events: int, seed: int) -> Labelled:
    """Two photons, and what may be beside them: a converted track, a lepton, a third photon."""
    rng = np.random.default_rng(1300 + seed)
    labels = (rng.random(num_events) < 0.5).astype(np.int64)

    def drawn(kind: str, *numbers: Any) -> NDArray[Any]:
        made: NDArray[Any] = getattr(rng, kind)(*numbers, num_events)
        return made

    def there(share: Any, *values: NDArray[Any]) -> list[NDArray[Any]]:
        is_there = drawn("random") < share
        return [np.where(is_there, each, -9999.0).astype("f4") for each in values]

    mass = np.where(
        drawn("random") < 0.35 * labels, drawn("normal", 125, 1.8), 100 + drawn("exponential", 30)
    )
    converted = there(0.4, drawn("exponential", 20), drawn("normal", 1.1 - 0.1 * labels, 0.25))
    lepton = there(
        0.08 + 0.07 * labels, 10 + drawn("exponential", 20 + 8 * labels), drawn("normal", 0, 1.1)
    )
    third = there(0.3 - 0.12 * labels, 20 + drawn("exponential", 12 - 4 * labels))
    vertex = there(0.9, drawn("normal", 0.4 * labels, 1), drawn("beta", 2 + labels, 2))
    columns: dict[str, Any] = {
        "mass": mass,
        "lead_ratio": drawn("beta", 4 + labels, 5),
        "second_ratio": drawn("beta", 3, 6 + labels),
        "lead_eta": drawn("normal", 0, 1.2),
        "second_eta": drawn("normal", 0, 1.4),
        "lead_mva": drawn("beta", 3 + labels, 1),
        "second_mva": drawn("beta", 2 + labels, 1.2),
        "rho": drawn("gamma", 9, 2.5),
        **dict(zip(("conversion_radius", "conversion_ep"), converted, strict=True)),
        **dict(zip(("lepton_pt", "lepton_eta"), lepton, strict=True)),
        "third_pt": third[0],
        **dict(zip(("vertex_pull", "vertex_score"), vertex, strict=True)),
    }
    return Labelled(ak.Array(columns), labels)
