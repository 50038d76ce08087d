"""Local files that become shorter while they are read cost an error, never the process."""

import gc
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.reader import plan_file, read
from mlaas4hep_dask.reader.local import LocalSource
from mlaas4hep_dask.reader.read import open_partition

SHRINK = """
import os, sys
from mlaas4hep_dask.reader import plan_file
from mlaas4hep_dask.reader.access import attempt
from mlaas4hep_dask.reader.baskets import basket_table, read_baskets
from mlaas4hep_dask.reader.read import open_partition

file, way = sys.argv[1:]
plan = plan_file(file, "Events", "s")
(part,) = plan.planned(["x"]).partitions(
    target_bytes=2**30, max_events=10**6, num_entries=plan.num_entries)
opened = open_partition(part)
table = basket_table(opened.tree["x"], None, {})
os.truncate(file, os.path.getsize(file) // 2)

def once(location):
    if way == "ours":
        return read_baskets(opened.tree.file.source, {"x": table}, 0, plan.num_entries)
    return opened.tree["x"].array(library="np")

try:
    attempt(once, part.file, part.access, forget=print)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def plain_file(tmp_path):
    """A file of 4 MB that is not compressed, so that its half is of many pages."""
    path = tmp_path / "a.root"
    with uproot.recreate(path, compression=None) as out:
        out.mktree("Events", {"x": "float64"})
        for _ in range(2):
            out["Events"].extend({"x": np.arange(250_000.0)})
    return path


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ours", "uproot"])
def test_a_file_that_shrinks_while_it_is_open_is_named_and_ends_no_process(plain_file, way):
    done = subprocess.run(
        [sys.executable, "-c", SHRINK, str(plain_file), way], capture_output=True, text=True
    )
    assert done.returncode == 0, done  # -7 is a bus error
    assert done.stdout.startswith("UnreadableFileError "), done.stdout
    assert str(plain_file) in done.stdout
    assert "the file is cut short" in done.stdout


SHRINK_TABLE = """
import os, sys
from mlaas4hep_dask.reader import plan_file
from mlaas4hep_dask.reader.access import attempt
from mlaas4hep_dask.reader.read import open_partition

file = sys.argv[1]
plan = plan_file(file, "", "s")
part = plan.planned(["x"]).partition(0, plan.num_entries)
opened = open_partition(part)
os.truncate(file, os.path.getsize(file) // 2)
try:
    attempt(lambda _: opened.read(part, [*plan.branches.values()]), file, part.access, forget=print)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_a_table_that_shrinks_while_it_is_open_is_named_and_ends_no_process(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"x": np.random.default_rng(1).random(500_000)})
    pq.write_table(table, path, row_group_size=50_000)
    done = subprocess.run(
        [sys.executable, "-c", SHRINK_TABLE, str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done  # -7 is a bus error
    assert done.stdout.startswith("UnreadableFileError "), done
    assert str(path) in done.stdout


def test_nothing_of_a_file_that_is_read_is_mapped_into_memory(plain_file):
    # Mapped pages count as memory of the process too, and Dask pauses a worker that has many.
    plan = plan_file(str(plain_file), "Events", "s")
    (part,) = plan.planned(["x"]).partitions(
        target_bytes=2**30, max_events=10**6, num_entries=plan.num_entries
    )
    events = read(part, list(plan.branches.values()))
    assert len(events) == 500_000
    assert str(plain_file) not in Path("/proc/self/maps").read_text()


def test_a_local_file_is_read_piece_by_piece_beside_what_is_made_of_it(tmp_path):
    path = tmp_path / "a.root"
    expected = np.arange(1_600_000.0)
    with uproot.recreate(path, compression=None) as out:
        out.mktree("Events", {"x": "float64"})
        for piece in np.split(expected, 16):
            out["Events"].extend({"x": piece})
    plan = plan_file(str(path), "Events", "s")
    part = plan.planned(["x"]).partition(0, expected.size)
    branches = list(plan.branches.values())
    read(part, branches)
    tracemalloc.start()
    try:
        events = read(part, branches)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert events.contents["x"].tobytes() == expected.tobytes()
    assert expected.nbytes <= peak < 1.3 * expected.nbytes  # a twelfth of it is at hand


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    (tmp_path / "a.root").mkdir()
    with pytest.raises(UnreadableFileError, match=r"a\.root cannot be read \(IsADirectoryError"):
        plan_file(str(tmp_path / "a.root"), "Events", "s")


@pytest.fixture(scope="module")
def bytes_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "b"
    path.write_bytes(bytes(range(256)) * 4)
    return path


@given(
    ranges=st.lists(
        st.tuples(st.integers(0, 1200), st.integers(0, 1200)).map(sorted), min_size=1, max_size=5
    )
)
def test_any_ranges_give_the_bytes_that_the_file_has_there(bytes_file, ranges):
    whole = bytes_file.read_bytes()
    with LocalSource(str(bytes_file)) as source:
        chunks = source.chunks([tuple(one) for one in ranges], None)
        for chunk, (start, stop) in zip(chunks, ranges, strict=True):
            chunk.wait(insist=False)
            assert bytes(chunk.raw_data if stop <= 1024 else chunk._raw_data) == whole[start:stop]
            if stop > max(1024, start):
                with pytest.raises(OSError, match="expected Chunk of length"):
                    chunk.wait()
    assert source.closed


def test_a_source_that_was_sent_elsewhere_reads_the_same_file(bytes_file):
    source = LocalSource(str(bytes_file))
    other = pickle.loads(pickle.dumps(source))  # noqa: S301  # our own bytes
    assert bytes(other.chunk(3, 9).raw_data) == bytes(source.chunk(3, 9).raw_data)


@pytest.mark.slow
def test_files_dropped_by_the_reader_leave_no_descriptor_open(plain_file, tmp_path):
    def descriptors():
        links = [link.resolve() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [link for link in links if link.parent == tmp_path]

    for number in range(8):
        copy = tmp_path / f"{number}.root"
        copy.write_bytes(plain_file.read_bytes())
        plan = plan_file(str(copy), "Events", "s")
        (part,) = plan.planned(["x"]).partitions(
            target_bytes=2**30, max_events=10**6, num_entries=plan.num_entries
        )
        open_partition(part)
    gc.collect()
    assert 0 < len(descriptors()) <= 4  # as many as are kept open
