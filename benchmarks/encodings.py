"""Test AUC of the published network by normalisation: one for all branches, or ``auto``.

Every data set is generated, but for the CMS open data of the repository. Choices of one data set
share splits, seeds and steps, so that differences between them are surer than the spread over
seeds that stands beside each number.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import torch
import uproot
from numpy.typing import NDArray

from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.metrics import auc, fill, new_histogram
from mlaas4hep_dask.train.network import mlp

CHOICES = (
    "minmax",
    "standard",
    "robust",
    "log-standard",
    "symlog-standard",
    "symlog-robust",
    "symlog-minmax",
    "auto",
)
SAMPLES = Path(__file__).parents[1] / "workflows" / "heptutorial" / "data"
BATCH = 100
FRACTIONS = (0.64, 0.16)  # for training and validation; the rest is for the test


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


def heptutorial(num_events: int, seed: int) -> Labelled:  # noqa: ARG001  # all of the files
    """Single top against diboson, CMS open data."""
    events, labels = [], []
    for path in sorted(SAMPLES.glob("*.root")):
        tree = uproot.open(path)["events"]
        known = tree.keys()
        names = [name for name in known if not name.startswith(("MC", "EventWeight"))]
        events.append(tree.arrays(names))
        labels.append(np.full(len(events[-1]), "single_top" in path.name))
    return Labelled(ak.concatenate(events), np.concatenate(labels).astype(np.int64))


SETS: dict[str, tuple[Callable[[int, int], Labelled], int]] = {  # with epochs
    "heptutorial": (heptutorial, 5),
    "heavy-tails": (heavy_tails, 3),
    "muon-pairs": (muon_pairs, 6),
    "dalitz": (dalitz, 3),
    "placeholders": (placeholders, 3),
}


def rows_of(events: Events, choice: str) -> NDArray[np.float32]:
    """Dense rows under one choice for all branches."""
    prefix = choice.split("-")[0]
    names = [branch.name for branch in events.branches] if prefix in ("log", "symlog") else []
    specs = measure(events, sample="all", transforms=dict.fromkeys(names, prefix))  # type: ignore[arg-type]
    return encode(events, Encoding.from_specs(specs, normalisation=choice)).dense()


def test_area(
    rows: NDArray[np.float32], labels: NDArray[np.int64], *, epochs: int, seed: int
) -> float:
    """Area under the ROC curve of the test events after training as a run does, on one rank."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    first, last = (int(sum(FRACTIONS[:n]) * len(labels)) for n in (1, 2))
    train, test = order[:first], order[last:]
    network = mlp(rows.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    loss_of = torch.nn.BCEWithLogitsLoss()
    x, y = torch.from_numpy(rows), torch.from_numpy(labels.astype(np.float32))[:, None]
    for _ in range(epochs):
        shuffled = rng.permutation(train)
        for start in range(0, len(shuffled) - BATCH + 1, BATCH):
            batch = shuffled[start : start + BATCH]
            optimiser.zero_grad()
            loss_of(network(x[batch]), y[batch]).backward()
            optimiser.step()
    network.eval()
    with torch.no_grad():
        logits = network(x[test])[:, 0].nan_to_num().numpy()
    histogram = new_histogram()
    fill(histogram, logits, y[test, 0].numpy(), np.ones(len(test), np.float32))
    return auc(histogram) or 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--events", type=int, default=60_000, help="events of generated sets")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each choice")
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=tuple(SETS))
    parser.add_argument("--choices", nargs="+", choices=CHOICES, default=CHOICES)
    parsed = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    table: dict[str, dict[str, float]] = {}
    spreads: dict[str, dict[str, float]] = {}
    print(f"| data | {' | '.join(parsed.choices)} |")
    print("|---|" + "---|" * len(parsed.choices))
    for name in parsed.sets:
        generate, epochs = SETS[name]
        made = generate(parsed.events, 0)
        events = Events.from_awkward(made.events)
        table[name], spreads[name] = {}, {}
        for choice in parsed.choices:
            rows = rows_of(events, choice)
            areas = [
                test_area(rows, made.labels, epochs=epochs, seed=seed)
                for seed in range(parsed.seeds)
            ]
            table[name][choice] = round(statistics.mean(areas), 4)
            spreads[name][choice] = round(statistics.pstdev(areas), 4)
        cells = [f"{table[name][c]:.4f} ± {spreads[name][c]:.4f}" for c in parsed.choices]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    gains = {
        name: round(own["auto"] - max(area for c, area in own.items() if c != "auto"), 4)
        for name, own in table.items()
        if "auto" in own and len(own) > 1
    }
    print(
        json.dumps(
            {
                "stage": "encodings",
                "seconds": round(time.perf_counter() - began, 1),
                "seeds": parsed.seeds,
                "auc": table,
                "spread": spreads,
                "auto_over_best_other": gains,
            }
        )
    )


if __name__ == "__main__":
    main()
