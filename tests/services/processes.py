"""Daemons of a service in the foreground, and whatever else they have started."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

SYSTEM = "/usr/sbin:/sbin"  # where daemons lie, which a user's PATH may lack
SHARED = Path("/dev/shm")
LOCKS = (".lock", ".dirlock")  # a worker that was killed leaves one, which the next removes
MARKS = ("MLAAS4HEP_TESTED", "TMPDIR")  # variables of one test, which services outlive


class Missing(Exception):
    """What a service needs is not on this machine; the text says how it gets there."""

    def __init__(self, reason, *, can_be_installed=True):
        super().__init__(reason)
        self.can_be_installed = can_be_installed


def program(name, install):
    """The path of a program; raises `Missing`."""
    found = shutil.which(name) or shutil.which(name, path=SYSTEM)
    if found is None:
        raise Missing(f"{name} is missing: {install}")
    return found


def new_folder(name, folder=None):
    """A folder of a service, made in /tmp unless one is given; its path is short."""
    folder = Path(folder or tempfile.mkdtemp(prefix=name, dir="/tmp")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    return folder


def free_ports(number):
    """Ports of loopback that nothing listens at now."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_until(is_so, what, *, seconds=60, pause=0.05, log=None):
    """The first true value of a function that is asked again and again.

    Parameters
    ----------
    log : Path, optional
        A file, or a folder of files, whose ends are shown when the time is over.
    """
    deadline = time.monotonic() + seconds
    while not (value := is_so()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{_ends(log)}"
        time.sleep(pause)  # between looks
    return value


def _ends(log):
    if log is None:
        return ""
    files = sorted(file for file in log.rglob("*") if file.is_file()) if log.is_dir() else [log]
    texts = {file: file.read_bytes()[-2000:].decode(errors="replace") for file in files}
    return "\n".join(f"{file}:\n{text}" for file, text in texts.items())


def start(command, *, environment, log, before=()):
    """A daemon that ends with this process, however that ends.

    Parameters
    ----------
    before : sequence of str
        A command that starts the daemon, such as ``unshare --user --``.
    """
    tied = [*before, "setpriv", "--pdeathsig", "TERM", *map(str, command)]
    with Path(log).open("ab") as opened:
        return subprocess.Popen(
            tied,
            env={name: value for name, value in environment.items() if name not in MARKS},
            cwd=Path(log).parent,
            stdin=subprocess.DEVNULL,
            stdout=opened,
            stderr=subprocess.STDOUT,
        )


def end(processes, *, number=signal.SIGTERM, seconds=10):
    """End daemons: ask all, wait, kill the rest."""
    for process in processes:
        process.send_signal(number)
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=20)


def processes_with(**variables):
    """Processes of which each variable of the environment begins with a text, but for ourselves."""
    me = psutil.Process()
    mine = {me.pid, *(parent.pid for parent in me.parents())}
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ() if process.pid not in mine else {}
        except (psutil.Error, OSError):  # it has ended, or is somebody else's
            continue
        if all(environment.get(name, "").startswith(text) for name, text in variables.items()):
            found.append(process)
    return found


def processes_in(folder):
    """Processes whose current folder is this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def told(process):
    """A process in words, with the ports at which it listens."""
    try:
        words = " ".join(process.cmdline())[:300] or process.name()
        return f"process {process.pid}, {words}; it listens at {ports_of(process)}"
    except psutil.Error:
        return f"process {process.pid}"


def ports_of(process):
    """At which a process listens."""
    connections = process.net_connections("inet")
    return sorted({each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN})


def shared_by(process):
    """Files in /dev/shm that a process has in its memory."""
    try:
        lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    except OSError:  # it has ended, or is somebody else's
        return set()
    names = [line.partition(f" {SHARED}/")[2] for line in lines]
    return {SHARED / name for name in names if name and not name.endswith(" (deleted)")}


def files_in(temporary):
    """What is in a temporary directory, but for what libraries keep there, one for all processes.

    Dask has a folder with locks, in which each worker has a folder and a lock of its own; torch
    makes one for what it compiles.
    """
    found = []
    for path in sorted(temporary.glob("*")):
        if path.name == "dask-scratch-space":
            found += [each for each in sorted(path.iterdir()) if each.suffix not in LOCKS]
        elif not path.name.startswith("torchinductor_") or any(path.iterdir()):
            found.append(path)
    return found


def kill(processes):
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    wait_until(lambda: not any(map(is_alive, processes)), "killed processes are gone")


def is_alive(process):
    """Whether it runs; one that nobody has asked about since it ended does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def user_name():
    return pwd.getpwuid(os.geteuid()).pw_name
