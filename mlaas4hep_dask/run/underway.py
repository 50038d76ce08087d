"""Checkpoints within an epoch, in the run directory: the last one, whole or not at all.

Network and optimiser are one file, and what each rank goes on from is one each, named by the
window. The list of them is written last, and those of the checkpoint before are removed then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlaas4hep_dask.dataset.lost import Lost
from mlaas4hep_dask.run.directory import UNDER_WAY, RunDirectory
from mlaas4hep_dask.run.outcome import UnderWay

_FOLDER = "checkpoints"


def write_under_way(folder: RunDirectory, way: UnderWay, lost: Sequence[Lost]) -> None:
    """Write a checkpoint, with what could not be read so far, in place of the one before."""
    stem = f"{_FOLDER}/within-epoch-{way.epoch}-{way.window}"
    names = [f"{stem}.pt", *(f"{stem}-rank-{rank}.pt" for rank in range(len(way.parts)))]
    for name, content in zip(names, (way.state, *way.parts), strict=True):
        folder.write(name, content)
    facts: dict[str, Any] = {"epoch": way.epoch, "window": way.window, "rounds": way.rounds}
    facts |= {"seconds": way.seconds, "files": names, "lost": [each.as_json() for each in lost]}
    folder.write_json(UNDER_WAY, facts)
    _remove_others(folder, names)


def read_under_way(folder: RunDirectory, epoch: int) -> tuple[UnderWay | None, list[Any]]:
    """The checkpoint within an epoch, if there is one, and what could not be read until then."""
    if not (folder.path / UNDER_WAY).exists():
        return None, []
    facts = folder.read_json(UNDER_WAY)
    if facts["epoch"] != epoch:  # of one that was completed when the process was killed
        remove_under_way(folder)
        return None, []
    try:
        state, *parts = [(folder.path / name).read_bytes() for name in facts["files"]]
    except FileNotFoundError:  # somebody made room
        return None, []
    window, rounds, seconds = facts["window"], facts["rounds"], facts["seconds"]
    return UnderWay(epoch, window, rounds, seconds, state, tuple(parts)), facts["lost"]


def remove_under_way(folder: RunDirectory) -> None:
    """Remove the checkpoint within an epoch that is over."""
    (folder.path / UNDER_WAY).unlink(missing_ok=True)
    _remove_others(folder, [])


def _remove_others(folder: RunDirectory, names: Sequence[str]) -> None:
    for path in (folder.path / _FOLDER).glob("within-epoch-*.pt"):
        if f"{_FOLDER}/{path.name}" not in names:
            path.unlink(missing_ok=True)
