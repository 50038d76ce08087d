"""Specs of single files, kept in a folder so that a file is measured once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import zstandard
from platformdirs import user_cache_path

from mlaas4hep_dask import __version__
from mlaas4hep_dask.config import Places
from mlaas4hep_dask.errors import SpecsError
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.reader import Partition
from mlaas4hep_dask.specs import Specs

logger = logging.getLogger(__name__)

FORMAT = 10  # to be raised whenever `measure` or an entry changes
SUFFIX = ".specs.zst"
VARIABLE = "MLAAS4HEP_CACHE"  # environment variable with another folder for `auto`
DAMAGED: tuple[Any, ...] = (
    OSError,
    zstandard.ZstdError,
    ValueError,
    LookupError,
    TypeError,
    SpecsError,
)
Counts = tuple[int, int, int]


@dataclass(frozen=True)
class Entry:
    """What the cache holds of one file.

    Parameters
    ----------
    specs : Specs
        Of all its partitions.
    split_counts : tuple of tuple of int
        By partition: events for training, validation and test.
    numbers : tuple of int
        Of the partitions in their plan, where they are not all those of one file.
    """

    specs: Specs
    split_counts: tuple[Counts, ...]
    numbers: tuple[int, ...] = ()


def cache_folder(cache: str | None, places: Places) -> Path | None:
    """The folder of the cache of specs, made if need be; None when there is none.

    Parameters
    ----------
    cache : str or None
        The key ``specs.cache``.
    places : Places
        Where folders are, and where keys were written, for errors.

    Raises
    ------
    ConfigError
        When the folder that the configuration names cannot be written.
    """
    if cache is None:
        return None
    is_auto = cache == "auto"
    users = Path(os.environ.get(VARIABLE) or user_cache_path("mlaas4hep_dask"))
    folder = users / "specs" if is_auto else places.resolve(cache)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{folder} is read-only")
    except OSError as error:
        if is_auto:
            logger.warning("specs are not kept: %s", error)
            return None
        text = f"specs.cache {folder} cannot be written ({error.strerror or error})"
        raise places.error("specs.cache", text) from error
    return folder


def entry_names(
    files: Sequence[tuple[Partition, Sequence[Any]]], branches: Sequence[Branch]
) -> list[str]:
    """Names of files' entries: other for other files, another selection or other branches.

    Parameters
    ----------
    files : sequence of (Partition, sequence of JSON values)
        A partition of the file, and all else that the specs of the file depend on. The
        partition's stamp counts beside its UUID, which a file keeps that is written to again,
        and which a damaged copy has.
    branches : sequence of Branch
        The inputs.
    """
    inputs = [asdict(branch) for branch in branches]
    names = []
    for part, facts in files:
        reading = [part.access.format_of(part.file), part.access.types, part.access.delimiter]
        identity = [
            FORMAT,
            __version__,
            part.identity,
            part.stamp,
            part.tree,
            reading,
            facts,
            inputs,
        ]
        identity += [each.as_json() for each in part.friends]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        names.append(f"{digest[:2]}/{digest[2:]}{SUFFIX}")
    return names


def present(folder: Path) -> set[str]:
    """Names of all entries in the folder."""
    return {path.relative_to(folder).as_posix() for path in folder.glob(f"??/*{SUFFIX}")}


def store(path: Path, entry: Entry) -> str:
    """Write an entry, whole or not at all; why it cannot be written, else empty."""
    content = json.dumps(
        {
            "format": FORMAT,
            "name": path.name,
            "counts": entry.split_counts,
            "numbers": entry.numbers,
            "specs": entry.specs.to_json(),
        }
    )
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=".part.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(compressor.compress(content.encode()))
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        return f"{error.strerror or error}"
    return ""


def load(path: Path) -> Entry | None:
    """The entry at ``path``; None, with a warning, when it is damaged."""
    try:
        data = json.loads(zstandard.ZstdDecompressor().decompress(path.read_bytes()))
        if (data["format"], data["name"]) != (FORMAT, path.name):
            raise ValueError("it is an entry of another name or format")
        split_counts = tuple((int(a), int(b), int(c)) for a, b, c in data["counts"])
        entry = Entry(Specs.from_json(data["specs"]), split_counts, tuple(data.get("numbers", ())))
        os.utime(path)  # used now, so the last to be deleted
    except FileNotFoundError:
        return None
    except DAMAGED as error:
        logger.warning("cached specs %s are damaged, the file is measured again: %s", path, error)
        return None
    return entry


def prune(folder: Path, max_bytes: int) -> int:
    """Delete what was not used for longest until the folder is small enough; entries deleted."""
    entries = []
    for path in folder.glob(f"??/*{SUFFIX}"):
        try:
            facts = path.stat()
        except OSError:  # another run has deleted it
            continue
        entries.append((facts.st_mtime_ns, facts.st_size, path))
    total = sum(size for _, size, _ in entries)
    num_deleted = 0
    for _, size, path in sorted(entries):
        if total <= max_bytes:
            break
        path.unlink(missing_ok=True)
        total -= size
        num_deleted += 1
    return num_deleted


def renamed(specs: Specs, *, sample: str) -> Specs:
    """The specs of one sample as those of a sample of another name."""
    (sample_specs,) = specs.samples.values()
    return replace(specs, samples={sample: sample_specs})
