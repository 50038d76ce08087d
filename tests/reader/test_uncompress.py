import lzma
import struct
import zlib

import cramjam
import numpy as np
import pytest
import xxhash
import zstandard

from mlaas4hep_dask.reader.uncompress import (
    Uncompress,
    UnsupportedBasketError,
    find_basket,
    find_embedded,
)

KEYLEN = struct.calcsize(">ihiIh") + struct.calcsize(">hiiii") + 1
VALUES = np.random.default_rng(1).normal(size=5_000).astype(">f4").tobytes()
OFFSETS = np.arange(10_000, dtype=">i4").tobytes()


def block(algorithm, content, size):
    sizes = len(content).to_bytes(3, "little") + size.to_bytes(3, "little")
    return algorithm + b"\1" + sizes + content


def lz4(data):
    content = bytes(cramjam.lz4.compress_block(data, store_size=False))
    return block(b"L4", xxhash.xxh64_digest(content) + content, len(data))


def zstd(data, *, checksum=False):
    compressor = zstandard.ZstdCompressor(write_checksum=checksum)
    return block(b"ZS", compressor.compress(data), len(data))


def basket(size, border, *blocks, nbytes=None):
    """The bytes of a basket: its key and its blocks, or its data where they are not compressed."""
    payload = b"".join(blocks)
    nbytes = KEYLEN + len(payload) if nbytes is None else nbytes
    key = struct.pack(">ihiIh", nbytes, 4, size, 0, KEYLEN)
    own = struct.pack(">hiiii", 3, 32_000, 1000, 1, KEYLEN + border) + b"\0"
    return bytearray(key + own + payload)


def found(raw):
    """The basket that lies somewhere in the memory of others."""
    memory = np.frombuffer(b"before!" + bytes(raw) + b"behind", dtype=np.uint8)
    return find_basket("x", 0, 1, memory.data, 7, 7 + len(raw))


def values(raw):
    return bytes(Uncompress().values(found(raw)))


def whole(raw):
    return bytes(Uncompress()(found(raw)))


BLOCKS = {
    "lz4": lz4,
    "zstd": zstd,
    "zlib": lambda data: block(b"ZL", zlib.compress(data), len(data)),
    "lzma": lambda data: block(b"XZ", lzma.compress(data, check=lzma.CHECK_CRC32), len(data)),
    "none": bytes,
}


@pytest.mark.parametrize("codec", BLOCKS)
def test_a_basket_gives_its_values_or_all_of_its_data(codec):
    raw = basket(len(VALUES + OFFSETS), len(VALUES), BLOCKS[codec](VALUES + OFFSETS))
    assert values(raw) == VALUES
    assert whole(raw) == VALUES + OFFSETS


@pytest.mark.parametrize("codec", ["lz4", "zstd", "zlib", "lzma"])
def test_blocks_are_joined_and_those_behind_the_values_left_alone(codec):
    data = VALUES + OFFSETS
    pieces = [data[:7_001], data[7_001 : len(VALUES)], data[len(VALUES) :]]
    raw = basket(len(data), len(VALUES), *map(BLOCKS[codec], pieces))
    assert values(raw) == VALUES
    assert whole(raw) == data


def test_data_that_looks_like_a_block_is_not_one():
    assert values(basket(40, 40, b"L4" + bytes(38))) == b"L4" + bytes(38)


@pytest.mark.parametrize("number", range(3))
def test_the_checksum_of_each_lz4_block_is_compared(number):
    blocks = [lz4(VALUES), lz4(OFFSETS), lz4(VALUES)]
    place = KEYLEN + sum(map(len, blocks[:number])) + 9
    for behind in (0, 7, 8, len(blocks[number]) - 10):  # the checksum's bytes, the content's
        raw = basket(len(VALUES + OFFSETS + VALUES), len(VALUES), *blocks)
        raw[place + behind] ^= 4
        with pytest.raises(ValueError, match="'x' with entries 0-1: the checksum of an lz4 block"):
            values(raw)


@pytest.mark.parametrize("size", range(8))
def test_an_lz4_block_without_a_whole_checksum_is_refused(size):
    with pytest.raises(ValueError, match="shorter than its checksum"):
        values(basket(40, 40, block(b"L4", bytes(size), 40)))


@pytest.mark.parametrize(
    ("raw", "error", "what"),
    [
        (basket(40, 40, bytes(40))[: KEYLEN - 1], UnsupportedBasketError, "shorter than its key"),
        (basket(40, 40, bytes(40), nbytes=-1), UnsupportedBasketError, "key's length"),
        (basket(40, 40, bytes(40), nbytes=KEYLEN - 1), UnsupportedBasketError, "key's length"),
        (basket(40, 40, bytes(40), nbytes=KEYLEN + 41), UnsupportedBasketError, "key's length"),
        (basket(40, 41, bytes(40)), UnsupportedBasketError, "values' length"),
        (basket(40, -1, bytes(40)), UnsupportedBasketError, "values' length"),
        (basket(40, 40, block(b"??", bytes(9), 40)), UnsupportedBasketError, "compression"),
        (basket(40, 40, lz4(bytes(39))), ValueError, "ends after 39 of 40"),
        (basket(40, 40, lz4(bytes(41))), ValueError, "a block exceeds its 40"),
        (basket(40, 40, lz4(bytes(40))[:-1]), ValueError, "a block exceeds its 40"),
        (basket(40, 40, b"L4\1\0\0"), ValueError, "ends after 0 of 40"),
    ],
)
def test_a_basket_that_is_not_whole_is_refused(raw, error, what):
    with pytest.raises(error, match=what):
        values(raw)


@pytest.mark.parametrize(("before", "behind"), [(-8, 0), (0, 1), (0, 2**31), (99, -1)])
def test_a_basket_that_leaves_the_memory_is_refused(before, behind):
    memory = np.frombuffer(bytes(basket(40, 40, bytes(40))), dtype=np.uint8)
    places = before, len(memory) + behind
    with pytest.raises(ValueError, match=f"it lies at {before}-{places[1]} of 75 bytes"):
        find_basket("x", 0, 1, memory.data, *places)


@pytest.mark.parametrize("keylen", [-(2**15), -1, 0, 18, KEYLEN - 1])
def test_a_key_without_room_for_the_header_of_a_basket_is_refused(keylen):
    raw = basket(40, 40, bytes(40))
    raw[14:16] = keylen.to_bytes(2, "big", signed=True)
    with pytest.raises(UnsupportedBasketError, match="key's length"):
        values(raw)


@pytest.mark.parametrize("codec", ["lz4", "zstd", "zlib", "lzma"])
def test_a_block_may_take_more_than_64_kib(codec):
    data = np.random.default_rng(2).bytes(150_000)
    raw = basket(len(data) + 50_000, len(data), BLOCKS[codec](data + bytes(50_000)))
    assert len(raw) > 2 * 2**16
    assert values(raw) == data


@pytest.mark.parametrize("num_entries", [-1, 0, 2])
def test_a_basket_with_another_number_of_entries_is_refused(num_entries):
    raw = basket(40, 40, bytes(40))
    raw[KEYLEN - 9 : KEYLEN - 5] = num_entries.to_bytes(4, "big", signed=True)
    with pytest.raises(ValueError, match=f"'x' with entries 0-1: its key says {num_entries} "):
        values(raw)


def test_an_lz4_block_that_says_another_size_is_refused():
    content = bytes(cramjam.lz4.compress_block(bytes(39), store_size=False))
    raw = basket(40, 40, block(b"L4", xxhash.xxh64_digest(content) + content, 40))
    with pytest.raises(ValueError, match="39 bytes uncompressed, expected 40"):
        values(raw)


@pytest.mark.parametrize("checksum", [False, True])
def test_offsets_behind_the_values_of_zstd_are_looked_at_only_for_a_checksum(checksum):
    data = VALUES + OFFSETS * 20
    raw = basket(len(data), len(VALUES), zstd(data, checksum=checksum))
    assert values(raw) == VALUES
    assert whole(raw) == data
    raw[-1] ^= 1  # of the checksum, or of the last block of offsets
    if checksum:
        with pytest.raises(ValueError, match="match checksum"):
            values(raw)
    else:
        assert values(raw) == VALUES
    cut = KEYLEN + (len(raw) - KEYLEN) // 4
    sizes = (cut - KEYLEN - 9).to_bytes(3, "little")
    short = raw[:cut]
    short[:4], short[KEYLEN + 3 : KEYLEN + 6] = cut.to_bytes(4, "big"), sizes
    with pytest.raises(ValueError, match="basket of branch 'x' with entries 0-1"):
        whole(short)


@pytest.mark.parametrize("changed", [0, 20, -30, -1])
def test_a_damaged_block_of_lzma_is_refused(changed):
    raw = basket(len(VALUES), len(VALUES), BLOCKS["lzma"](VALUES))
    raw[KEYLEN + 9 + changed if changed >= 0 else changed] ^= 1
    with pytest.raises(ValueError, match="basket of branch 'x' with entries 0-1"):
        values(raw)


def test_a_block_of_lzma_that_ends_too_early_or_too_late_is_refused():
    content = lzma.compress(VALUES, check=lzma.CHECK_CRC32)
    for told in (block(b"XZ", content[:-12], len(VALUES)), block(b"XZ", content, len(VALUES) - 4)):
        size = int.from_bytes(told[6:9], "little")
        with pytest.raises(ValueError, match="basket of branch 'x' with entries 0-1"):
            values(basket(size, size, told))


def embedded(num_entries, content, *, offsets=None, flag=None, version=3, nbytes=0, keylen=KEYLEN):
    """A basket as it lies in a tree's own bytes, with something before and behind it."""
    key = struct.pack(">ihiIh", nbytes, 4, 0, 0, keylen)
    usual = 12 if offsets is None else 11
    own = struct.pack(">hiiii", version, 32_000, 1000, num_entries, KEYLEN + len(content))
    own += bytes([usual if flag is None else flag])
    told = b"" if offsets is None else struct.pack(f">{len(offsets) + 1}i", len(offsets), *offsets)
    return np.frombuffer(b"tree" + key + own + told + bytes(KEYLEN) + content + b"behind", np.uint8)


def found_embedded(memory, num_entries=3):
    return find_embedded("x", 0, num_entries, memory.data, 4)


def test_an_embedded_basket_gives_its_values_and_its_offsets():
    flat = found_embedded(embedded(3, b"abcdefghijkl"))
    assert bytes(Uncompress().values(flat)) == bytes(Uncompress()(flat)) == b"abcdefghijkl"
    places = [KEYLEN, KEYLEN + 4, KEYLEN + 8]
    jagged = found_embedded(embedded(3, b"abcdefghijkl", offsets=places))
    assert bytes(Uncompress().values(jagged)) == b"abcdefghijkl"
    stored = np.frombuffer(Uncompress()(jagged)[12:], ">i4")
    assert stored.tolist() == [3, *places]  # where those of other baskets stand too


def test_an_embedded_basket_without_entries_has_no_values():
    for flag in (2, 11, 12):
        empty = found_embedded(embedded(0, b"", flag=flag), num_entries=0)
        assert bytes(Uncompress().values(empty)) == b""


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        ({"flag": 51}, UnsupportedBasketError, "kind 51"),  # with displacements
        ({"flag": 91}, UnsupportedBasketError, "kind 91"),  # whose offsets are to be made
        ({"flag": 1}, UnsupportedBasketError, "kind 1"),
        ({"version": 1}, UnsupportedBasketError, "version 1"),
        ({"nbytes": 4000}, UnsupportedBasketError, "not that of an embedded one"),
        ({"keylen": 18}, UnsupportedBasketError, "not that of an embedded one"),
        ({"keylen": 4000}, UnsupportedBasketError, "not that of an embedded one"),
    ],
)
def test_an_embedded_basket_of_another_kind_is_left_to_uproot(changes, error, what):
    with pytest.raises(error, match=what):
        found_embedded(embedded(3, b"abcdefghijkl", **changes))


@pytest.mark.parametrize("num_entries", [-1, 0, 2, 4])
def test_an_embedded_basket_with_another_number_of_entries_is_refused(num_entries):
    with pytest.raises(ValueError, match=f"'x' with entries 0-3: its key says {num_entries} "):
        found_embedded(embedded(num_entries, b"abcdefghijkl"))


@pytest.mark.parametrize("place", [-1, 70, 2**40])
def test_an_embedded_basket_that_leaves_the_tree_is_refused(place):
    memory = embedded(3, b"abcdefghijkl")
    with pytest.raises(ValueError, match=f"it lies at {place} of the {memory.size} bytes"):
        find_embedded("x", 0, 3, memory.data, place)
    for size in range(KEYLEN + 4, memory.size - len("behind")):
        with pytest.raises(ValueError, match="of the tree"):
            find_embedded("x", 0, 3, memory.data[:size], 4)
