"""A private SLURM, on loopback as any user or on hosts as root: a controller and several nodes."""

import os
import re
import secrets
import socket

from .processes import (
    free_ports,
    processes_in,
    processes_with,
    program,
    start,
    user_name,
    wait_until,
)
from .service import Service

INSTALL = "apt-get install slurm-wlm munge"
# No cgroups and no accounting data base; a job over its memory is killed by what /proc tells.
CONFIG = """\
ClusterName=private
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munged/socket
CredType=cred/munge
{listen}StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n/spool
SlurmctldPidFile={folder}/slurmctld/pid
SlurmdPidFile={folder}/%n/pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/prolog
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
SlurmdTimeout={node_timeout}
KillWait=20
ReturnToService=2
JobRequeue=0
{nodes}
PartitionName=test Nodes=ALL Default=YES MaxTime=1:00:00 DefaultTime=10:00 DefMemPerCPU={share}
"""
# As many sites have it, each node has a temporary directory of its own for jobs.
PROLOG = """\
#!/bin/sh
echo export TMPDIR={folder}/$SLURMD_NODENAME/tmp
"""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")  # they pass for GPUs


class Slurm(Service):
    """A controller and nodes.

    Parameters
    ----------
    folder, num_nodes
        As of `Service`.
    hosts : sequence of Host, optional
        From `hosts`: one node is in each, and the controller in the first, where all commands
        are run. Otherwise all are on this machine's loopback.
    cpus, memory, gpus : int
        Of each node; memory in MiB. They need not be there in truth.
    node_timeout : int
        Seconds after which a node that does not answer is down, and its jobs have failed.
    """

    def __init__(
        self,
        folder=None,
        *,
        num_nodes=2,
        hosts=(),
        cpus=2,
        memory=4000,
        gpus=0,
        node_timeout=10,
    ):
        tools = [(name, program(name, INSTALL)) for name in ("munged", "slurmctld", "slurmd")]
        self._programs = dict(tools)
        program("sbatch", INSTALL)
        if gpus > len(DEVICES):
            raise ValueError(f"{gpus} GPUs: at most {len(DEVICES)} can be pretended")
        super().__init__("slurm", folder, num_nodes, hosts)
        folder = self.folder
        self.config = folder / "slurm.conf"
        self.environment["SLURM_CONF"] = str(self.config)
        for name in ("", "munged", "state"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name).chmod(0o755)
        key = folder / "munged" / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        (folder / "prolog").write_text(PROLOG.format(folder=folder))
        (folder / "prolog").chmod(0o755)
        port, *ports = free_ports(1 + len(self.nodes))
        host = socket.gethostname().partition(".")[0]
        features = f"CPUs={cpus} RealMemory={memory}"
        if gpus:
            features += f" Gres=gpu:{gpus}"
            lines = [f"Name=gpu File={device}\n" for device in DEVICES[:gpus]]
            (folder / "gres.conf").write_text("".join(lines))
        nodes = ["GresTypes=gpu"] if gpus else []
        for name, own in zip(self.nodes, ports, strict=True):
            there = self._hosts.get(name)
            at, address = (there.name, there.address) if there else (host, "127.0.0.1")
            place = f"NodeHostname={at} NodeAddr={address} Port={own}"
            nodes.append(f"NodeName={name} {place} {features} State=UNKNOWN")
        self.config.write_text(
            CONFIG.format(
                host=self._head.name if self._head else host,
                address=self._address,
                # In a host they listen everywhere: it has a network of its own, and by its name
                # its own address may be one of loopback.
                listen="" if hosts else "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny\n",
                port=port,
                user=user_name(),
                folder=folder,
                node_timeout=node_timeout,
                nodes="\n".join(nodes),
                share=memory // cpus,
            )
        )
        self._begin()

    def _start_central(self):
        self._start_munge()
        self.start_controller()

    def _start(self, name, *arguments, tool=None):
        command = [self._programs[tool or name], *map(str, arguments)]
        variables = {**os.environ, **self.environment}
        place = self.folder / name  # its current folder, by which a node's processes are found
        place.mkdir(exist_ok=True)
        log = place / "log"
        before = self._into(name, place)
        self._daemons[name] = start(command, environment=variables, log=log, before=before)

    def _start_munge(self):
        own = self.folder / "munged"
        paths = {"socket": "socket", "key-file": "key", "pid-file": "pid", "seed-file": "seed"}
        options = [f"--{name}={own / file}" for name, file in paths.items()]
        options += [f"--log-file={own / 'munged.log'}", "--num-threads=2", "--origin=127.0.0.1"]
        self._start("munged", "--foreground", "--force", *options)
        wait_until((own / "socket").is_socket, "munged listens")

    def start_controller(self):
        """Start slurmctld, also again after `stop_controller`: it finds its jobs."""
        self._start("slurmctld", "-D", "-f", self.config)
        log = self.folder / "slurmctld" / "log"
        wait_until(self._answers, "slurmctld answers", log=log)

    def stop_controller(self):
        """Take slurmctld away; it saves its queue, and jobs that run go on."""
        self._end_daemons("slurmctld")

    def _answers(self):
        return self.run("scontrol", "ping", check=False).returncode == 0

    def _start_node(self, name):
        self._temporary(name).mkdir(parents=True, exist_ok=True)
        self._start(name, "-D", "-N", name, "-f", self.config, tool="slurmd")

    def _wait_for(self, name):
        log = self.folder / name / "log"
        wait_until(lambda: self.state_of_node(name) == "IDLE", f"node {name} is idle", log=log)

    def processes(self, node=None):
        """What runs for this SLURM, or for jobs on one of its nodes; not who called it."""
        if node is None:
            found = set(processes_with(SLURM_CONF=str(self.config)))
            return list(found.union(*map(self.processes, self.nodes)))
        # Steps of jobs have no environment to see.
        return processes_in(self.folder / node) + self._processes_of_jobs(node)

    def state_of_node(self, name):
        """SLURM's word for the state of a node, such as IDLE, MIXED, DOWN."""
        told = self.run("scontrol", "show", "node", name, "--oneliner", check=False).stdout
        found = re.search(r" State=(\w+\S*)", told)
        return found.group(1) if found else None

    def jobs(self):
        """State and reason of each job in the queue, such as ``{"7": ("RUNNING", "None")}``."""
        told = self.run("squeue", "--noheader", "--format=%i|%T|%r").stdout
        rows = [line.split("|") for line in told.splitlines()]
        return {number: (state, reason) for number, state, reason in rows}

    def job(self, number):
        """What ``scontrol show job`` tells, by its own names, such as JobState and Reason."""
        told = self.run("scontrol", "show", "job", number, "--oneliner").stdout
        return dict(re.findall(r"(\S+?)=(\S*)", told))

    def _remove_jobs(self):
        if "slurmctld" not in self._daemons:
            self.start_controller()
        self.run("scancel", "--user", user_name(), check=False)

    def _resume(self, name):
        if self.state_of_node(name) != "IDLE":
            self.run("scontrol", "update", f"NodeName={name}", "State=RESUME", check=False)

    def _temporary(self, node):
        return self.folder / node / "tmp"

    def _processes_of_jobs(self, node):
        return processes_with(SLURM_CONF=str(self.config), SLURMD_NODENAME=node)

    def stop(self):
        """End jobs and daemons, and remove the folder."""
        if "slurmctld" in self._daemons:
            self.run("scancel", "--signal=KILL", "--full", "--user", user_name(), check=False)
        for name in [*self.nodes, "slurmctld", "munged"]:  # without munged, others cannot end
            self._end_daemons(name)
        self._remove()
