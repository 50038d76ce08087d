"""Hosts that tests start are as good as machines of their own."""

import sys
from pathlib import Path

import psutil
import pytest

from services.hosts import hosts as joined
from services.processes import wait_until

pytestmark = pytest.mark.batch

SERVE = """\
import socket, sys
with socket.create_server((sys.argv[1], 0)) as listening:
    print(listening.getsockname()[1], flush=True)
    while True:
        with listening.accept()[0] as peer:
            peer.sendall(socket.gethostname().encode())
"""
ASK = """\
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as peer:
    print(peer.recv(100).decode())
"""


def python(text, *arguments):
    return [sys.executable, "-c", text, *arguments]


def serving(host, address):
    """A server in a host that tells the host's name, and its port."""
    process = host.popen(python(SERVE, address), stdout=-1, text=True)
    return process, process.stdout.readline().strip()


def test_each_host_has_a_name_an_address_and_memory_of_its_own(hosts):
    first, second = hosts
    look = (
        "import os, socket; print(socket.gethostname(), os.listdir('/dev/shm'), os.getpid() < 99)"
    )
    first.run("touch", "/dev/shm/here")
    assert first.run(*python(look)).stdout == "host1 ['here'] True\n"
    assert second.run(*python(look)).stdout == "host2 [] True\n"
    assert not Path("/dev/shm/here").exists()
    first.run("rm", "/dev/shm/here")


def test_hosts_reach_each_other_by_name_and_not_their_loopback(hosts):
    first, second = hosts
    server, port = serving(first, "0.0.0.0")  # noqa: S104  # of this host alone
    with server.stdout:
        assert second.run(*python(ASK, "host1", port)).stdout == "host1\n"
        refused = second.run(*python(ASK, "127.0.0.1", port), check=False)
        assert "ConnectionRefusedError" in refused.stderr
        server.terminate()
        assert server.wait(timeout=20) == -15


def test_a_host_finds_its_own_name_on_loopback_as_on_debian(hosts):
    tell = "import socket; print(*(socket.gethostbyname(n) for n in ('host1', 'host2')))"
    assert [host.run(*python(tell)).stdout for host in hosts] == [
        f"127.0.1.1 {hosts[1].address}\n",
        f"{hosts[0].address} 127.0.1.1\n",
    ]
    with joined(1, debian=False) as (alone,):
        assert alone.run("getent", "hosts", "host1").stdout.split() == [alone.address, "host1"]


def test_all_of_a_host_ends_with_its_power(hosts):
    first, second = hosts
    server, _ = serving(first, "127.0.0.1")
    stray = first.popen(["sh", "-c", "setsid sleep 1000 & setsid sleep 1000"])
    with server.stdout:
        wait_until(lambda: len(first.processes()) == 4, "all have started")
        started = first.processes()
        first.power_off()
        assert server.wait(timeout=20) == -9
        assert stray.wait(timeout=20) == -9
    wait_until(lambda: not any(map(psutil.Process.is_running, started)), "all have ended")
    assert not first.processes()
    assert second.run("hostname").stdout == "host2\n"


def test_hosts_leave_nothing(hosts, tmp_path):
    before = set(psutil.net_if_addrs())
    with joined(3, folder=tmp_path / "etc") as made:
        assert [host.run("hostname").stdout for host in made] == ["host1\n", "host2\n", "host3\n"]
        assert list((tmp_path / "etc").iterdir())
        server, port = serving(made[0], made[0].address)
        with server.stdout:
            assert made[2].run(*python(ASK, "host1", port)).stdout == "host1\n"
    assert server.wait(timeout=20) == -9
    assert set(psutil.net_if_addrs()) == before
    assert not list(tmp_path.iterdir())
