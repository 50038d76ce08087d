"""What ROOT files are and hold: their identity, and objects that are trees."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

import uproot
import xxhash

NIL = str(UUID(int=0))
ENDS = 256 * 1024  # bytes at either end of a file by which it is known if nothing else tells
_CLASSES = ("TTree", "ROOT::RNTuple", "ROOT::Experimental::RNTuple")
# Known to be others without a look at the file's description of its classes, which takes a request.
_OTHERS = {"TDirectory", "TDirectoryFile", "TObjString", "TProcessID", "TList", "TObjArray", "TMap"}
_OTHERS |= {f"TH{number}{letter}" for number in "123" for letter in "CDFILS"}
_DEEPEST = 16  # classes from a user's own up to TTree


def identity_of(file: Any) -> str:
    """The UUID of an open file.

    RNTupleWriter leaves the one in the header empty; then that of the TFile record holds. Files
    that are to be reproducible have none: they are known by their size and the bytes at both ends.

    Parameters
    ----------
    file : uproot.ReadOnlyFile
        The file.
    """
    if (uuid := str(file.uuid)) != NIL:
        return uuid
    place = file.fBEGIN + file.fNbytesName
    record = _bytes(file, place, min(place + 60, file.fEND))
    # A version, two dates, two lengths and three places, which are wide in large files.
    start = 2 + 4 * 4 + 3 * (8 if int.from_bytes(record[:2], "big") > 1000 else 4) + 2
    if len(raw := record[start : start + 16]) == 16 and any(raw):
        return str(UUID(bytes=raw))
    size = file.source.num_bytes
    first, last = _bytes(file, 0, min(ENDS, size)), _bytes(file, max(size - ENDS, 0), size)
    return str(UUID(bytes=xxhash.xxh3_128_digest(struct.pack("<q", size) + first + last)))


def _bytes(file: Any, start: int, stop: int) -> bytes:
    return bytes(file.source.chunk(start, stop).raw_data)


def is_tree(file: Any, kind: str) -> bool:
    """True for the classes TTree and RNTuple, and for all that derive from TTree in this file."""
    if kind in _CLASSES or kind in _OTHERS:
        return kind in _CLASSES
    return _way_to_tree(file, kind) is not None


def tree_in(directory: Any, name: str) -> Any:
    """The tree or RNTuple of that name, which `is_tree` knows.

    A class of the user's own is read as the TTree that it derives from.
    """
    key = directory.key(name)
    if key.fClassName in _CLASSES:
        return directory[name]
    way = _way_to_tree(key.file, key.fClassName)
    assert way is not None  # the caller has asked
    chunk, cursor = key.get_uncompressed_chunk_cursor()
    for num_before in way:  # each begins with its number of bytes and its version
        uproot.deserialization.numbytes_version(chunk, cursor, {})
        for _ in range(num_before):
            start = cursor.index
            num_bytes, _, _ = uproot.deserialization.numbytes_version(chunk, cursor, {})
            cursor.move_to(start + num_bytes)
    context = {"breadcrumbs": (), "TKey": key}
    return key.file.class_named("TTree").read(chunk, cursor, context, key.file, key.file, key)


def _way_to_tree(file: Any, kind: str, depth: int = 0) -> list[int] | None:
    """For each class from ``kind`` down to TTree: its other bases that stand before that one."""
    if kind == "TTree":
        return []
    versions = file.streamers.get(kind)
    if versions is None or depth == _DEEPEST:
        return None
    bases = [e.name for e in versions[max(versions)].elements if e.classname == "TStreamerBase"]
    for number, base in enumerate(bases):
        way = _way_to_tree(file, base, depth + 1)
        if way is not None:
            return [number, *way]
    return None
