"""Copies of a user's proxy and token where jobs find them, as new as the user's own."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from mlaas4hep_dask.cluster.secrets import remove_secrets
from mlaas4hep_dask.cluster.sites.credentials import (
    Credential,
    credentials_for,
    files_of,
    time_needed,
    too_short,
)
from mlaas4hep_dask.cluster.sites.site import Site
from mlaas4hep_dask.errors import ClusterError

logger = logging.getLogger(__name__)
Looked = TypeVar("Looked")

COPY_INTERVAL = 60.0  # seconds between two looks at the user's files
CHECK_INTERVAL = 3600.0  # and between two looks at how long they last
FOLDER = "MLAAS4HEP_CREDENTIALS"  # tells a run that is detached where its own copies are


class Carried:
    """The copies; the user's files lie in folders that no other machine sees, such as ``/tmp``.

    Parameters
    ----------
    site : Site
        Whose keys ``proxy`` and ``token`` say what is carried.
    folder : Path
        Where copies are written, in mode 0600.
    environment : mapping of str to str, optional
        Variables; those of this process by default.

    Attributes
    ----------
    files : dict of str to Path
        The copy of each kind, ``proxy`` and ``token``, that there is.
    """

    def __init__(
        self, site: Site, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._site = site
        self._folder = folder
        self._environment = os.environ if environment is None else environment
        self._began = self._looked = self._checked = time.monotonic()
        self._stamps: list[tuple[str, int, int]] = []
        self.files: dict[str, Path] = {}
        self.copy()

    def before(self, look: Callable[[], Looked]) -> Callable[[], Looked]:
        """A function that first brings the copies up to date, when it is time."""

        def looked() -> Looked:
            self.keep(time.monotonic())
            return look()

        return looked

    def keep(self, now: float) -> None:
        """Copy what is new once a minute, and warn of what ends soon once an hour.

        Nothing that is wrong here ends a run: it is warned of.

        Parameters
        ----------
        now : float
            Of `time.monotonic`.
        """
        if now - self._looked < COPY_INTERVAL:
            return
        self._looked = now
        is_hour = now - self._checked >= CHECK_INTERVAL
        try:
            if self._stamps_now() == self._stamps and not is_hour:
                return
            credentials, warnings = self.copy()
        except (ClusterError, OSError) as error:
            logger.warning("%s", error)
            return
        if is_hour:
            self._checked = now
            left = time_needed(self._site) - (now - self._began)
            warnings += too_short(credentials, max(left, 2 * CHECK_INTERVAL))
        for warning in warnings:
            logger.warning("%s", warning)

    def copy(self) -> tuple[list[Credential], list[str]]:
        """Copy those that are of use; see `credentials_for`."""
        self._stamps = self._stamps_now()
        credentials, warnings = credentials_for(self._site, self._environment)
        for credential in credentials:
            copy = self._folder / credential.kind
            _write(credential.file.read_bytes(), copy)
            self.files[credential.kind] = copy
        return credentials, warnings

    def remove(self) -> None:
        """Remove the copies and all other secrets from the folder; see `remove_secrets`."""
        remove_secrets(self._folder)

    def _stamps_now(self) -> list[tuple[str, int, int]]:
        stamps = []
        for file in files_of(self._site, self._environment):
            with suppress(OSError):
                facts = file.stat()
                stamps.append((str(file), facts.st_mtime_ns, facts.st_size))
        return stamps


@contextmanager
def carried(site: Site, folder: Path) -> Iterator[Carried]:
    """The copies of a user's credentials, as long as the context."""
    copies = Carried(site, folder)
    try:
        yield copies
    finally:
        copies.remove()
        if folder_of_job := os.environ.get(FOLDER):  # of the job in which this works
            remove_secrets(Path(folder_of_job))


def _write(content: bytes, file: Path) -> None:
    """Write a secret; who reads meanwhile has the old one or the new one."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content)
    new.replace(file)
