"""The law that tests of batch systems leave nothing finds what is left."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import remains
from remains import nothing_left

from services.processes import SHARED

pytestmark = pytest.mark.slow

LISTENS = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(1000)
"""


def what_is_left_of(leave, folder):
    with pytest.raises(pytest.fail.Exception) as caught, nothing_left("ours", folder, seconds=0):
        left = leave()
    return left, str(caught.value)


def test_nothing_is_found_where_nothing_is_left(tmp_path):
    with nothing_left("ours", tmp_path, seconds=20), tempfile.TemporaryDirectory():
        subprocess.run([sys.executable, "-c", "import tempfile; tempfile.TemporaryFile()"])


def test_a_process_is_left_with_its_port(tmp_path):
    command = [sys.executable, "-c", LISTENS]
    started = []

    def leave():
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        return started[0].stdout.readline().strip()

    try:
        port, told = what_is_left_of(leave, tmp_path)
    finally:
        started[0].kill()
        started[0].communicate()
    assert f"process {started[0].pid}, " in told
    assert f"it listens at [{port}]" in told


def test_a_temporary_folder_and_a_key_are_left(tmp_path):
    def leave():
        keys = tmp_path / "run.jobs" / "20260101-000000-ab12" / "tls"
        keys.mkdir(parents=True)
        return keys, tempfile.mkdtemp()

    (keys, folder), told = what_is_left_of(leave, tmp_path)
    assert str(keys) in told
    assert folder in told
    assert not Path(folder).exists()


def test_shared_memory_is_left(tmp_path):
    if not remains.is_own():
        pytest.skip("there is no /dev/shm of its own for this process, as root may have")

    def leave():
        (SHARED / "ours").write_text("kept by nobody")

    _, told = what_is_left_of(leave, tmp_path)
    assert told.endswith(f"\n  {SHARED}/ours")
    assert not (SHARED / "ours").exists()
