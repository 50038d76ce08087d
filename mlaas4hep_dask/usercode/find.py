"""Finds a user's callable and all that it consists of, without running any of it."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from pathlib import Path
from typing import Any

from mlaas4hep_dask.errors import CodeError, did_you_mean
from mlaas4hep_dask.usercode.code import UserCode
from mlaas4hep_dask.usercode.files import (
    LARGE,
    MANY,
    SMALL,
    digest,
    digest_of_file,
    is_name,
    matching,
    named,
    source_in,
    texts_in,
)
from mlaas4hep_dask.usercode.installed import (
    OWN,
    PACKAGE,
    VARIABLE,
    content_of,
    is_installed,
    value_of,
    version_of,
)
from mlaas4hep_dask.usercode.parse import Parsed, parse, top_level_names
from mlaas4hep_dask.usercode.source import Source

_LOADERS: tuple[tuple[Any, list[str]], ...] = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)


def find_code(
    reference: str,
    *,
    resolve: Callable[[str], Path],
    values: Any = None,
) -> UserCode:
    """The code of a reference such as ``analysis.py:select``.

    It consists of the module that is named and of all modules of the user's own that this imports,
    at its top or inside functions, and those import in turn. The user's own are all modules that
    are not installed: files beside the user's file, beside the YAML, in the current directory and
    on Python's path, and packages that are installed in editable form. What modules this process
    has imported makes no difference.

    Files that the code or ``values`` name count by their content, and installed packages by their
    version. Where a part of a file's name is computed, all files count that it may mean, and where
    modules are imported by a name that is computed, all Python files of the folder, or of the
    package that the name begins with. So do the values, here, of the environment's variables that
    are asked for by name. What is not covered: what the code fetches from elsewhere, and files and
    variables whose names are computed as a whole.

    Parameters
    ----------
    reference : str
        ``module:callable`` or ``path/to/file.py:callable``.
    resolve : callable
        Makes a relative path absolute; ``.`` is the folder of the YAML file.
    values : JSON value, optional
        Keyword arguments of the callable, which may name files.

    Raises
    ------
    CodeError
        When there is no such file, module or callable; names the nearest.
    """
    module, _, function = reference.rpartition(":")
    importlib.invalidate_caches()
    base = resolve(".")
    closure = _Closure([base])
    if module.endswith(".py"):
        path = resolve(module)
        text = _text_of(path, reference)
        entry = path.stem.replace(".", "_")
        closure.roots.insert(0, path.parent)
        source, is_own = Source(entry, str(path), text), True
    else:
        entry, spec = module, closure.spec(module)
        if spec is None:
            raise CodeError(
                f"module {module!r} cannot be found; a file is written with its .py, "
                f"as models/{module.rpartition('.')[2] or 'network'}.py:{function}",
                callable=reference,
            )
        is_text = spec.origin is not None and spec.origin.endswith(".py")
        text = _text_of(Path(str(spec.origin)), reference) if is_text else ""
        source, is_own = Source(entry, str(spec.origin or ""), text), not is_installed(spec)
    # An installed module, as torch's losses, may have thousands of lines to parse.
    if is_own or not re.search(rf"^(?:def|class) {re.escape(function)}\b", text, re.MULTILINE):
        _require_name(reference, text)
    if module.endswith(".py"):
        closure.add(source)
    else:
        closure.follow(module)
        if closure.is_foreign(module):  # the version may stay the same where somebody edits it
            closure.facts[f"module {module}"] = digest(text.encode())
    for text in texts_in(values):
        closure.follow_named(text)
    closure.add_files(texts_in(values), [base, Path.cwd()])
    return UserCode(module, function, entry, closure.shipped(), dict(sorted(closure.facts.items())))


def _text_of(path: Path, reference: str) -> str:
    try:
        return importlib.util.decode_source(path.read_bytes())
    except (OSError, UnicodeDecodeError, SyntaxError) as error:
        near = ""
        if isinstance(error, FileNotFoundError):
            near = did_you_mean(path.name, [each.name for each in path.parent.glob("*.py")])
        reason = getattr(error, "strerror", None) or error
        raise CodeError(
            f"{reference!r}: {path} cannot be read ({reason}){near}", callable=reference
        ) from error


@dataclass
class _Closure:
    """The modules that code consists of, as far as they are known.

    Parameters
    ----------
    roots : list of Path
        Folders of the user's, in which modules are looked for first.
    """

    roots: list[Path]
    facts: dict[str, str] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    compiled: set[str] = field(default_factory=set)  # top-level packages that cannot travel
    looked_at: set[Path] = field(default_factory=set)  # Python files that are read by their name

    def spec(self, name: str) -> ModuleSpec | None:
        """Where a module lies, found without importing anything."""
        try:
            return self._spec(name)
        except (ImportError, ValueError, AttributeError):  # a finder of somebody's
            return None

    def _spec(self, name: str) -> ModuleSpec | None:
        if not name or name.startswith("."):
            return None
        parent, _, _ = name.rpartition(".")
        if parent:
            above = self._spec(parent)
            if above is None or above.submodule_search_locations is None:
                return None
            return _in_folders(name, above.submodule_search_locations)
        if name == OWN:  # else its tree would be anybody's who works in it
            return sys.modules[OWN].__spec__
        local = _in_folders(name, map(str, self.roots))
        if local is not None and local.origin is not None:
            return local
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, None, None)
            if spec is not None and (spec.origin is not None or local is None):
                return spec
        return local  # a folder without __init__.py

    def is_foreign(self, name: str) -> bool:
        """True for what does not travel: installed, compiled, or not there."""
        top = name.partition(".")[0]
        return top in self.compiled or not any(
            source.partition(".")[0] == top for source in self.sources
        )

    def shipped(self) -> tuple[Source, ...]:
        """The modules that travel; of packages with compiled parts only the digest counts."""
        for name, source in self.sources.items():
            if name.partition(".")[0] in self.compiled:
                self.facts[f"module {name}"] = digest(source.text.encode())
        return tuple(
            source
            for name, source in sorted(self.sources.items())
            if name.partition(".")[0] not in self.compiled
        )

    def follow(self, name: str, *, is_certain: bool = True) -> bool:
        """Add a module and the packages that it is in; True if it was found.

        ``from a import b`` may mean a module or a name in one, which then is no module that is
        missing.
        """
        top = name.partition(".")[0]
        above = self.spec(top)
        if above is not None and is_installed(above):
            self.facts[f"{PACKAGE}{top}"] = version_of(top)
            if content := content_of(above):
                self.facts[f"content of {top}"] = content
            return True
        if self.spec(name) is None:
            if is_certain:
                self.facts[f"{PACKAGE}{name}"] = "missing"
            return False
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            self._add_own(".".join(parts[:end]))
        return True

    def follow_named(self, text: str) -> None:
        """Add the module of the user's own that a value names, if there is one."""
        if all(part.isidentifier() for part in text.split(".")):
            above = self.spec(text.partition(".")[0])
            if above is not None and not is_installed(above):
                self.follow(text, is_certain=False)

    def _add_own(self, name: str) -> None:
        spec = self.spec(name)
        if name in self.sources or spec is None:
            return
        is_package = spec.submodule_search_locations is not None
        if spec.origin is None:
            self.sources[name] = Source(name, "", "", True)
            return
        path = Path(spec.origin)
        if path.suffix != ".py":
            self.compiled.add(name.partition(".")[0])
            self.facts[f"module {name}"] = digest_of_file(path)
            return
        self.add(Source(name, str(path), _text_of(path, name), is_package))

    def add(self, source: Source) -> None:
        """Add a module and all of the user's own that it imports."""
        self.sources[source.name] = source
        package = source.name if source.is_package else source.name.rpartition(".")[0]
        self.looked_at.add(Path(source.file))
        self._look(source.text, Path(source.file).parent, package)

    def _look(self, text: str, folder: Path, package: str) -> None:
        """Add all that a text of a module imports or names."""
        try:
            parsed = parse(text)
        except (SyntaxError, ValueError):  # it is told when the module is imported
            return
        self._add_roots(parsed, folder)
        for module, names, level in parsed.imports:
            # A file beside the user's is imported by `from . import` too.
            start = _absolute(module, package, level) if level else module
            if start is None:
                continue
            if not start or self.follow(start):
                if "*" in names:
                    names = [*names, *self._named_in(start)]
                for name in names:
                    if name != "*":
                        self.follow(f"{start}.{name}".strip("."), is_certain=False)
        if parsed.is_dynamic:
            for path in sorted(folder.glob("*.py")):
                self.facts[f"file {path.name}"] = digest_of_file(path)
        for above in parsed.packages:
            spec = self.spec(above)
            if spec is not None and not is_installed(spec):
                for place in spec.submodule_search_locations or ():
                    for path in sorted(Path(place).glob("*.py")):
                        self.facts[f"file {above}/{path.name}"] = digest_of_file(path)
        for name in parsed.variables:
            self.facts[f"{VARIABLE}{name}"] = value_of(name)
        self.add_files(parsed.files, [folder, *self.roots, Path.cwd()])

    def _named_in(self, package: str) -> list[str]:
        """Texts in a package that may be its ``__all__``, which a star imports."""
        source = self.sources.get(package)
        if source is None or not source.is_package:
            return []
        try:
            return [text for text in parse(source.text).texts if text.isidentifier()]
        except (SyntaxError, ValueError):
            return []

    def _add_roots(self, parsed: Parsed, folder: Path) -> None:
        """Folders that the code adds to Python's path, as far as its texts tell them."""
        if not parsed.changes_path:
            return
        folders = [folder / text for text in parsed.texts if is_name(text)]
        for each in [*folders, folder, folder.parent, folder.parent.parent]:
            if each not in self.roots and each.is_dir():
                self.roots.append(each)

    def add_files(self, names: Iterable[str], folders: Iterable[Path]) -> None:
        """Add the files that have one of these names, or match them, in any of the folders."""
        folders = list(dict.fromkeys(folders))
        for name in names:
            if not is_name(name):
                continue
            kind, find = ("files", matching) if "*" in name else ("file", named)
            found = dict.fromkeys(path for folder in folders for path in find(folder, name))
            digests: dict[str, None] = {}
            for number, path in enumerate(found):
                if path in self.looked_at and path.suffix == ".py":
                    continue
                large = LARGE if kind == "file" else SMALL if number < MANY else 0
                digests[digest_of_file(path, large=large)] = None
                if path.suffix == ".py":
                    self.looked_at.add(path)
                    self.facts[f"file {path.name}"] = digest_of_file(path)
                    self._look(source_in(path), path.parent, "")
            if digests:
                self.facts[f"{kind} {name}"] = ", ".join(digests)


def _require_name(reference: str, text: str) -> None:
    """Raise unless the text of a module has what the reference names."""
    module, _, function = reference.rpartition(":")
    try:
        names = top_level_names(text)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = "" if line is None else f"line {line}: "
        raise CodeError(
            f"{reference!r}: {where}{getattr(error, 'msg', error)}", callable=reference
        ) from error
    if text and function not in names and "*" not in names:
        raise CodeError(
            f"{module} has no {function!r}{did_you_mean(function, names)}", callable=reference
        )


def _in_folders(name: str, folders: Iterable[str]) -> ModuleSpec | None:
    """Where a module lies, whose last name stands in one of the folders.

    Unlike Python's own path finder this does not ask for what is imported already.
    """
    blank = None
    for folder in folders:
        spec = FileFinder(folder, *_LOADERS).find_spec(name)
        if spec is not None and spec.origin is not None:
            return spec
        blank = blank or spec
    return blank


def _absolute(module: str, package: str, level: int) -> str | None:
    """The name that a relative import means; None when it leads out of all packages."""
    parts = package.split(".") if package else []
    if level - 1 > len(parts):
        return None
    above = parts[: len(parts) - (level - 1)]
    return ".".join([*above, *([module] if module else [])])
