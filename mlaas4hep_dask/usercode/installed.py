"""Which modules are installed packages, and of what version."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import site
import sys
import sysconfig
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

from mlaas4hep_dask import __version__

PACKAGE = "package "  # before the name of a package among the facts of code
VARIABLE = "environment's "  # before the name of a variable there
OWN = "mlaas4hep_dask"
# Their objects pass between a user's code and ours, so that there must be one copy of them only,
# also where somebody works on one and has it installed in editable form.
SHARED = {
    *("awkward", "coffea", "correctionlib", "dask", "dask_awkward", "distributed", "fsspec"),
    *("hist", "numba", "numpy", "pandas", "pyarrow", "scipy", "torch", "uproot", "vector"),
}
FOLDERS = ("site-packages", "dist-packages")


def value_of(variable: str) -> str:
    """What is known of a variable of the environment: its sha256, for it may be a secret."""
    value = os.environ.get(variable)
    return "not set" if value is None else hashlib.sha256(value.encode()).hexdigest()


def is_installed(spec: ModuleSpec) -> bool:
    """True for what belongs to Python or to an installed package, and for what is `SHARED`.

    Any other package that is installed in editable form is the user's own: its files lie elsewhere.
    """
    name = spec.name.partition(".")[0]
    if name == OWN or name in SHARED:
        return True
    places = [spec.origin] if spec.origin else [*(spec.submodule_search_locations or ())]
    if spec.origin in ("built-in", "frozen"):
        return True
    return bool(places) and all(_is_below(Path(place)) for place in places)


def _is_below(path: Path) -> bool:
    if any(part in FOLDERS for part in path.parts):
        return True
    return any(path.is_relative_to(folder) for folder in _folders())


@cache
def _folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    names = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    names += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple({Path(name).resolve() for name in names} | {Path(name) for name in names})


def content_of(spec: ModuleSpec) -> str:
    """The sha256, in hex, of all Python files of a package that is not where packages are put.

    Empty for any other: its version tells what it is.
    """
    if spec.name not in SHARED or not spec.origin or _is_below(Path(spec.origin)):
        return ""
    digest = hashlib.sha256()
    folder = Path(spec.origin).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def version_of(package: str) -> str:
    """The version of an installed top-level package; that of Python for what belongs to it."""
    if package in sys.stdlib_module_names:
        return f"Python {platform.python_version()}"
    if package == OWN:
        return __version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        names = sorted(set(importlib.metadata.packages_distributions().get(package, ())))
        return " ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
