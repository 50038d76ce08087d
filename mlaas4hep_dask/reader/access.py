"""How a file is reached: its format, its replicas, the bounds on time and attempts."""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field, fields
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec

from mlaas4hep_dask.catalog.locations import XROOTD_LIMITS
from mlaas4hep_dask.errors import DataError, MissingExtraError, MLaaSError, UnreadableFileError
from mlaas4hep_dask.formats import COMPRESSIONS, format_of
from mlaas4hep_dask.reader.counts import count_retry
from mlaas4hep_dask.reader.pace import PACE, Pace

logger = logging.getLogger(__name__)

T = TypeVar("T")

AVOIDED = 300.0  # seconds in which a server that failed is tried after the others, or only once
XROOTD = ("root", "xroot")
S3 = ("s3", "s3a")
_ABSENT = (404, 410)  # HTTP's answers for what does not exist


@dataclass(frozen=True)
class Access:
    """How files are read; the same for all files of a data set.

    Parameters
    ----------
    format : str
        Format of every file, one of `FORMATS`; ``auto`` takes it from the suffix, ROOT where that
        tells nothing.
    replicas : tuple of str
        Other servers, as URLs up to the path, to be tried in turn after a file's own.
    timeout : float
        Seconds in which a remote server must give the next piece of at most 8 MiB.
    attempts : int
        Times that a remote file is tried, over all of its replicas.
    types : tuple of (str, str)
        Columns of tables and their types, where the first rows do not tell.
    delimiter : str or None
        Between the columns of CSV files; None is a comma, or a tab in ``.tsv`` files.
    options : mapping of str to mapping
        By URL scheme: arguments of the fsspec file system.
    collections : tuple of (str, tuple of str)
        By name of a collection: patterns of its branches; none for those that stay apart.
    pace : Pace
        Pauses and pieces.
    """

    format: str = "auto"
    replicas: tuple[str, ...] = ()
    timeout: float = 60.0
    attempts: int = 3
    types: tuple[tuple[str, str], ...] = ()
    delimiter: str | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    collections: tuple[tuple[str, tuple[str, ...]], ...] = ()
    pace: Pace = PACE

    def __reduce__(self) -> tuple[Any, ...]:
        if self == Access():  # one is in every partition
            return (Access, ())
        return (Access, tuple(getattr(self, each.name) for each in fields(self)))

    def format_of(self, file: str) -> str:
        """Format of a file."""
        if self.format != "auto":
            return self.format
        return format_of(suffix_of(file)[0])

    def locations(self, file: str) -> list[str]:
        """Where the file may be found, in the order of trying."""
        if not is_remote(file):
            return [file]
        replicas = split_replicas(file)
        path = replicas[0].partition("://")[2].partition("/")[2].lstrip("/")
        others = [
            f"{prefix.rstrip('/')}{'//' if _scheme(prefix) in XROOTD else '/'}{path}"
            for prefix in self.replicas
        ]
        return list(dict.fromkeys([*replicas, *others]))

    def storage_options(self, location: str) -> dict[str, Any]:
        """Arguments of the fsspec file system of a URL.

        Raises
        ------
        MissingExtraError, DataError
            When what reads the URL's scheme is not installed; names the package.
        """
        scheme = _scheme(location)
        require_scheme(scheme)
        options: dict[str, Any] = dict(self.options.get(scheme, {}))
        if scheme in XROOTD:
            for name, value in XROOTD_LIMITS.items():  # read when its client is imported
                os.environ.setdefault(name, value)
            options.setdefault("timeout", math.ceil(self.timeout))
            options["skip_instance_cache"] = True  # it keeps handles that a dead server left
        elif scheme in ("http", "https"):
            import aiohttp

            limits = aiohttp.ClientTimeout(
                total=None, sock_connect=self.timeout, sock_read=self.timeout
            )
            options.setdefault("client_kwargs", {"timeout": limits})
        elif scheme in S3:
            bounds = {"connect_timeout": self.timeout, "read_timeout": self.timeout}
            # Those of the client are beside our attempts; by default it goes on for 7 s.
            retries = {"retries": {"mode": "standard", "max_attempts": 2}}
            options["config_kwargs"] = bounds | retries | options.get("config_kwargs", {})
        return options


PLAIN = Access()


def is_remote(file: str) -> bool:
    """True for a URL, False for a local path."""
    return "://" in file


def split_replicas(file: str) -> list[str]:
    """The URLs of a file that are joined by ``|``."""
    return re.split(r"\|(?=[a-z][a-z0-9+.-]*://)", file)


def suffix_of(file: str) -> tuple[str, str | None]:
    """The suffix that tells the format, in lower case, and the compression of a text file."""
    name = split_replicas(file)[0].partition("?")[0] if is_remote(file) else file
    path = Path(name.rpartition("/")[2].lower())
    compression = COMPRESSIONS.get(path.suffix)
    return (Path(path.stem).suffix if compression else path.suffix), compression


def _scheme(url: str) -> str:
    return url.partition("://")[0]


@cache
def require_scheme(scheme: str) -> None:
    """Raise unless files of a URL scheme can be read; names the package that is missing."""
    if scheme in XROOTD:
        if importlib.util.find_spec("fsspec_xrootd") is None:
            raise MissingExtraError.of("xrootd", module="fsspec_xrootd")
        return
    if scheme in S3 and importlib.util.find_spec("s3fs") is None:
        raise MissingExtraError.of("s3", module="s3fs")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise DataError(
            f"{scheme}:// files cannot be read: {error}", scheme=scheme, reason=str(error)
        ) from None
    except ValueError:
        raise DataError(f"fsspec knows no {scheme}:// files", scheme=scheme) from None


def require_schemes(files: Iterable[str], access: Access) -> None:
    """Raise unless all files can be reached with what is installed."""
    for file in files:
        for location in access.locations(file) if is_remote(file) else ():
            require_scheme(_scheme(location))


class _Clock:
    def __init__(self) -> None:
        self.hear()

    def hear(self) -> None:
        self.heard = time.monotonic()


class Servers:
    """What this process remembers of servers.

    Attributes
    ----------
    failures : dict of str to float
        By server: when it last failed.
    silences : dict of str to float
        By server: when it last kept silent in the last of all attempts.
    """

    def __init__(self) -> None:
        self.failures: dict[str, float] = {}
        self.silences: dict[str, float] = {}

    def forget(self) -> None:
        """Remember nothing more."""
        self.failures.clear()
        self.silences.clear()


SERVERS = Servers()


def server_of(url: str) -> str:
    """Scheme and host of a URL."""
    return "://".join(urlsplit(url)[:2])


_clock: ContextVar[_Clock | None] = ContextVar("_clock", default=None)


def heard() -> None:
    """Tell that a server has answered: its time begins anew."""
    listener()()


def listener() -> Callable[[], None]:
    """What `heard` does here, to be called from other threads."""
    clock = _clock.get() or _Clock()
    return clock.hear


def attempt(
    action: Callable[[str], T], file: str, access: Access, *, forget: Callable[[str], None]
) -> T:
    """What ``action`` returns for one of the file's locations; failures name the file.

    A remote file gets several attempts with growing pauses, at each of its replicas in turn; an
    attempt ends when the server gives no answer in time. A server that has failed lately comes
    last, so that not every partition waits for it; one that kept silent to the last attempt gets
    a single one as long, or until it answers. ``forget`` is told of a location that failed,
    so that nothing of it is used again.

    Raises
    ------
    UnreadableFileError
        When every attempt failed.
    """
    if not is_remote(file):
        try:
            return action(file)
        except MLaaSError:
            raise
        except Exception as error:  # uproot, pyarrow and codecs raise whatever the bytes cause
            raise _unreadable(file, error, 1) from error
    locations = sorted(access.locations(file), key=partial(_is_lately, SERVERS.failures))
    is_silent = all(_is_lately(SERVERS.silences, location) for location in locations)
    attempts = max(1 if is_silent else access.attempts, len(locations))
    pause = access.pace.pause
    number = 0
    while True:
        location = locations[number % len(locations)]
        number += 1
        try:
            return _in_time(action, location, access.timeout)
        except MLaaSError:
            raise
        except Exception as raised:  # as above
            cause = _unwrapped(raised)
            reason = reason_of(cause)
            forget(location)
            if _is_permanent(cause) and len(locations) > 1:
                locations.remove(location)
                number -= 1
            elif _is_permanent(cause) or number >= attempts:
                if _is_silence(cause):
                    SERVERS.silences[server_of(location)] = time.monotonic()
                raise _unreadable(file, cause, number) from raised
            if not _is_permanent(cause):
                SERVERS.failures[server_of(location)] = time.monotonic()
            logger.warning("%s: attempt failed (%s); trying again", location, reason)
            count_retry(file)
            if number % len(locations) == 0:  # all of them have failed
                time.sleep(pause)  # longer each time, so that a busy server gets air
                pause *= 2


def _in_time(action: Callable[[str], T], location: str, timeout: float) -> T:
    """The action's result; a thread that a dead server holds is left behind."""
    clock = _Clock()
    outcome: list[tuple[T | None, BaseException | None]] = []
    end = threading.Event()

    def run() -> None:
        _clock.set(clock)
        try:
            outcome.append((action(location), None))
        except BaseException as error:
            outcome.append((None, error))
        end.set()

    context = copy_context()
    threading.Thread(target=context.run, args=(run,), daemon=True, name=f"read {location}").start()
    while not end.wait(max(0.01, clock.heard + timeout - time.monotonic())):
        if time.monotonic() - clock.heard >= timeout:
            raise TimeoutError(f"no answer within {timeout:g} s")
    result, error = outcome[0]
    SERVERS.silences.pop(server_of(location), None)
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # None only if the action gives None


def _unwrapped(error: Exception) -> Exception:
    """What stopped an HTTP request: fsspec says of every failure that the file is not found."""
    import aiohttp

    cause = error.__cause__
    if not isinstance(error, FileNotFoundError):
        return error
    if not isinstance(cause, aiohttp.ClientError | TimeoutError):
        return error
    return error if getattr(cause, "status", None) in _ABSENT else cause


def _is_lately(failures: Mapping[str, float], location: str) -> bool:
    """True when the location's server is among those that failed in the last minutes."""
    return time.monotonic() - failures.get(server_of(location), -math.inf) < AVOIDED


def _is_silence(error: Exception) -> bool:
    """True for a time-out: ours, or that of a client, which XRootD calls expired."""
    return "timeout" in type(error).__name__.lower() or "expired" in str(error)


def _is_permanent(error: Exception) -> bool:
    # 3011 is XRootD's number for a file that does not exist.
    return (
        isinstance(error, FileNotFoundError) or "[3011]" in str(error) or _is_relative_path(error)
    )


def _is_relative_path(error: Exception) -> bool:
    """True when an XRootD server refuses the path of ``root://host/path``."""
    return "[3010]" in str(error) and "relative path" in str(error)


def _unreadable(file: str, error: Exception, attempts: int) -> UnreadableFileError:
    tried = f" after {attempts} attempts" if attempts > 1 else ""
    reason = reason_of(error)
    if _is_relative_path(error):
        reason += "; an absolute path stands after two slashes, as in root://host//path"
    if "expected Chunk of length" in reason:  # uproot's words, cut at the end of their first line
        reason += " but there are fewer bytes: the file is cut short, or of another format"
    return UnreadableFileError(f"{file} cannot be read{tried} ({reason})", file=file, reason=reason)


def reason_of(error: Exception) -> str:
    """Type of an error and the first line of its message."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}"
