"""What a test has left on this machine: processes and ports, shared memory, files and keys.

Other tests run at the same time. What a test starts is known by a variable of its environment, its
temporary files lie in a folder of its own, and each process of pytest has a /dev/shm of its own, as
has all that it starts.
"""

import ctypes
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from services.processes import (
    MARKS,
    SHARED,
    files_in,
    is_alive,
    ports_of,
    processes_with,
    shared_by,
    told,
)

MARK = MARKS[0]
NEW_MOUNTS = 0x20000  # CLONE_NEWNS of Linux
SECRETS = ("*.jobs/*/tls", "*.jobs/*/credentials")  # of runs
OF_TORCH = "_remote_module_non_scriptable.py"
SECONDS = 30  # for all to be gone
_owned = []


def own_shared_memory():
    """Give this process, and all that it starts, a /dev/shm of its own, where that is allowed."""
    commands = [
        ["mount", "--make-rslave", "/"],
        ["mount", "-t", "tmpfs", "-o", "mode=1777", "shm", str(SHARED)],
    ]
    if ctypes.CDLL(None).unshare(NEW_MOUNTS):  # os.unshare needs Python 3.12
        return
    try:
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return
    _owned.append(SHARED)


def is_own():
    """Whether this process has a /dev/shm of its own."""
    return bool(_owned)


def left_in(folder):
    """What lies in a folder, but for what torch leaves there.

    Until some version after 2.6, and before 2.13, torch makes a temporary directory for a module of
    its own as it is imported. A process that is killed, or that was forked, does not remove it.
    """
    return [path for path in Path(folder).iterdir() if not (path / OF_TORCH).exists()]


def require_nothing(look, *, seconds=SECONDS):
    """Fail unless a function that lists what is left finds nothing within some time."""
    deadline = time.monotonic() + seconds
    while left := look():
        if time.monotonic() > deadline:
            lines = "\n  ".join(left)
            pytest.fail(f"this is left after {seconds} s:\n  {lines}", pytrace=False)
        time.sleep(0.1)  # between looks


@contextmanager
def nothing_left(name, folder, *, seconds=SECONDS, had_hosts=False):
    """A context after which nothing is left of what was started in it.

    Parameters
    ----------
    name : str
        Of the test, which nothing else that runs has.
    folder : Path
        Of the files that it keeps, in which runs have left no secrets.
    had_hosts : bool
        It had hosts of its own, whose temporary files have gone with their power.
    """
    # Sockets lie in it, whose paths are at most 107 characters long.
    temporary = Path(tempfile.mkdtemp(prefix="left", dir="/tmp"))
    shared, ports = _shared(), _own_ports()
    kept = tempfile.tempdir
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in zip(MARKS, (name, str(temporary)), strict=True):
            patch.setenv(variable, value)
        tempfile.tempdir = str(temporary)
        try:
            yield
        finally:
            tempfile.tempdir = kept

    def look():
        return [
            *(told(each) for each in processes_with(**{MARK: name}) if is_alive(each)),
            *(f"this process listens at {port}" for port in sorted(_own_ports() - ports)),
            *(f"{SHARED}/{each}" for each in sorted(_shared() - shared - _in_use())),
            *map(str, () if had_hosts else files_in(temporary)),
            *(str(secrets) for each in SECRETS for secrets in sorted(folder.glob(each))),
        ]

    try:
        require_nothing(look, seconds=seconds)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for each in _shared() - shared - _in_use():
            (SHARED / each).unlink(missing_ok=True)


def _own_ports():
    return set(ports_of(psutil.Process()))


def _shared():
    """Names in /dev/shm, if it is this process's own."""
    return {file.name for file in SHARED.iterdir()} if is_own() else set()


def _in_use():
    """Names of files in /dev/shm that a process has in its memory, as a cluster of the session."""
    return {file.name for process in psutil.process_iter() for file in shared_by(process)}
