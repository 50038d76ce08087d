"""Devices: what a process can train on, and which rank of a training has which GPU."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlaas4hep_dask.errors import TrainingError

Device = Literal["auto", "cpu", "cuda"]  # the words of training.device


@dataclass(frozen=True)
class Gpus:
    """What torch sees of GPUs in a process.

    Parameters
    ----------
    names : tuple of str
        Of those that it can use, in its order; it has none where this is empty.
    ids : tuple of str
        What each is known by in all processes.
    error : str
        Why it can use none.
    """

    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Choice:
    """On what the ranks of a training compute.

    Parameters
    ----------
    devices : tuple of str
        Of each rank, as torch calls it: all ``cpu``, or each another GPU.
    words : str
        The same for people.
    caution : str
        Why GPUs that some ranks have are left idle; empty where none are.
    """

    devices: tuple[str, ...] = ()
    words: str = ""
    caution: str = ""

    @property
    def kind(self) -> str:
        """What all of them are: ``cpu`` or ``cuda``."""
        return "cuda" if self.devices and self.devices[0] != "cpu" else "cpu"


def choose(wish: Device, seen: Sequence[Gpus], workers: Sequence[str]) -> Choice:
    """Give every rank a GPU of its own, or none of them one.

    Parameters
    ----------
    wish : {"auto", "cpu", "cuda"}
        ``training.device``; with ``auto`` it is GPUs where every rank can have one.
    seen : sequence of Gpus
        What each rank's process sees. Ranks on one machine may see the same GPUs, or each that
        which its job was given (``CUDA_VISIBLE_DEVICES``).
    workers : sequence of str
        The workers of the ranks, for messages.

    Raises
    ------
    TrainingError
        When it is to be GPUs, and a rank has none.
    """
    on_cpus = ("cpu",) * len(seen)
    if wish == "cpu":
        return Choice(on_cpus, "training.device is cpu")
    lacking = next((rank for rank, gpus in enumerate(seen) if not gpus.names), None)
    if lacking is not None:
        why = f"{workers[lacking]} has no GPU: {seen[lacking].error}"
    else:
        owners = _owners([gpus.ids for gpus in seen])
        if len(owners) == len(seen):
            numbers = {rank: seen[rank].ids.index(gpu) for gpu, rank in owners.items()}
            names = [seen[rank].names[numbers[rank]] for rank in range(len(seen))]
            devices = tuple(f"cuda:{numbers[rank]}" for rank in range(len(seen)))
            return Choice(devices, "every rank has a GPU: " + ", ".join(names))
        why = (
            f"the {len(seen)} ranks see {len(owners)} GPU{'s' * (len(owners) != 1)} that they can "
            f"share out, and each needs its own; training.ranks: {len(owners)} would do"
        )
    if wish == "cuda":
        raise TrainingError(f"training.device is cuda, but {why}")
    is_idle = any(gpus.names for gpus in seen)
    return Choice(on_cpus, why, f"training.device: auto leaves GPUs idle: {why}" if is_idle else "")


def _owners(seen: Sequence[Sequence[str]]) -> dict[str, int]:
    """By GPU the rank that has it, so that as many ranks as possible have one of those they see."""
    owners: dict[str, int] = {}

    def place(rank: int, tried: set[str]) -> bool:
        for gpu in seen[rank]:
            if gpu not in tried:
                tried.add(gpu)
                if gpu not in owners or place(owners[gpu], tried):  # who has it may have another
                    owners[gpu] = rank
                    return True
        return False

    for rank in range(len(seen)):
        place(rank, set())
    return owners


def gpus_here() -> Gpus:
    """What torch sees of GPUs in this process."""
    try:
        torch = importlib.import_module("torch")
        if not torch.cuda.is_available():
            return Gpus(error=_why_none(torch))
        found = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    except Exception as error:  # of a driver, of which there are many kinds
        return Gpus(error=f"{type(error).__name__}: {error}")
    return Gpus(tuple(each.name for each in found), tuple(str(each.uuid) for each in found))


def gpu_lacking() -> str:
    """Why this process cannot be a rank with ``training.device: cuda``; empty where it can."""
    error = gpus_here().error
    return f"training.device is cuda, and there is no GPU: {error}" if error else ""


def _why_none(torch: Any) -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"PyTorch {torch.__version__} was built without CUDA"
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return "CUDA_VISIBLE_DEVICES is empty: the job was given none"
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return "torch sees none, and there is no nvidia-smi: the node or the container has none"
    process = subprocess.run([smi, "-L"], capture_output=True, text=True, check=False)  # noqa: S603
    return f"torch sees none, nvidia-smi says: {(process.stdout or process.stderr).strip()[:200]}"
