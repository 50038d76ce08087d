"""Reading without a reader: what the bytes of all baskets cost by the libraries alone."""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cramjam
import deflate
import numpy as np
import uproot
import xxhash
import zstandard

LARGE = 256 * 2**20  # bytes of files of which no pages stay mapped


class Block(NamedTuple):
    """A compressed block of a basket."""

    algorithm: bytes
    content: memoryview
    size: int  # bytes when uncompressed
    file: int  # descriptor
    place: int  # of the content in the file


def compressed_blocks(paths: Sequence[Path]) -> tuple[list[Block], list[mmap.mmap]]:
    """All blocks of all baskets that reading the files takes, counters included, and the files."""
    blocks, maps = [], []
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)  # for as long as the benchmark runs
        maps.append(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
        content = memoryview(maps[-1])
        with uproot.open({str(path): "Events"}) as tree:
            for branch in tree.branches:
                seeks, sizes = branch.member("fBasketSeek"), branch.member("fBasketBytes")
                for seek, size in zip(seeks, sizes[: branch.num_baskets], strict=False):
                    blocks += _blocks(content[seek : seek + size], descriptor, int(seek))
    return blocks, maps


def _blocks(basket: memoryview, file: int, place: int) -> list[Block]:
    header = struct.Struct(">ihiIh")  # fNbytes, fVersion, fObjlen, fDatime, fKeylen
    nbytes, _, objlen, _, keylen = header.unpack_from(basket)
    blocks: list[Block] = []
    if nbytes - keylen == objlen:
        return blocks
    while keylen < nbytes:
        sizes = basket[keylen + 3 : keylen + 9]
        compressed, size = (int.from_bytes(sizes[i : i + 3], "little") for i in (0, 3))
        content = basket[keylen + 9 : keylen + 9 + compressed]
        algorithm = bytes(basket[keylen : keylen + 2])
        blocks.append(Block(algorithm, content, size, file, place + keylen + 9))
        keylen += 9 + compressed
    return blocks


def decompress(blocks: list[Block], maps: list[mmap.mmap]) -> None:
    """Decompress every block, into one buffer where the library allows; check nothing.

    It lets the pages of large files go, so that it gets the bytes anew, as our reader does.
    """
    zstd = zstandard.ZstdDecompressor()
    buffer = memoryview(bytearray(max((block.size for block in blocks), default=0)))
    for block in blocks:
        _uncompressed(block, block.content, zstd, buffer)
    _let_go(maps)


def passes(blocks: list[Block], maps: list[mmap.mmap]) -> None:
    """Bring every block from its file into an array, one pass after the other.

    What a reader cannot do without: the bytes are copied from the system's page cache, those of
    lz4 are compared with their checksum, decompressed, and copied to native byte order.
    """
    zstd = zstandard.ZstdDecompressor()
    buffer = memoryview(bytearray(max((block.size for block in blocks), default=0)))
    fetched = memoryview(bytearray(max((len(block.content) for block in blocks), default=0)))
    values = np.empty(sum(block.size // 4 for block in blocks), dtype="=u4")
    start = 0
    for block in blocks:
        content = fetched[: len(block.content)]
        if os.preadv(block.file, [content], block.place) != len(content):
            sys.exit("a file has become shorter")
        if block.algorithm == b"L4" and xxhash.xxh64_digest(content[8:]) != content[:8]:
            sys.exit("a checksum does not match")
        found = _uncompressed(block, content, zstd, buffer)
        stop = start + block.size // 4
        values[start:stop] = np.frombuffer(found, ">u4", block.size // 4)
        start = stop
    _let_go(maps)


def _uncompressed(
    block: Block, content: memoryview, zstd: zstandard.ZstdDecompressor, buffer: memoryview
) -> memoryview:
    if block.algorithm == b"ZL":
        return memoryview(deflate.zlib_decompress(content, block.size))
    if block.algorithm == b"ZS":
        return memoryview(zstd.decompress(content, max_output_size=block.size))
    # lz4, after 8 bytes of checksum
    cramjam.lz4.decompress_block_into(content[8:], buffer[: block.size])
    return buffer[: block.size]


def _let_go(maps: list[mmap.mmap]) -> None:
    if sum(map(len, maps)) > LARGE:
        for mapped in maps:
            mapped.madvise(mmap.MADV_DONTNEED)
