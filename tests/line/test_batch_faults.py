"""What goes wrong on real batch systems ends in words or in the same result, and leaves nothing."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import elsewhere
import main_job
import psutil
import pytest
import yaml
from servers import needs_xrootd
from services.processes import wait_until
from services.xrootd import XRootDServer

pytestmark = [pytest.mark.batch, pytest.mark.timeout(280)]

SYSTEMS = ("slurm", "htcondor")
SLOW = """
import os, time

def is_in_a_job():
    return "SLURM_JOB_ID" in os.environ or "_CONDOR_SCRATCH_DIR" in os.environ

def slow(events, seconds=0.0, fat=0, once="", hold=""):
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


class Batch:
    """A batch system in the words of these tests."""

    def __init__(self, system, service):
        self.system = system
        self.service = service

    def cancel(self, *jobs):
        self.service.run("scancel" if self.system == "slurm" else "condor_rm", *jobs)

    def end_walltime(self, *jobs):
        """Have the batch system end jobs as those whose walltime is over: SLURM looks every 30 s.

        Pools of HTCondor remove jobs for that.
        """
        if self.system == "slurm":
            for job in jobs:
                self.service.run("scontrol", "update", f"JobId={job}", "EndTime=now+10")
        else:
            self.cancel(*jobs)

    def jobs(self):
        """Numbers of the jobs that are in the queue."""
        if self.system == "slurm":
            told = self.service.run("squeue", "--noheader", "--format=%i").stdout
            return told.split()
        return list(self.service.jobs())


@pytest.fixture(params=SYSTEMS)
def batch(request):
    return Batch(request.param, request.getfixturevalue(request.param))


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

    def num_submitted(self):
        return [each["event"] for each in self.records()].count("submitted")

    def journal(self):
        with suppress(OSError):
            return lines_of(self.folder / "run" / "journal.jsonl")
        return []

    def wait_for(self, is_so, what, seconds=120):
        def found():
            assert self.process.poll() is None, self.printed()
            return is_so()

        wait_until(found, what, seconds=seconds, log=self.log)

    def wait_for_events(self, stage, number=1):
        def found():
            done = [each for each in self.journal() if each["kind"] == "progress"]
            return any(each["stage"] == stage and each["events"] >= number for each in done)

        self.wait_for(found, f"{stage} is at work")

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


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What the run finds on this machine's own workers, undisturbed."""
    folder = tmp_path_factory.mktemp("here")
    Run(Batch("slurm", None), folder)
    main_job.run(folder, "local")
    return main_job.results(folder)


def restarted(server, folder):
    """The server of a folder, killed and started again at its port."""
    server.end()
    return XRootDServer(folder, server.port)


@needs_xrootd
def test_jobs_that_are_lost_or_end_together_and_a_lost_server_change_no_result(
    batch, tmp_path, expected
):
    server, hold = XRootDServer(main_job.DATA), tmp_path / "hold"
    try:
        with Run(
            batch,
            tmp_path,
            where=server.url,
            site={"readers": {"minimum": 2, "maximum": 2}},
            function={"seconds": 1.0, "hold": str(hold)},
            config={"reading": {"attempts": 6}},
        ) as run:
            run.wait_for_events("specs")
            server.send(signal.SIGSTOP)
            (first, job), _ = run.wait_for_workers("readers", 2).items()
            batch.cancel(job)
            run.wait_for(lambda: first not in run.connected("readers"), "the loss is seen")
            run.wait_for(lambda: run.num_submitted() == 5, "it is replaced")
            hold.touch()  # no partition is done until all jobs have ended
            server.send(signal.SIGCONT)
            server = restarted(server, main_job.DATA)
            ending = run.wait_for_workers("readers", 2) | run.wait_for_workers("trainers", 2)
            batch.end_walltime(*ending.values())
            run.wait_for(lambda: ending.keys() <= run.lost().keys(), "all jobs have ended")
            why = [run.lost()[worker] for worker in ending]
            hold.unlink()
            found = run.results()
    finally:
        server.end()
    assert found == expected
    assert f"job {job} ({first}) left the queue" in run.printed()
    if batch.system == "slurm":
        assert all("reached its walltime" in each for each in why)


def test_a_node_that_dies_while_ranks_train_costs_no_result(batch, tmp_path, expected):
    config = {"training": {"epochs": 30, "ranks": 2}}
    with Run(batch, tmp_path, config=config) as run:
        run.wait_for(
            lambda: len([each for each in run.journal() if each["kind"] == "epoch"]) > 2, "epochs"
        )
        trainers = run.wait_for_workers("trainers", 2)
        nodes = {name for name in batch.service.nodes if batch.service.processes(name)}
        where = next(name for name in nodes if has_worker(batch.service.processes(name), trainers))
        batch.service.kill_node(where)
        code, printed = run.ended()
    assert code == 0, printed
    assert main_job.results(tmp_path)["num_epochs"] == 30
    assert main_job.results(tmp_path)["specs"] == expected["specs"]
    assert "WARNING mlaas4hep_dask.run.training: starting epoch" in printed


def has_worker(processes, names):
    for process in processes:
        with suppress(psutil.Error):
            if any(name in process.cmdline() for name in names):
                return True
    return False


def test_a_task_that_is_too_large_for_its_job_is_told(batch, tmp_path):
    once = tmp_path / "once"
    function = {"fat": 3 * 2**30, "once": str(once)}
    with Run(batch, tmp_path, function=function) as run:
        run.wait_for(once.exists, "the task grows")
        code, printed = run.ended()
    assert code == 0, printed  # it was so large only once
    # Its nanny and the batch system look at it, and either may be the first to see it.
    nanny = r"worker \S+ was ended for memory, with \S+ GB in use; it is started again"
    held = r"is held \(the job used more memory than it requested\)"
    system = r"left the queue \(killed for memory" if batch.system == "slurm" else held
    assert re.search(rf"{nanny}|job \S+ \(readers-\S+\) {system}", printed)


def test_a_driver_that_is_killed_leaves_no_job_and_its_run_goes_on(batch, tmp_path):
    config = {"training": {"epochs": 40, "ranks": 2}}
    with Run(batch, tmp_path, config=config) as run:
        run.wait_for(
            lambda: len([each for each in run.journal() if each["kind"] == "epoch"]) > 2, "epochs"
        )
        head = psutil.Process(run.process.pid).children(recursive=True)
        run.process.kill()
        assert not psutil.wait_procs(head, timeout=60)[1]
        wait_until(lambda: not batch.jobs(), "no job is left", seconds=60)
    with run:
        assert run.process.wait(200) == 0, run.printed()
    assert "taking up the run" in run.printed()
    assert main_job.results(tmp_path)["num_epochs"] == 40


@pytest.mark.parametrize(
    ("site", "jobs", "words"),
    [
        pytest.param(
            {"max-resubmissions": 1},
            {"python": "/none/bin/python"},
            ["jobs were lost without work done", "the end of", "/none/bin/python"],
            id="wrong Python",
        ),
        pytest.param(
            {"patience": "20 s"},
            {
                "slurm": {"job-extra-directives": ["--begin=now+1hour"]},
                "htcondor": {"job-extra-directives": {"requirements": "false"}},
            },
            ["there are 0 of at least 1 readers", "has been pending"],
            id="pending for ever",
        ),
        pytest.param(
            {"max-resubmissions": 1},
            {
                "slurm": {"job-extra-directives": ["--hold"]},
                "htcondor": {"job-extra-directives": {"hold": "true"}},
            },
            ["is held", "jobs were lost without work done"],
            id="held",
        ),
        pytest.param(
            {},
            {
                "slurm": {"memory": "900 GiB"},
                "htcondor": {"job-extra-directives": {"RequestMemory": "floor("}},
            },
            ["refused jobs 3 times"],
            id="refused",
        ),
    ],
)
def test_jobs_that_never_work_end_a_run_in_words(batch, tmp_path, site, jobs, words):
    own = jobs.get(batch.system, {key: jobs[key] for key in jobs if key not in SYSTEMS})
    with Run(batch, tmp_path, site=site, jobs=own) as run:
        code, printed = run.ended(100)
    assert code == 2, printed
    assert "Traceback" not in printed
    for word in words:
        assert word in printed


def test_a_module_that_jobs_lack_is_told_before_anything_is_measured(batch, tmp_path):
    hidden = elsewhere.without(tmp_path / "site", "hypothesis")
    own = {"job-script-prologue": [f"export PYTHONPATH={hidden}:$PYTHONPATH"]}
    run = Run(batch, tmp_path, jobs=own)
    (tmp_path / "slow.py").write_text(f"import hypothesis\n{SLOW}")
    with run:
        code, printed = run.ended(100)
    assert code == 2, printed
    assert "function 'slow.py:slow' needs module 'hypothesis', which worker " in printed
    assert "specs:" not in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_missing_command_ends_a_run_in_words(system, tmp_path):
    run = Run(Batch(system, None), tmp_path)
    done = subprocess.run(
        [*main_job.command(system), "--site", "ours.yaml"],
        cwd=run.folder,
        env={**os.environ, "PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2
    assert "here: run this where jobs can be submitted" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_scratch_folder_costs_time_and_no_result(batch, tmp_path, expected):
    scratch = tmp_path / "scratch"
    with (
        small_disk(scratch),
        Run(
            batch, tmp_path, jobs={"local-directory": str(scratch)}, config={"cache": "disk"}
        ) as run,
    ):
        assert run.results() == expected
    said = "".join(log.read_text() for log in run.folder_of_jobs().glob("logs/*.log"))
    assert "not kept on disk: [Errno 28] No space left on device" in said


@contextmanager
def small_disk(folder):
    folder.mkdir(mode=0o777)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k,mode=1777", "none", folder], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
