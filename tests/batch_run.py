"""Runs by the command on a batch system, with a function that can be held, and what they tell."""

import json
import subprocess
from contextlib import suppress

import main_job
import pytest
import yaml
from services.processes import wait_until

SYSTEMS = ("slurm", "htcondor")
NIGHTLY = pytest.mark.nightly


def always_on(system):
    """Parameters of a test that runs on one batch system whenever tests do, on others nightly.

    None runs it on none but nightly.
    """
    marks = {other: NIGHTLY for other in SYSTEMS if other != system}
    each = [pytest.param(name, marks=marks.get(name, ())) for name in SYSTEMS]
    return pytest.mark.parametrize("batch", each, indirect=True)


SLOW = """
import os, time

def is_in_a_job():
    return "SLURM_JOB_ID" in os.environ or "_CONDOR_SCRATCH_DIR" in os.environ

def slow(events, seconds=0.0, fat=0, once="", hold="", calls=""):
    if calls and is_in_a_job():
        with open(calls, "a") as file:
            file.write("x")
    time.sleep(seconds)
    while is_in_a_job() and os.path.exists(hold):
        time.sleep(0.05)
    if fat and is_in_a_job() and not os.path.exists(once):
        open(once, "w").close()
        kept = bytearray(fat)
        kept[::4096] = b"x" * len(kept[::4096])
        time.sleep(600)
    return events
"""
# Ranks stand still after the first epoch until there is a file "go"; each says so. The folder is
# named backwards: what the code names plainly is a part of it.
PATIENT = """
import os, time
from torch.nn.functional import binary_cross_entropy_with_logits

folder = "{redlof}"[::-1]

def is_held():
    with open(folder + "/run/journal.jsonl") as journal:
        return '"kind": "epoch"' in journal.read() and not os.path.exists(folder + "/go")

def patient(outputs, targets):
    while is_held():
        open(f"{{folder}}/held-{{os.getpid()}}", "w").close()
        time.sleep(0.05)
    return binary_cross_entropy_with_logits(outputs, targets, reduction="none")
"""


class Batch:
    """A batch system in the words of these tests."""

    def __init__(self, system, service):
        self.system = system
        self.service = service

    def cancel(self, *jobs):
        self.service.run("scancel" if self.system == "slurm" else "condor_rm", *jobs)

    def end_walltime(self, *jobs):
        """Have the batch system end jobs as those whose walltime is over: SLURM looks every 30 s.

        Pools of HTCondor have a policy that removes jobs for that.
        """
        for job in jobs:
            if self.system == "slurm":
                self.service.run("scontrol", "update", f"JobId={job}", "EndTime=now+10")
            else:
                self.service.run("condor_qedit", "-forward", job, "PeriodicRemove", "true")

    def jobs(self):
        """Numbers of the jobs that are in the queue."""
        if self.system == "slurm":
            told = self.service.run("squeue", "--noheader", "--format=%i").stdout
            return told.split()
        return list(self.service.jobs())


class Run:
    """A run by the command on a batch system, in a folder of its own."""

    def __init__(
        self, batch, folder, *, site=None, jobs=None, config=None, function=None, **options
    ):
        self.batch = batch
        self.folder = folder
        if not (folder / "dataset.yaml").exists():
            main_job.write_config(folder, **options)
            document = json.loads((folder / "dataset.yaml").read_text())
            document["partition"] = {"max_events": 500}
            document["function"] = {"callable": "slow.py:slow", "kwargs": function or {}}
            document |= config or {}
            (folder / "dataset.yaml").write_text(json.dumps(document))
            (folder / "slow.py").write_text(SLOW)
            (folder / "patient.py").write_text(PATIENT.format(redlof=str(folder)[::-1]))
        given = {"memory": "1 GiB", "death-timeout": "60 s", **(jobs or {})}
        described = {
            "mlaas4hep": {
                "title": "two nodes on one machine",
                "base": batch.system,
                "poll-interval": "0.5 s",
                "readers": {"minimum": 1, "maximum": 1},
                **(site or {}),
            },
            "jobqueue": {batch.system: given},
        }
        (folder / "ours.yaml").write_text(yaml.safe_dump(described))
        self.log = folder / "printed"

    def __enter__(self):
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*main_job.command(self.batch.system), "--site", "ours.yaml"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_):
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)

    def printed(self):
        return self.log.read_text()

    def folder_of_jobs(self):
        return max((self.folder / "run.jobs").iterdir())

    def records(self):
        """What was seen of jobs and done, of the last time that the command ran."""
        with suppress(OSError, ValueError):  # it has not begun
            return lines_of(self.folder_of_jobs() / "jobs.jsonl")
        return []

    def lost(self):
        """What was told of the jobs that were lost, by name of the worker."""
        losses = [each for each in self.records() if each.get("state") == "lost"]
        return {each["worker"]: each["text"] for each in losses}

    def submitted(self, group=""):
        """Places in the records of the jobs of a group, or of all, that were submitted."""
        return [
            place
            for place, each in enumerate(self.records())
            if each["event"] == "submitted" and each["group"].startswith(group)
        ]

    def said_by_jobs(self):
        """What stands in the logs of all jobs."""
        logs = self.folder_of_jobs().glob("logs/*.log")
        return "".join(log.read_text(errors="replace") for log in logs)

    def journal(self):
        with suppress(OSError):
            return lines_of(self.folder / "run" / "journal.jsonl")
        return []

    def wait_for(self, is_so, what, seconds=120):
        def found():
            assert self.process.poll() is None, self.printed()
            return is_so()

        wait_until(found, what, seconds=seconds, log=self.log)

    def num_events(self, stage):
        """Events that are done in a stage, as far as they are written down."""
        done = [each for each in self.journal() if each["kind"] == "progress"]
        return max((each["events"] for each in done if each["stage"] == stage), default=0)

    def wait_for_events(self, stage, number=1):
        self.wait_for(lambda: self.num_events(stage) >= number, f"{stage} is at work")

    def wait_for_workers(self, group, number):
        """Jobs by name of so many workers, once it is written down that they have connected."""
        self.wait_for(lambda: len(self.connected(group)) == number, f"{number} {group} are there")
        return self.connected(group)

    def connected(self, group):
        """Jobs by name of the workers of a group that are there now."""
        here = {}
        for record in self.records():
            if record.get("state") == "connected" and record["worker"].startswith(group):
                here[record["worker"]] = record["job"]
            elif record.get("state") == "lost":
                here.pop(record.get("worker"), None)
        return here

    def ended(self, seconds=200):
        """The exit status, and what was printed; no job is left, nor process or key."""
        code = self.process.wait(seconds)
        # Jobs that were ended are in the queue until their processes are gone.
        wait_until(lambda: not self.batch.jobs(), "no job is left", seconds=60, log=self.log)
        assert not (self.folder_of_jobs() / "tls").exists()
        return code, self.printed()

    def results(self):
        assert self.ended()[0] == 0, self.printed()
        return main_job.results(self.folder)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
