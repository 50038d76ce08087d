"""What all batch systems that tests start have in common: daemons, nodes and commands."""

import os
import shutil
import subprocess

from .processes import end, files_in, kill, new_folder, shared_by, told, wait_until


class Service:
    """A batch system with nodes ``n1``, ``n2``, …, ready for jobs; nothing outlives `stop`.

    Parameters
    ----------
    name : str
        Of the system, with which its folder's name begins.
    folder : Path or None
        Empty or new; neither it nor a folder above may be writable for others, but for /tmp, where
        one is made.
    num_nodes : int
        How many.
    hosts : sequence of Host
        From `hosts`: one node is in each, however many were asked for, and what is central in the
        first, where all commands are run. Without them all are on this machine's loopback.

    Attributes
    ----------
    environment : dict of str to str
        With which the commands of the system find it.
    """

    def __init__(self, name, folder, num_nodes, hosts):
        self.folder = new_folder(name, folder)
        self.nodes = [f"n{number}" for number in range(1, (len(hosts) or num_nodes) + 1)]
        self._head = hosts[0] if hosts else None
        self._hosts = dict(zip(self.nodes, hosts, strict=False))
        self._address = self._head.address if self._head else "127.0.0.1"  # of what is central
        self.environment = {}
        self._daemons = {}  # by name, as of a node

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _begin(self):
        """Start all; nothing is left when that fails."""
        try:
            self._start_central()
            for name in self.nodes:
                self._start_node(name)
            for name in self.nodes:
                self._wait_for(name)
            self._wait_for_commands()
        except BaseException:
            self.stop()
            raise

    def _into(self, name, place):
        """What starts a daemon of a node, or another, in its host; nothing without hosts."""
        host = self._hosts.get(name, self._head)
        return host.command(cwd=place) if host else []

    def run(self, *command, check=True):
        """The finished process of a command, such as ``squeue`` or ``condor_q``."""
        command = [str(part) for part in command]
        done = subprocess.run(
            self._head.command(*command) if self._head else command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def start_node(self, name):
        """Bring a node back after `kill_node`."""
        self._start_node(name)
        self._wait_for(name)

    def kill_node(self, name):
        """End a node as a power cut does: its daemons, all processes of its jobs, and its memory.

        Its temporary directory lies in memory too.
        """
        shared = {file for process in self.processes(name) for file in shared_by(process)}
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait(timeout=20)
        self._kill_processes(name)
        for file in shared:
            file.unlink(missing_ok=True)
        for file in self._temporary(name).glob("*"):
            shutil.rmtree(file, ignore_errors=True)

    def left(self):
        """What jobs have left, in words: themselves, their processes and temporary files."""
        jobs = [f"job {number}: {state}" for number, state in self.jobs().items()]
        running = [process for name in self.nodes for process in self._processes_of_jobs(name)]
        files = [file for name in self.nodes for file in files_in(self._temporary(name))]
        return [*jobs, *map(told, running), *map(str, files)]

    def clear(self):
        """Take all jobs away and bring back what was killed."""
        self._remove_jobs()
        for name in self.nodes:
            if name not in self._daemons:
                self._start_node(name)
        wait_until(lambda: not self.jobs(), "no job is left")
        for name in self.nodes:
            kill(self._processes_of_jobs(name))
            for file in self._temporary(name).glob("*"):
                shutil.rmtree(file, ignore_errors=True)
            self._resume(name)
            self._wait_for(name)

    def _wait_for_commands(self):
        """Wait until the system answers, where that may take longer than its nodes."""

    def _resume(self, name):
        """Let a node have jobs again, where that needs a command."""

    def _end_daemons(self, *names, **how):
        end([self._daemons.pop(name) for name in names if name in self._daemons], **how)

    def _kill_processes(self, node=None):
        while left := self.processes(node):  # they may start others
            kill(left)

    def _remove(self, *more):
        """End what is left, and remove folders."""
        self._kill_processes()
        for folder in (*more, self.folder):
            shutil.rmtree(folder, ignore_errors=True)
