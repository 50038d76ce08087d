"""The batch systems by name, each from the module of its name."""

from __future__ import annotations

from importlib import import_module

from mlaas4hep_dask.cluster.systems.system import System
from mlaas4hep_dask.places import SYSTEMS

MODULES: dict[str, System] = {
    name: import_module(f"mlaas4hep_dask.cluster.systems.{name}").SYSTEM for name in SYSTEMS
}
QUEUES = {name: system.queue for name, system in MODULES.items()}
