"""Takes a bundle out of a .tar.gz of anybody's: only the files that its manifest lists."""

from __future__ import annotations

import io
import math
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from gzip import GzipFile
from pathlib import Path, PurePosixPath
from typing import IO

from mlaas4hep_dask.bundle.members import MAX_BYTES, MAX_MEMBERS, MAX_TEXT, MEMBER, strict_json
from mlaas4hep_dask.errors import BundleError

MANIFEST = "manifest.json"
# Networks hardly shrink, specs to a tenth. Zeros shrink to a thousandth.
MAX_RATIO = 100
FREE_BYTES = 64 * 1024**2  # whatever the ratio
MAX_HEADER = 1024**2  # of a member: tarfile reads as much as the archive says it is
PIECE = 1024**2
MAX_ZIP_RATIO = 20  # TorchScript stores its numbers as they are, and shrinks its code
MAX_DIRECTORY = 16 * 1024**2  # of a zip file, in which a name takes some fifty bytes
_FAILURES = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, zlib.error)


class _Bounded(io.RawIOBase):
    """What an archive unpacks to, as far as it may go; of headers, which tarfile holds, less."""

    def __init__(self, archive: IO[bytes], size: int) -> None:
        self._stream = GzipFile(fileobj=archive) if _is_gzip(archive) else archive
        self._left: float = min(MAX_BYTES, MAX_RATIO * size + FREE_BYTES)
        self.header_left: float = MAX_HEADER

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        content = self._stream.read(size)
        self._left -= len(content)
        self.header_left -= len(content)
        if self._left < 0:
            raise ValueError("too large")
        if self.header_left < 0:
            raise ValueError("the header of a member is too large")
        return content


def unpack(archive: Path, folder: Path) -> None:
    """Write the files that the archive's manifest lists, and the manifest, to a folder.

    What else is in it is passed over, as it is in a folder.

    Raises
    ------
    BundleError
        When it holds anything but plain files and folders, a file twice, or too much; or when it
        is no archive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _reading(archive):
        manifest = _content(archive, MANIFEST)
        if manifest is None:
            raise BundleError.at(archive, f"no {MANIFEST} in it", member=MANIFEST)
        sizes = _listed(manifest)
        for member, content in _members(archive):
            name = PurePosixPath(member.name).name
            if name == MANIFEST or name in sizes:
                if name != MANIFEST and member.size != sizes[name]:
                    raise BundleError.at(
                        archive,
                        f"{name} was altered: {member.size} bytes, expected {sizes[name]}",
                        member=name,
                    )
                with (folder / name).open("xb") as out:
                    for piece in content:
                        out.write(piece)


def require_bounded(file: IO[bytes], *, size: int) -> None:
    """Raise ValueError when a zip file, as TorchScript is one, unpacks to very much more.

    Parameters
    ----------
    file : file
        Anything; what is no zip file is not looked at.
    size : int
        Its bytes.
    """
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(_Read(file)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, OSError, struct.error) as error:
        raise ValueError(f"its directory cannot be read: {error}") from error
    if unpacked > MAX_ZIP_RATIO * size + FREE_BYTES:
        raise ValueError(f"{size:,} bytes unpack to {unpacked:,}")


class _Read(io.RawIOBase):
    """A file of which nobody reads very much at once, as of a directory of a zip file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell  # type: ignore[method-assign]
        self.seek = file.seek  # type: ignore[method-assign]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= MAX_DIRECTORY:
            size = self._left_if_few(size)
        return self._file.read(size)

    def _left_if_few(self, size: int) -> int:
        place = self._file.tell()
        remaining = self._file.seek(0, io.SEEK_END) - place
        self._file.seek(place)
        if min(remaining, size if size >= 0 else remaining) > MAX_DIRECTORY:
            raise ValueError("its directory is too large")
        return remaining


def _listed(manifest: bytes) -> Mapping[str, int]:
    """The size of each file that a manifest lists; nothing when it lists none as it should."""
    content = strict_json(manifest)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        return {}
    return {
        member: recorded["bytes"]
        for member, recorded in files.items()
        if isinstance(recorded, dict) and isinstance(recorded.get("bytes"), int)
    }


def _content(archive: Path, name: str) -> bytes | None:
    for member, content in _members(archive):
        if PurePosixPath(member.name).name == name:
            if member.size > MAX_TEXT:
                raise ValueError(f"{name} has more than {MAX_TEXT:,} bytes")
            return b"".join(content)
    return None


def _members(archive: Path) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """The files in an archive, each to be read before the next."""
    size = archive.stat().st_size
    names: set[str] = set()
    with archive.open("rb") as file:
        stream = _Bounded(file, size)
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            number = 0
            while (member := tar.next()) is not None:
                stream.header_left = math.inf
                number += 1
                parts = PurePosixPath(member.name).parts
                is_outside = ".." in parts or member.name.startswith("/")
                if number > MAX_MEMBERS or member.size > MAX_BYTES:
                    raise BundleError.at(archive, "too large")
                if member.isdir() and not is_outside:
                    stream.header_left = MAX_HEADER
                    continue
                name = parts[-1] if parts else ""
                is_plain = member.isreg() and not member.issparse() and member.size >= 0
                if is_outside or not is_plain or not MEMBER.fullmatch(name):
                    raise BundleError.at(archive, f"{member.name[:100]!r} is not a plain file")
                if name in names:
                    raise ValueError(f"{name} is in it twice")
                names.add(name)
                content = _pieces(tar.extractfile(member))
                yield member, content
                for _ in content:
                    pass  # what was not wanted
                stream.header_left = MAX_HEADER


def _pieces(content: IO[bytes] | None) -> Iterator[bytes]:
    assert content is not None  # of a plain file it is not
    while piece := content.read(PIECE):
        yield piece


def _is_gzip(file: IO[bytes]) -> bool:
    start = file.read(2)
    file.seek(0)
    return start == b"\x1f\x8b"


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except (*_FAILURES, RecursionError) as error:
        raise BundleError.at(archive, f"cannot be unpacked ({error})") from error


@contextmanager
def naming(source: Path, folder: Path) -> Iterator[None]:
    """Errors of a bundle's folder are told as those of the archive that was unpacked to it."""
    try:
        yield
    except BundleError as error:
        facts = dict(error.facts)
        if folder == source or facts.pop("path", None) != str(folder):
            raise
        text = error.message.removeprefix(f"{folder}: ").replace(f"{folder}/", "")
        raise BundleError.at(source, text, **facts) from error
