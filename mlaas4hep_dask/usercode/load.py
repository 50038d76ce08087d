"""Makes modules of shipped texts, each version under a name of its own."""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.util
import linecache
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from mlaas4hep_dask.usercode.installed import PACKAGE, is_installed, version_of
from mlaas4hep_dask.usercode.source import Source

PREFIX = "mlaas4hep_usercode_"

# What users' code raises and an error tells of: by sys.exit a process would end without a word.
RAISED = (Exception, SystemExit)


def imported(digest: str, name: str, sources: Sequence[Source]) -> ModuleType:
    """The module ``name`` among ``sources``, made once in a process for each digest."""
    root = root_of(digest)
    if root not in _FINDER.sources:
        _FINDER.sources[root] = {source.name: source for source in sources}
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    return importlib.import_module(f"{root}.{name}")


def imported_installed(name: str, facts: Mapping[str, str]) -> ModuleType:
    """An installed module.

    Raises
    ------
    ImportError
        When there is none, or its package has another version than where the facts come from.
    """
    module = importlib.import_module(name)
    package = name.partition(".")[0]
    expected = facts.get(f"{PACKAGE}{package}")
    version = version_of(package)
    if expected is not None and version != expected:
        raise ImportError(
            f"package {package} is {version} on this machine, {expected} where the run was started"
        )
    return module


def root_of(digest: str) -> str:
    """The package that modules of a digest are made in."""
    return f"{PREFIX}{digest[:16]}"


def where_of(error: BaseException, *more: str) -> str:
    """`` in line 3 of helpers.py``: the innermost frame of the user's own; empty without one.

    Modules that begin with one of ``more`` count as the user's own too, though installed.
    """
    prefixes = (PREFIX, *more)
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        name = f"{frame.f_globals.get('__name__', '')}."
        if name.startswith(prefixes):
            file = frame.f_globals.get("__file__") or name.rstrip(".")
            place = f" in line {line} of {Path(file).name}"
    return place


class _Finder(MetaPathFinder):
    """Finds modules by the sources that this process has been given."""

    def __init__(self) -> None:
        self.sources: dict[str, dict[str, Source]] = {}  # by root, then by name
        self.folders: dict[str, list[str]] = {}  # by full name: where other modules of it lie

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002  # and this
    ) -> ModuleSpec | None:
        root, _, name = fullname.partition(".")
        if root not in self.sources:
            return None
        if not name:
            return ModuleSpec(fullname, _Loader(None, self.sources[root]), is_package=True)
        source = self.sources[root].get(name)
        if source is None:  # a folder of the user's may hold more, if it is there
            lying = PathFinder.find_spec(fullname, path) if path else None
            if lying is None or not self.add(fullname, lying):
                return None
            source = self.sources[root][name]
        loader = _Loader(source, self.sources[root])
        spec = ModuleSpec(fullname, loader, origin=source.file, is_package=source.is_package)
        if source.is_package and source.file:
            spec.submodule_search_locations = [str(Path(source.file).parent)]
        elif fullname in self.folders:
            spec.submodule_search_locations = self.folders[fullname]
        return spec

    def add(self, fullname: str, spec: ModuleSpec) -> bool:
        """Add a module of the user's that lies in a file; False for what is no Python."""
        root, _, name = fullname.partition(".")
        folders = spec.submodule_search_locations
        if spec.origin is None and folders is not None:  # a folder without __init__.py
            self.folders[fullname] = list(folders)
            self.sources[root][name] = Source(name, "", "", True)
            return True
        if not (spec.origin or "").endswith(".py"):
            return False
        file = str(spec.origin)
        text = importlib.util.decode_source(Path(file).read_bytes())
        self.sources[root][name] = Source(name, file, text, folders is not None)
        return True


class _Loader(InspectLoader):
    """Makes one module of its text.

    What it imports of the user's own is found among the same sources. That it is, is told to the
    module's own ``__import__`` alone, so that no other code of the process sees these modules.
    """

    def __init__(self, source: Source | None, sources: Mapping[str, Source]) -> None:
        self._source = source
        self._tops = {name.partition(".")[0] for name in sources}

    def get_source(self, fullname: str) -> str:  # noqa: ARG002  # it loads one module
        return "" if self._source is None else self._source.text

    def exec_module(self, module: ModuleType) -> None:
        if self._source is None or not self._source.file:
            return
        text, file = self._source.text, self._source.file
        # TorchScript asks for the source of functions, which is this one whatever the file holds
        # by now.
        label = f"<{file} {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
        linecache.cache[label] = (len(text), None, text.splitlines(keepends=True), label)
        module.__file__ = file
        space = vars(module)
        root = module.__name__.partition(".")[0]
        own_import = _import_in(root, self._tops)
        space["__builtins__"] = {**vars(builtins), "__import__": own_import}
        exec(compile(text, label, "exec", dont_inherit=True), space)  # noqa: S102  # the user's own code


def _import_in(root: str, tops: set[str]) -> Callable[..., Any]:
    """``__import__`` of a module, which finds the user's own modules below ``root``."""

    def own_import(
        name: str, space: Any = None, local: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        top = name.partition(".")[0]
        # A statement gives its module's names; without them __import__ was called, by a name that
        # may be computed.
        if space is None and top not in tops and _adopted(top, root):
            tops.add(top)
        if level or top not in tops:
            module = __import__(name, space, local, fromlist, level)
            return module if level or top != "importlib" else _importlib(module, root, tops)
        module = __import__(f"{root}.{name}", space, local, fromlist, 0)
        return module if fromlist else sys.modules[f"{root}.{top}"]

    return own_import


def _importlib(module: ModuleType, root: str, tops: set[str]) -> ModuleType:
    """A copy of importlib, or a module of it, whose ``import_module`` finds the user's own modules.

    By a name that is computed it may ask for one that has not been sent. Where its file can be
    found, it is made anew of that, so that an earlier version that was imported once in this
    process is not taken: the digest holds all that may be meant.
    """

    def import_module(name: str, package: str | None = None) -> ModuleType:
        if name.startswith("."):
            name = importlib.util.resolve_name(name, package)
        top = name.partition(".")[0]
        if top not in tops and _adopted(top, root):
            tops.add(top)
        return importlib.import_module(f"{root}.{name}" if top in tops else name)

    if not hasattr(module, "import_module"):
        return module
    copy = ModuleType(module.__name__)
    vars(copy).update(vars(module), import_module=import_module)
    return copy


def _adopted(name: str, root: str) -> bool:
    """True for a module of the user's own that was not sent; its text is that of its file now."""
    spec = None if name in sys.builtin_module_names else PathFinder.find_spec(name)
    if spec is None or is_installed(spec):
        return False
    return _FINDER.add(f"{root}.{name}", spec)


_FINDER = _Finder()
