"""Generates ROOT files in the published shape: 22 flat and 52 jagged float32 branches.

The jagged branches form 4 collections of 13 branches each with Poisson(3) multiplicities, as in
the ttH data set of Kuznetsov, Giommi and Bonacorsi (Comput. Softw. Big Sci. 2021). Values carry
12 bits of mantissa, as NanoAOD stores them, so that they compress like real data. Half of the
files are signal, whose first three flat branches are shifted so that a network can learn.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

NUM_FLAT = 22
COLLECTIONS = ("Electron", "Jet", "Muon", "Photon")
BRANCHES_PER_COLLECTION = 13
MEAN_MULTIPLICITY = 3.0
CLUSTER_EVENTS = 25_000


def _compression(name: str) -> uproot.compression.Compression:
    return {"zlib": uproot.ZLIB(1), "lz4": uproot.LZ4(1), "zstd": uproot.ZSTD(5)}[name]


def _values(rng: np.random.Generator, size: int) -> np.ndarray:
    values = rng.gamma(2.0, 30.0, size).astype(np.float32)
    bits = values.view(np.uint32)
    bits &= np.uint32(0xFFFFF800)  # 12 bits of mantissa
    return values


def _cluster(rng: np.random.Generator, events: int, *, signal: bool) -> dict[str, object]:
    columns: dict[str, object] = {}
    for i in range(NUM_FLAT):
        shift = 6.0 if signal and i < 3 else 0.0
        columns[f"flat_{i:02d}"] = (_values(rng, events) + np.float32(shift)).astype(np.float32)
    for name in COLLECTIONS:
        counts = rng.poisson(MEAN_MULTIPLICITY, events)
        contents = {
            f"v{j:02d}": _values(rng, int(counts.sum())) for j in range(BRANCHES_PER_COLLECTION)
        }
        columns[name] = ak.unflatten(ak.zip(contents), counts)
    return columns


def generate(
    folder: Path,
    *,
    events: int,
    compression: str = "zlib",
    files: int = 4,
    cluster_events: int = CLUSTER_EVENTS,
    seed: int = 1,
) -> list[Path]:
    """Paths of ``files`` ROOT files with ``events`` events in all; made once and kept.

    Parameters
    ----------
    folder : Path
        Where the files go; each name holds everything the content depends on.
    events : int
        Events over all files.
    compression : {"zlib", "lz4", "zstd"}
        Levels 1, 1 and 5.
    files : int
        Number of files; the first half is signal.
    cluster_events : int
        Events per cluster, and per basket.
    seed : int
        Seed of the values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(files):
        num_events = events // files + (index < events % files)
        signal = index < files // 2
        kind = "signal" if signal else "background"
        path = folder / f"{kind}_{compression}_{num_events}_{cluster_events}_{seed}_{index}.root"
        paths.append(path)
        if path.exists():
            continue
        rng = np.random.default_rng([seed, index])
        part = path.with_suffix(".part")
        with uproot.recreate(part, compression=_compression(compression)) as file:
            for start in range(0, num_events, cluster_events):
                size = min(cluster_events, num_events - start)
                columns = _cluster(rng, size, signal=signal)
                if start == 0:  # mktree, because file["Events"] = ... would write an RNTuple
                    types = {
                        name: ak.type(values).content if name in COLLECTIONS else "float32"
                        for name, values in columns.items()
                    }
                    file.mktree("Events", types)
                file["Events"].extend(columns)
        part.rename(path)
    return paths


def generate_wide(folder: Path, *, branches: int = 2_656, events: int = 200) -> Path:
    """A file in the shape of NanoAOD, made once and kept: LZMA, one basket for each branch.

    Of 53 branches, 24 are jagged in one collection, whose counter is another, and 28 are flat, most
    of them triggers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"wide_{branches}_{events}.root"
    if path.exists():
        return path
    rng = np.random.default_rng(1)
    columns: dict[str, object] = {}
    counters: dict[str, str] = {}
    types: dict[str, object] = {}
    kinds = ["float32", "float32", "int32", "bool", "uint8", "int16"]
    for number in range(max(branches // 53, 1)):
        counts = rng.poisson(MEAN_MULTIPLICITY, events)
        for member in range(24):
            name, kind = f"Coll{number}_member{member}", kinds[member % len(kinds)]
            values = (_values(rng, int(counts.sum())) % 250).astype(kind)
            columns[name] = ak.unflatten(values, counts)
            types[name] = ak.types.ListType(ak.types.NumpyType(kind))
            counters[name] = f"nColl{number}"
    for number in range(max(branches - len(columns) - len(set(counters.values())), 1)):
        name = f"HLT_path{number}_v" if number % 7 else f"quantity{number}"
        columns[name] = rng.random(events) < 0.1 if number % 7 else _values(rng, events)
        types[name] = "bool" if number % 7 else "float32"
    part = path.with_suffix(".part")
    with uproot.recreate(part, compression=uproot.LZMA(4)) as file:
        file.mktree("Events", types, counter_name=counters.__getitem__)
        file["Events"].extend(columns)
    part.rename(path)
    return path


def linked(paths: list[Path], folder: Path, *, times: int) -> list[Path]:
    """Each file under ``times`` names in ``folder``, which is on the same disk."""
    links = [folder / f"{path.stem}_{number}.root" for path in paths for number in range(times)]
    for number, link in enumerate(links):
        link.hardlink_to(paths[number // times])
    return links


def main() -> None:
    """Generate files and print their paths as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--compression", choices=("zlib", "lz4", "zstd"), default="zlib")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--cluster-events", type=int, default=CLUSTER_EVENTS)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    paths = generate(
        options.folder,
        events=options.events,
        compression=options.compression,
        files=options.files,
        cluster_events=options.cluster_events,
        seed=options.seed,
    )
    print(json.dumps({"files": [str(path) for path in paths]}))


if __name__ == "__main__":
    main()
