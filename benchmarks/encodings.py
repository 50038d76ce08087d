"""Test AUC of the published network by normalisation: one for all branches, or ``auto``.

Every data set is generated, but for the CMS open data of the repository. Choices of one data set
share splits, seeds and steps, so that differences between them are surer than the spread over
seeds that stands beside each number.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import awkward as ak
import numpy as np
import torch
import uproot
from encoding_sets import (
    Labelled,
    absent_jets,
    dalitz,
    detectors,
    heavy_tails,
    jet_bins,
    jets,
    leptons,
    muon_pairs,
    photon_pairs,
    placeholders,
    presence,
    resonances,
)
from numpy.typing import NDArray
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import binary_cross_entropy_with_logits

from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.objective.arithmetic.curves import NUM_BINS, auc, fill
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.network import Dropout, mlp

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
    "resonances": (resonances, 3),
    "jets": (jets, 3),
    "leptons": (leptons, 3),
    "absent-jets": (absent_jets, 3),
    "presence": (presence, 3),
    "jet-bins": (jet_bins, 3),
    "detectors": (detectors, 3),
    "photon-pairs": (photon_pairs, 3),
}


def rows_of(events: Events, labels: NDArray[np.int64], choice: str) -> NDArray[np.float32]:
    """Dense rows under one choice for all branches, from specs as a run measures them."""
    prefix = choice.split("-")[0]
    names = [branch.name for branch in events.branches] if prefix in ("log", "symlog") else []
    transforms: dict[str, str] = dict.fromkeys(names, prefix)
    classes = labels.astype(np.uint8)
    specs = measure(events, sample="all", transforms=transforms, classes=classes)
    return encode(events, Encoding.from_specs(specs, normalisation=choice)).dense()


def test_areas(
    choices: list[NDArray[np.float32]], labels: NDArray[np.int64], *, epochs: int, num_seeds: int
) -> NDArray[np.float64]:
    """Areas under the ROC curve of the test events, shape (choices, seeds).

    All networks are trained side by side, each as a run does it on one rank: the products of one
    step are one call.
    """
    num = len(choices)
    x, y = torch.from_numpy(np.stack(choices)), torch.from_numpy(labels.astype(np.float32))
    generators = [np.random.default_rng(seed) for seed in range(num_seeds)]
    orders = [generator.permutation(len(labels)) for generator in generators]
    first, last = (int(sum(FRACTIONS[:n]) * len(labels)) for n in (1, 2))
    networks = []
    for seed in range(num_seeds):
        torch.manual_seed(seed)
        layers = mlp(x.shape[2]).children()  # PyTorch's own Dropout is known to vmap
        known = (torch.nn.Dropout(m.fraction) if isinstance(m, Dropout) else m for m in layers)
        networks.append(torch.nn.Sequential(*known))
    parameters, _ = stack_module_state(networks * num)
    optimiser = torch.optim.Adam(parameters.values(), lr=1e-3)

    def score(own: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = functional_call(networks[0], own, (rows,))
        return found

    score_all = vmap(score, randomness="different")
    for _ in range(epochs):
        shuffled = [
            generator.permutation(order[:first])
            for generator, order in zip(generators, orders, strict=True)
        ]
        for start in range(0, first - BATCH + 1, BATCH):
            batch = torch.from_numpy(np.stack([s[start : start + BATCH] for s in shuffled]))
            optimiser.zero_grad()
            logits = score_all(parameters, x[:, batch].flatten(0, 1))[:, :, 0]
            wanted = y[batch].repeat(num, 1)
            loss = binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / BATCH
            loss.backward()
            optimiser.step()
    networks[0].eval()
    areas = np.zeros((num, num_seeds))
    for k, (choice, seed) in enumerate(np.ndindex(num, num_seeds)):
        test = orders[seed][last:]
        with torch.no_grad():
            own = {name: values[k] for name, values in parameters.items()}
            logits = score(own, x[choice, test])[:, 0].nan_to_num()
        histogram = np.zeros((2, NUM_BINS))
        fill(histogram, logits.numpy(), y[test].numpy(), np.ones(len(test), np.float32))
        areas[choice, seed] = auc(histogram) or 0.5
    return areas


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
        rows = [rows_of(events, made.labels, choice) for choice in parsed.choices]
        areas = test_areas(rows, made.labels, epochs=epochs, num_seeds=parsed.seeds)
        table[name] = dict(zip(parsed.choices, areas.mean(1).round(4).tolist(), strict=True))
        spreads[name] = dict(zip(parsed.choices, areas.std(1).round(4).tolist(), strict=True))
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
