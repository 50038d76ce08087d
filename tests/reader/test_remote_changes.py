"""Files on servers that change in place."""

import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import HTTP_AND_XROOTD, http_server
from test_xrootd import whole

from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.reader import Access, Pace, counting, opened, plan_file, read
from mlaas4hep_dask.reader.stamp import is_same, stamp_of, with_content

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]


def written(folder, name, cms_files):
    """A file, and how to write it again with other content of the same size and footer."""
    path = folder / name
    if name.endswith(".root"):
        shutil.copy(cms_files[0], path)
    elif name.endswith(".csv"):
        path.write_text("x\n" + "\n".join(str(i) for i in range(1_000_000, 1_200_000)) + "\n")
    else:
        table = pa.table({"x": np.arange(40_000.0)})
        pq.write_table(table, path, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    place = len(content) * 3 // 4 if name.endswith(".csv") else 2_000
    place += content[place] == ord("\n")
    changed = bytes([*content[:place], content[place] ^ 1, *content[place + 1 :]])

    def again():
        path.write_bytes(changed)
        later = path.stat().st_mtime + 10  # XRootD tells whole seconds
        os.utime(path, (later, later))

    return path, again


@pytest.mark.parametrize("start", HTTP_AND_XROOTD)
@pytest.mark.parametrize("name", ["a.root", "a.parquet", "a.csv"])
def test_a_remote_file_that_changes_in_place_is_noticed(start, name, tmp_path, cms_files):
    access = Access(pace=Pace(fresh=0.0))  # usually an open file is asked about once a minute
    path, again = written(tmp_path, name, cms_files)
    with start(tmp_path) as (_, url):
        plan = plan_file(f"{url}/{path.name}", "events", "s", access)
        branches = [plan.branches["NJet" if name == "a.root" else "x"]]
        read(whole(plan), branches)
        size = path.stat().st_size
        again()
        assert path.stat().st_size == size
        with pytest.raises(DataError, match="has changed since it was planned"):
            read(whole(plan), branches)
        # Planned again, it is read as it is now.
        renewed = plan_file(f"{url}/{path.name}", "events", "s", access)
        assert renewed.num_entries == plan.num_entries
        assert renewed.stamp != plan.stamp
        if name == "a.root":
            assert renewed.uuid == plan.uuid  # by which alone nothing would be noticed
        read(whole(renewed), branches)


@pytest.mark.parametrize("start", HTTP_AND_XROOTD)
def test_a_file_that_another_process_has_opened_before_the_change_is_noticed(
    start, tmp_path, cms_files
):
    path, again = written(tmp_path, "a.root", cms_files)
    with start(tmp_path) as (_, url):
        plan = plan_file(f"{url}/{path.name}", "events", "s")
        again()
        opened.forget(plan.file)  # as in a worker that has not read it yet
        with pytest.raises(DataError, match="has changed since it was planned"):
            read(whole(plan), [plan.branches["NJet"]])


def test_a_replica_with_another_time_of_change_is_the_same_file(tmp_path, cms_files):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(cms_files[0], tmp_path / folder / "x.root")
    os.utime(tmp_path / "b" / "x.root", (1e9, 1e9))
    with http_server(tmp_path / "a") as (first, url), http_server(tmp_path / "b") as (_, other):
        plan = plan_file(f"{url}/x.root|{other}/x.root", "events", "s", Access(attempts=2))
        assert stamp_of(f"{url}/x.root", Access()) != stamp_of(f"{other}/x.root", Access())
        first.kill()
        first.wait(timeout=20)
        opened.forget(f"{url}/x.root")
        with counting() as counts:
            read(whole(plan), [plan.branches["NJet"]])
        assert counts.retries == {plan.file: 1}


class SendsOn(BaseHTTPRequestHandler):
    """Sends its clients on to a server that is named in the path."""

    def do_HEAD(self):
        self.send_response(302)
        self.send_header("Location", f"http:/{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *of):
        """Nobody reads it."""


class Counts(SendsOn):
    """One that counts how often it is asked for what it has, not for its bytes."""

    def do_HEAD(self):
        self.server.num_asked += 1
        super().do_HEAD()


def test_a_server_that_sends_its_clients_on_tells_no_version(tmp_path, cms_files):
    shutil.copy(cms_files[0], tmp_path / "a.root")
    with http_server(tmp_path) as (_, url), ThreadingHTTPServer(("127.0.0.1", 0), SendsOn) as door:
        threading.Thread(target=door.serve_forever).start()
        try:
            through = f"http://127.0.0.1:{door.server_port}/{url.removeprefix('http://')}/a.root"
            size = (tmp_path / "a.root").stat().st_size
            assert stamp_of(through, Access()) == str(size)
            assert stamp_of(f"{url}/a.root", Access()).startswith(f"{size}@")
            plan = plan_file(through, "events", "s")
            os.utime(tmp_path / "a.root", (1e9, 1e9))  # as a copy at another server may have
            opened.forget(through)
            read(whole(plan), [plan.branches["NJet"]])
        finally:
            door.shutdown()


def test_an_open_file_is_asked_about_once_a_minute_not_once_a_partition(tmp_path, cms_files):
    shutil.copy(cms_files[0], tmp_path / "a.root")
    with http_server(tmp_path) as (_, url), ThreadingHTTPServer(("127.0.0.1", 0), Counts) as door:
        threading.Thread(target=door.serve_forever).start()
        door.num_asked = 0
        try:
            through = f"http://127.0.0.1:{door.server_port}/{url.removeprefix('http://')}/a.root"
            for fresh, num_asked in ((60.0, 0), (0.0, 5)):
                plan = plan_file(through, "events", "s", Access(pace=Pace(fresh=fresh)))
                read(whole(plan), [plan.branches["NJet"]])
                before = door.num_asked
                for _ in range(5):
                    read(whole(plan), [plan.branches["NJet"]])
                assert door.num_asked - before == num_asked
        finally:
            door.shutdown()


def test_versions_at_other_places_tell_nothing_but_content_does():
    assert is_same("12-7@place000version0", "12-7@place000version0")
    assert not is_same("12-7@place000version0", "12-7@place000version1")
    assert is_same("12-7@place000version0", "12-7@place001version1")
    assert is_same("12-7@place000version0", "12-7")
    assert not is_same("12-7@place000version0", "12-8@place001version0")
    assert with_content("12@place000version0", "7") == "12-7@place000version0"
    assert with_content("12", "7") == "12-7"
