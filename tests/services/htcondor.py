"""A private HTCondor pool, on loopback or on hosts: a central machine and several nodes."""

import json
import os
import pwd
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from .processes import Missing, free_ports, processes_with, program, start, wait_until
from .service import Service

UNPACKED = Path(__file__).resolve().parents[2] / ".venv-htcondor" / "root" / "usr"
INSTALL = "make services"
COMMANDS = (
    *(
        "config_val",
        "history",
        "hold",
        "off",
        "prio",
        "ps",
        "q",
        "qedit",
        "release",
        "rm",
        "status",
    ),
    *(
        "submit",
        "suspend",
        "tail",
        "transfer_data",
        "vacate",
        "vacate_job",
        "version",
        "wait",
        "who",
    ),
)
# Everybody who reaches loopback and shows a file of this user may do all. Cycles are short, and
# nothing needs cgroups, root or a network.
CONFIG = """\
RELEASE_DIR = {release}
BIN = $(RELEASE_DIR)/bin
SBIN = $(RELEASE_DIR)/sbin
LIB = $(RELEASE_DIR)/lib
LIBEXEC = $(RELEASE_DIR)/libexec/condor
SHARE = $(RELEASE_DIR)/share/condor
LOCAL_DIR = {folder}/central
LOG = $(LOCAL_DIR)/log
SPOOL = $(LOCAL_DIR)/spool
RUN = $(LOCAL_DIR)/run
LOCK = $(LOCAL_DIR)/run
EXECUTE = $(LOCAL_DIR)/execute
REQUIRE_LOCAL_CONFIG_FILE = False
LOCAL_CONFIG_FILE =
LOCAL_CONFIG_DIR =

COLLECTOR_NAME = private
COLLECTOR_HOST = {address}:{port}
CONDOR_HOST = {address}
NETWORK_INTERFACE = {address}
BIND_ALL_INTERFACES = False
ENABLE_IPV6 = False
NO_DNS = True
DEFAULT_DOMAIN_NAME = private.test
UID_DOMAIN = private.test
FILESYSTEM_DOMAIN = private.test
USE_SHARED_PORT = True
SHARED_PORT_PORT = {port}
DAEMON_SOCKET_DIR = {sockets}
DAEMON_LIST = MASTER COLLECTOR NEGOTIATOR SCHEDD

SEC_DEFAULT_AUTHENTICATION = REQUIRED
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
SEC_CLIENT_AUTHENTICATION_METHODS = FS
SEC_DEFAULT_ENCRYPTION = OPTIONAL
SEC_DEFAULT_INTEGRITY = OPTIONAL
SEC_USE_FAMILY_SESSION = False
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_NEGOTIATOR = *
ALLOW_ADMINISTRATOR = *
ALLOW_ADVERTISE_MASTER = *
ALLOW_ADVERTISE_SCHEDD = *
ALLOW_ADVERTISE_STARTD = *

START = True
SUSPEND = False
CONTINUE = True
PREEMPT = False
KILL = False
WANT_SUSPEND = False
RANK = 0
CLAIM_WORKLIFE = 0
NUM_CPUS = {cpus}
MEMORY = {memory}
NUM_SLOTS = 1
NUM_SLOTS_TYPE_1 = 1
SLOT_TYPE_1 = 100%
SLOT_TYPE_1_PARTITIONABLE = True
{gpus}
NEGOTIATOR_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 1
NEGOTIATOR_MIN_INTERVAL = 1
SCHEDD_INTERVAL = 2
SCHEDD_MIN_INTERVAL = 1
UPDATE_INTERVAL = 5
POLLING_INTERVAL = 2
STARTER_INITIAL_UPDATE_INTERVAL = 1
STARTER_UPDATE_INTERVAL = 2
SHADOW_QUEUE_UPDATE_INTERVAL = 2
MASTER_UPDATE_INTERVAL = 10
PERIODIC_EXPR_INTERVAL = 2
KILLING_TIMEOUT = 5
MACHINE_MAX_VACATE_TIME = 5
JOB_DEFAULT_LEASE_DURATION = {lease}
CLASSAD_LIFETIME = 30
SYSTEM_PERIODIC_HOLD = MemoryUsage > RequestMemory
SYSTEM_PERIODIC_HOLD_REASON = "the job used more memory than it requested"

BASE_CGROUP =
CGROUP_MEMORY_LIMIT_POLICY = none
DISCARD_SESSION_KEYRING_ON_STARTUP = False
ENABLE_SSH_TO_JOB = False
JOB_DEFAULT_NOTIFICATION = NEVER
MAIL = /bin/true
CONDOR_ADMIN =
RunBenchmarks = False
SCHEDD_CRON_JOBLIST =
STARTD_CRON_JOBLIST =
"""


class HTCondor(Service):
    """A central machine and nodes.

    HTCondor runs no jobs of root. As root, its daemons and commands therefore run in a user
    namespace in which they see themselves as another user; files keep their owner.

    Parameters
    ----------
    folder, num_nodes, hosts
        As of `Service`.
    cpus, memory, gpus : int
        Of each node; memory in MiB. They need not be there in truth.
    lease : int
        Seconds after which a job of a node that does not answer is queued again.
    """

    def __init__(
        self, folder=None, *, num_nodes=2, hosts=(), cpus=2, memory=4000, gpus=0, lease=20
    ):
        release = UNPACKED
        if not (release / "sbin" / "condor_master").exists():
            release = Path(program("condor_master", INSTALL)).parents[1]
        self._release = release
        self._before = _as_ordinary_user()
        super().__init__("htcondor", folder, num_nodes, hosts)
        folder = self.folder
        # The path of a socket is at most 107 characters long.
        self._sockets = Path(tempfile.mkdtemp(prefix="htcondor", dir="/tmp"))
        self.config = folder / "condor_config"
        devices = ", ".join(f"GPU-pretended{number}" for number in range(gpus))
        self.config.write_text(
            CONFIG.format(
                release=release,
                folder=folder,
                port=free_ports(1)[0],
                address=self._address,
                sockets=self._sockets,
                cpus=cpus,
                memory=memory,
                gpus=f"MACHINE_RESOURCE_GPUs = {devices}" if gpus else "",
                lease=lease,
            )
        )
        self.commands = folder / "bin"
        self.environment = {
            "CONDOR_CONFIG": str(self.config),
            "PATH": f"{self.commands}:{os.environ['PATH']}",
        }
        self._started = {}
        self._write_commands()
        self._begin()

    def _start_central(self):
        self._start_master("central", {})

    def _wait_for_commands(self):
        wait_until(self._answers, "condor_q answers", log=self.folder / "central" / "log")

    def _answers(self):
        return self.run("condor_q", check=False).returncode == 0

    def _write_commands(self):
        self.commands.mkdir(exist_ok=True)
        for name in COMMANDS:
            places = [self._release / place / f"condor_{name}" for place in ("bin", "sbin")]
            for place in (place for place in places if place.exists()):
                command = " ".join(["exec", *self._before, str(place), '"$@"'])
                script = self.commands / place.name
                script.write_text(f"#!/bin/sh\nexport CONDOR_CONFIG={self.config}\n{command}\n")
                script.chmod(0o755)

    def _start_master(self, name, variables):
        place = self.folder / name
        for part in ("log", "spool", "run", "execute"):
            (place / part).mkdir(parents=True, exist_ok=True)
        (place / "execute").chmod(0o1777)
        self._daemons[name] = start(
            [self._release / "sbin" / "condor_master", "-f"],
            environment={**os.environ, "CONDOR_CONFIG": str(self.config), **variables},
            log=place / "log" / "out",
            before=[*self._into(name, place), *self._before],
        )

    def _start_node(self, name):
        own = {
            "DAEMON_LIST": "MASTER STARTD",
            "LOCAL_DIR": str(self.folder / name),
            "STARTD_NAME": name,
            "MASTER_NAME": name,
            "USE_SHARED_PORT": "False",
        }
        if host := self._hosts.get(name):
            own["NETWORK_INTERFACE"] = host.address
        self._started[name] = int(time.time())
        self._start_master(name, {f"_CONDOR_{key}": value for key, value in own.items()})

    def _wait_for(self, name):
        def is_known():  # by itself, not by what it told before it was killed
            return self.known_nodes().get(name, 0) >= self._started[name]

        wait_until(is_known, f"node {name} is known", log=self.folder / name / "log")

    def known_nodes(self):
        """Nodes that the pool knows now, with the Unix time at which each was started."""
        told = self.run("condor_status", "-af", "Name", "DaemonStartTime", check=False).stdout
        rows = map(str.split, told.splitlines())  # slot1_2@n1@127-0-0-1.private.test 1795930500
        return {slot.split("@")[1]: int(start) for slot, start in rows}

    def processes(self, node=None):
        """What runs for this pool, or for and on one of its nodes; not who called it."""
        place = f"{self.folder / node}" if node is not None else str(self.folder)
        found = set(processes_with(_CONDOR_SCRATCH_DIR=f"{place}/"))
        if node is None:
            found.update(processes_with(CONDOR_CONFIG=str(self.config)))
        else:
            found.update(processes_with(CONDOR_CONFIG=str(self.config), _CONDOR_LOCAL_DIR=place))
        return list(found)

    def run(self, *command, check=True):
        """As of all services; what a queue that was busy did not answer is asked again, twice."""
        for _ in range(3):
            done = super().run(*command, check=False)
            if "Failed to fetch ads" not in done.stderr:
                break
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def submit(self, description):
        """The number, such as "3.0", of the one job that a submit description queues."""
        with tempfile.NamedTemporaryFile("w", suffix=".sub", dir=self.folder) as file:
            file.write(description)
            file.flush()
            told = self.run("condor_submit", "-terse", file.name).stdout
        return told.split()[0]

    def job(self, number):
        """The ClassAd of a job, in the queue or done: JobStatus, HoldReason, LastRemoteHost, …"""
        for command in ("condor_q", "condor_history"):
            if told := self.run(command, number, "-json").stdout.strip():
                return json.loads(told)[0]
        raise LookupError(f"no job {number}")

    def jobs(self):
        """JobStatus of each job in the queue by its number: 1 idle, 2 running, 5 held."""
        told = self.run("condor_q", "-af:j", "JobStatus").stdout
        return {number: int(status) for number, status in map(str.split, told.splitlines())}

    def _remove_jobs(self):
        self.run("condor_rm", "-all", check=False)

    def _temporary(self, node):
        return self.folder / node / "execute"

    def _processes_of_jobs(self, node):
        return processes_with(_CONDOR_SCRATCH_DIR=f"{self.folder / node}/")

    def stop(self):
        """End jobs and daemons, and remove the folder."""
        if "central" in self._daemons:
            self._remove_jobs()
        self._end_daemons(*self.nodes, "central", number=signal.SIGQUIT)
        self._remove(self._sockets)


def _as_ordinary_user():
    """The start of a command line that HTCondor does not see as root's."""
    if os.geteuid() != 0:
        return []
    other = pwd.getpwnam("daemon")
    user = [f"--map-user={other.pw_uid}", f"--map-group={other.pw_gid}"]
    before = ["unshare", "--user", *user, "--"]
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        reason = "there are no user namespaces for root, whose jobs HTCondor refuses"
        raise Missing(reason, can_be_installed=False)
    return before
