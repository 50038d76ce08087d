"""Tells whether a process can import what users' code and the reading of files need."""

from __future__ import annotations

import importlib.util
import platform
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mlaas4hep_dask.errors import CodeError
from mlaas4hep_dask.usercode.code import UserCode
from mlaas4hep_dask.usercode.installed import PACKAGE, VARIABLE, value_of, version_of

STANDARD = "Python "  # before the version of what belongs to Python itself


@dataclass(frozen=True)
class Need:
    """What something needs to be imported.

    Parameters
    ----------
    what : str
        What needs it, for messages: ``model 'net.py:build'``.
    packages : mapping of str to str
        Top-level modules that are installed, and their versions where the run is started.
    code : UserCode, optional
        The user's own.
    """

    what: str
    packages: Mapping[str, str]
    code: UserCode | None = None

    @classmethod
    def of(cls, what: str, modules: Iterable[str]) -> Need:
        """What needs modules of these names."""
        return cls(what, {name: version_of(name) for name in modules})

    @classmethod
    def of_code(cls, what: str, code: UserCode) -> Need:
        """What a callable consists of; ``what`` stands before its reference.

        What it tries to import and this process lacks too, it can do without.
        """
        packages = {
            name.removeprefix(PACKAGE): version
            for name, version in code.facts.items()
            if name.startswith(PACKAGE) and version != "missing"
        }
        return cls(f"{what} {code.reference!r}", packages, code)


@dataclass(frozen=True)
class Lack:
    """What a process cannot import.

    Parameters
    ----------
    what : str
        What needs it.
    module : str
        Its name; empty when code could not be imported for another reason.
    version : str
        That of the package where the run is started; empty when it is not known there.
    reason : str
        What was raised; empty for a module that is not there.
    """

    what: str
    module: str
    version: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Tried:
    """What a process can import.

    Parameters
    ----------
    lacks : tuple of Lack
        What it cannot.
    versions : mapping of str to str
        Those of packages that differ from where the run is started.
    variables : mapping of str to str
        Variables of the environment that code asks for by name and that have another value than
        where the run is started, and what asks for each.
    host, python, executable : str
        Where that is, and in what.
    """

    lacks: tuple[Lack, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    host: str = field(default_factory=socket.gethostname)
    python: str = field(default_factory=platform.python_version)
    executable: str = sys.executable


def try_imports(needs: Sequence[Need]) -> Tried:
    """What this process lacks of some needs; imports the users' code, and looks for the rest."""
    lacks: list[Lack] = []
    versions: dict[str, str] = {}
    variables: dict[str, str] = {}
    for need in needs:
        missing = [name for name in need.packages if not _is_there(name)]
        lacks += [Lack(need.what, name, need.packages[name]) for name in missing]
        for name, version in need.packages.items():
            if name in missing or version.startswith(STANDARD):
                continue
            version_here = version_of(name)
            if version and version_here and version_here != version:
                versions[name] = version_here
        if need.code is None:
            continue
        for fact, value in need.code.facts.items():
            name = fact.removeprefix(VARIABLE)
            if name != fact and value_of(name) != value:
                variables[name] = need.what
        if not missing:
            lacks += _lacks_of(need.what, need.code)
    return Tried(tuple(lacks), versions, variables)


def _is_there(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a finder of somebody's
        return False


def _lacks_of(what: str, code: UserCode) -> list[Lack]:
    try:
        code.load()
    except CodeError as error:
        cause = error.__cause__
        module = cause.name if isinstance(cause, ModuleNotFoundError) else None
        return [Lack(what, module or "", reason=error.message)]
    return []
