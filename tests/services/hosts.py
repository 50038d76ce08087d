"""Several hosts on this machine: namespaces of the kernel, joined by cables to one switch.

Each host has its own name, addresses, loopback, process numbers, /proc, /dev/shm and /etc/hosts;
all see the same files. As root only. Nothing outside the namespaces changes, and all is gone with
them.
"""

import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import psutil

from .processes import SHARED, Missing, is_alive, new_folder, program, told, wait_until

KINDS = ("mount", "uts", "ipc", "net", "pid")
NETWORK = "10.213.77"
SPARE = "198.51.100"  # addresses that no other host reaches


class Host:
    """A machine of its own, as far as programs can see.

    Attributes
    ----------
    name, address : str
        Of this host in the network that joins it with the others.
    """

    _cable = ()  # the switch's process, and the name of its port

    def __init__(self, name, address, etc_hosts):
        self.name = name
        self.address = address
        self._holder = _namespaces(["net", "uts", "ipc", "pid"], "--mount-proc")
        try:
            self._pid = _child(self._holder)
            self.run("hostname", name)
            self.run("mount", "--bind", etc_hosts, "/etc/hosts")
            self.run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm")
            self.run("ip", "link", "set", "lo", "up")
        except BaseException:
            self.power_off()
            raise

    def command(self, *command, cwd=None):
        """The command line that runs a command in this host, in the current folder or another."""
        enter = ["nsenter", f"--target={self._pid}", *(f"--{kind}" for kind in KINDS)]
        there = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", cwd or Path.cwd()]
        return [str(part) for part in (*enter, "--", *there, *command)]

    def popen(self, command, **options):
        """A process in this host, as of `subprocess.Popen`; signals reach the command itself."""
        return _Inside(self, command, **options)

    def run(self, *command, cwd=None, check=True, timeout=60, **options):
        """The finished process of a command in this host, with what it has printed."""
        options = {"capture_output": True, "text": True, **options}
        done = subprocess.run(self.command(*command, cwd=cwd), timeout=timeout, **options)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def processes(self):
        """All that runs in this host."""
        own = _inode(self._pid)
        others = (one for one in psutil.process_iter() if one.pid != self._pid)
        return [one for one in others if own and _inode(one.pid) == own]

    def left(self):
        """What those that ran in this host have left, in words; nothing once it has no power."""
        if self._holder.poll() is not None:
            return []
        shared = self.run("ls", "/dev/shm").stdout.split()
        own = [told(process) for process in self.processes() if is_alive(process)]
        return [*own, *(f"{SHARED}/{each} of {self.name}" for each in shared)]

    def listening(self):
        """Addresses and ports at which anybody in this host listens, for TCP."""
        found = set()
        for file, family, size in (("tcp", socket.AF_INET, 8), ("tcp6", socket.AF_INET6, 32)):
            for line in Path(f"/proc/{self._pid}/net/{file}").read_text().splitlines()[1:]:
                place, _, state = line.split()[1:4]
                address, _, port = place.partition(":")
                if state == "0A":
                    words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, size, 8)]
                    found.add((socket.inet_ntop(family, b"".join(words)), int(port, 16)))
        return found

    def unplug(self):
        """Pull the cable out: packets get lost without a word, and what is open stays open."""
        switch, port = self._cable
        _ip(switch, "link", "set", port, "down")

    def plug(self):
        """Put the cable in again."""
        switch, port = self._cable
        _ip(switch, "link", "set", port, "up")

    def power_off(self):
        """End all that runs in this host, at once; it cannot be started again."""
        self._holder.kill()
        self._holder.wait(timeout=20)


class _Inside(subprocess.Popen):
    """A command in a host; what we see of it is its parent, which passes its exit status on."""

    def __init__(self, host, command, *, cwd=None, **options):
        tied = ["setpriv", "--pdeathsig", "KILL", *command]
        super().__init__(host.command(*tied, cwd=cwd), **options)

    def send_signal(self, number):
        if self.poll() is None:
            for child in psutil.Process(self.pid).children() or [super()]:
                child.send_signal(number)


@contextmanager
def hosts(number=2, *, debian=True, names=True, spare=False, folder=None):
    """Several hosts in one network.

    Parameters
    ----------
    debian : bool, default True
        In the /etc/hosts of each, its own name is 127.0.1.1, as Debian's installer writes it; or
        else the address by which others know it.
    names : bool, default True
        Each knows the names of the others; or else nobody finds a name for an address.
    spare : bool, default False
        Each has another interface, which reaches none of the others: its first address, and that
        of the default route.
    folder : Path, optional
        Where their files are made; by default the temporary directory.

    Yields
    ------
    list of Host
        Named ``host1``, ``host2``, …
    """
    if os.geteuid() != 0:
        raise Missing("hosts of their own need root", can_be_installed=False)
    for name, package in (("ip", "iproute2"), ("nsenter", "util-linux"), ("setpriv", "util-linux")):
        program(name, f"apt-get install {package}")
    addresses = {f"host{n}": f"{NETWORK}.{n}" for n in range(1, number + 1)}
    folder = new_folder("hosts", folder)
    switch, made = None, []
    try:
        try:
            switch = _namespaces(["net"])
            where = _child(switch)
            _ip(where, "link", "add", "switch", "type", "bridge")
            _ip(where, "link", "set", "switch", "up")
        except AssertionError as error:
            reason = f"this kernel makes no networks of their own: {error}"
            raise Missing(reason, can_be_installed=False) from None
        for index, (name, address) in enumerate(addresses.items()):
            known = {**(addresses if names else {}), **({name: "127.0.1.1"} if debian else {})}
            etc_hosts = folder / name
            lines = [f"{at} {who}\n" for who, at in known.items()]
            etc_hosts.write_text("127.0.0.1 localhost\n" + "".join(lines))
            host = Host(name, address, etc_hosts)
            made.append(host)
            host._cable = (where, f"port{index}")
            if spare:
                own = f"{SPARE}.{index + 1}"
                end = ["type", "veth", "peer", "name", "aside", "netns", str(host._pid)]
                _ip(where, "link", "add", f"nowhere{index}", *end)
                _ip(where, "link", "set", f"nowhere{index}", "up")
                host.run("ip", "address", "add", f"{own}/24", "dev", "aside")
                host.run("ip", "link", "set", "aside", "up")
                host.run("ip", "route", "add", "default", "via", f"{SPARE}.254")
            end = ["type", "veth", "peer", "name", "eth0", "netns", str(host._pid)]
            _ip(where, "link", "add", f"port{index}", *end)
            _ip(where, "link", "set", f"port{index}", "master", "switch", "up")
            host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")
        yield made
    finally:
        for host in made:
            host.power_off()
        if switch is not None:
            switch.kill()
            switch.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def _namespaces(kinds, *more):
    """A process that holds new namespaces, until it is killed or this process ends."""
    new = [f"--{kind}" for kind in kinds]
    tied = ["setpriv", "--pdeathsig", "KILL", "unshare", *new, "--fork", "--kill-child", *more]
    return subprocess.Popen([*tied, "--", "sleep", "infinity"], stdin=subprocess.DEVNULL)


def _child(holder):
    """The process in the namespaces, once it is there."""

    def asleep():
        assert holder.poll() is None, "unshare has failed"
        children = psutil.Process(holder.pid).children()
        return [child.pid for child in children if child.name() == "sleep"]

    return wait_until(asleep, "the namespaces are there")[0]


def _ip(pid, *command):
    enter = ["nsenter", f"--target={pid}", "--net", "--", "ip", *command]
    done = subprocess.run(enter, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _inode(pid):
    try:
        return Path(f"/proc/{pid}/ns/pid").stat().st_ino
    except OSError:
        return None
