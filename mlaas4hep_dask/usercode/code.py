"""A user's callable with all modules of the user's own that it consists of."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlaas4hep_dask.errors import CodeError, ModelError, did_you_mean
from mlaas4hep_dask.usercode.load import PREFIX, RAISED, imported, imported_installed, where_of
from mlaas4hep_dask.usercode.source import Source


@dataclass(frozen=True)
class UserCode:
    """A user's callable in a form that reaches workers without the user's folder.

    The modules of the user's own travel with it. Every process that loads it makes them anew of
    these texts, under names of their own, so that a worker that has imported an earlier version,
    or another file of the same name, gives nothing stale.

    Parameters
    ----------
    module, function : str
        Module name or path of a Python file as the user wrote it, and name of the callable in it.
    entry : str
        Name of the module that has the callable.
    sources : tuple of Source
        The modules of the user's own, by name.
    facts : mapping of str to str
        What else decides what the code does: versions of the packages that it imports, digests of
        files that it names and of modules that cannot travel.
    """

    module: str
    function: str
    entry: str
    sources: tuple[Source, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """``module:callable`` as in dataset.yaml."""
        return f"{self.module}:{self.function}"

    @cached_property
    def digest(self) -> str:
        """The sha256, in hex, of the texts of all modules and of all other facts."""
        content = [self.entry, self.function, self.parts]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def parts(self) -> dict[str, str]:
        """By what it is: a version or a digest of all that the code consists of."""
        digests = {
            f"module {source.name}": hashlib.sha256(source.text.encode()).hexdigest()
            for source in self.sources
        }
        return {**digests, **self.facts}

    def load(self) -> Callable[..., Any]:
        """The callable.

        Raises
        ------
        CodeError
            When its module cannot be imported or does not have it.
        """
        try:
            if any(source.name == self.entry for source in self.sources):
                module = imported(self.digest, self.entry, self.sources)
            else:
                module = imported_installed(self.entry, self.facts)
        except RAISED as error:  # whatever the user's module raises at import
            where = self.where(error)
            hint = "; leave cache=True out" if "no locator available" in str(error) else ""
            raise CodeError(
                f"{self.reference!r} cannot be imported ({type(error).__name__}{where}: "
                f"{error}{hint})",
                callable=self.reference,
            ) from error
        value = getattr(module, self.function, None)
        if value is not None and not callable(value):
            kind = type(value).__name__
            raise CodeError(
                f"{self.reference!r} is no function: it is a {kind}", callable=self.reference
            )
        if value is None:
            near = did_you_mean(self.function, vars(module))
            raise CodeError(
                f"{self.module} has no function {self.function!r}{near}", callable=self.reference
            )
        return value  # type: ignore[no-any-return]

    def where(self, error: BaseException) -> str:
        """`` in line 3 of helpers.py``: the innermost place of the user's own, if there is one."""
        return where_of(error, f"{self.entry}.")

    def asked_for(self, error: ImportError) -> bool:
        """True where the user's own modules ask for what cannot be imported, and not a library."""
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        names = [f"{frame.f_globals.get('__name__', '')}." for frame in frames]
        asking = [name for name in names if not name.startswith(("importlib.", f"{__package__}."))]
        return bool(asking) and asking[-1].startswith((PREFIX, f"{self.entry}."))

    def message(self, what: str, cause: BaseException | None = None) -> str:
        """What is wrong with it, and where and why if something was raised."""
        reason = ""
        if cause is not None:
            kind = "" if isinstance(cause, ModelError) else f"{type(cause).__name__}: "
            reason = f"{self.where(cause)} ({kind}{cause})"
        return f"{self.reference!r} {what}{reason}"
