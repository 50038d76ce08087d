"""The check of a cluster is green where all is well, and says what to do where it is not."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import elsewhere
import main_job
import pytest
import yaml
from servers import needs_xrootd, xrootd_server
from services.processes import wait_until
from tokens import HOUR, token_of

from mlaas4hep_dask.cluster.check import Line, as_text, is_red
from mlaas4hep_dask.cluster.check.checking import SHORT, Asked, chosen_workers, one_of_each
from mlaas4hep_dask.cluster.check.facts import Gpus, Scratch, listen, reach, stop_listening
from mlaas4hep_dask.cluster.check.input import code_needs, no_input
from mlaas4hep_dask.cluster.check.lines import (
    gpu_lines,
    memory_line,
    ports_line,
    scratch_line,
    start_line,
)
from mlaas4hep_dask.cluster.sites import job_script, load_site
from mlaas4hep_dask.config import Cluster, Config
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.errors import CodeError
from mlaas4hep_dask.places import GROUPS
from mlaas4hep_dask.waiting import ClusterHandle

CHECK = (sys.executable, "-m", "mlaas4hep_dask", "cluster", "check")


def check(*options, cwd, paths=(), timeout=240):
    """The lines of a check, and its exit status."""
    done = subprocess.run(
        [*CHECK, "--json", *map(str, options)],
        cwd=cwd,
        env=elsewhere.environment(*paths),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode in (0, 2), done.stdout + done.stderr
    lines = [Line(**line) for line in json.loads(done.stdout)]
    assert all(line.advice for line in lines if line.colour != "green")
    assert done.returncode == (2 if is_red(lines) else 0)
    return lines


def the_red(lines):
    return {line.what: line for line in lines if line.colour == "red"}


def kinds(lines):
    return {(line.group, line.what) for line in lines}


EVERY = {
    *(("readers", what) for what in ("starts", "environment", "memory", "scratch", "ports")),
    *(("trainers", what) for what in ("starts", "environment", "memory", "scratch", "ports")),
    ("readers", "input"),
}


def test_what_is_not_green_is_told_with_what_to_do():
    text = as_text([Line("red", "readers", "scratch", "full\nquite", "make room")])
    assert text.splitlines() == [
        "RED   readers   scratch      full",
        "                             quite",
        "                             → make room",
    ]
    assert (
        as_text([Line("green", "", "starts", "worker a")])
        == "ok              starts       worker a"
    )


@pytest.mark.parametrize(
    "lines",
    [
        [scratch_line("readers", Scratch("/s", 1, 2, 0.1, "No space left on device", True))],
        [scratch_line("readers", Scratch("/s", 1, 2, 0.1, "Permission denied"))],
        [scratch_line("readers", Scratch("/s", 10**8, 10**9, 0.1))],
        [memory_line("readers", 3e8, 0)],
        [memory_line("readers", 3e8, 4e8)],
        [ports_line("readers", "trainers", {"a rank's port": "no answer within 5 s"})],
        gpu_lines("trainers", Gpus((), error="torch here is a build without CUDA")),
        gpu_lines("trainers", Gpus(("H",), nccl_error="unhandled system error"))[1:],
    ],
)
def test_every_fault_has_a_colour_and_advice(lines):
    assert [line.colour in ("yellow", "red") and bool(line.advice) for line in lines] == [True]


def test_what_is_well_is_green():
    lines = [
        scratch_line("readers", Scratch("/s", 10**11, 10**12, 0.1)),
        memory_line("readers", 3e8, 4e9),
        ports_line("readers", "trainers", {"a rank's port": ""}),
        *gpu_lines("trainers", Gpus(("H200",), nccl="2.27.3")),
    ]
    assert {line.colour for line in lines} == {"green"}


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("there is no sbatch here: run this where jobs can be submitted", "login node"),
        ("slurm_script: line 31: /opt/none/bin/python: No such file or directory", "key python"),
        ("the batch system refused jobs 3 times one after the other: no", "cluster show SITE"),
        ("job 3 (readers-0) is held (JobHeldUser)", "reason of the hold"),
        ("job 3 has run for 300 s, and its worker has not connected", "scheduler-ports"),
        ("after 42 s there are 0 of at least 1 readers; jobs are pending: Resources", "--timeout"),
        ("no Dask scheduler answers at tcp://a:1 (refused)", "does the scheduler run"),
        ("something else", "log of the job"),
    ],
)
def test_workers_that_do_not_start_have_advice_by_what_was_said(error, advice):
    assert advice in start_line(error, []).advice
    assert advice in start_line("2 jobs were lost", [error]).advice


def test_words_that_an_error_has_already_are_not_repeated():
    said = ["a job was refused: sbatch: no such account", "another"]
    line = start_line("refused jobs 3 times: sbatch: no such account", said)
    assert line.text.splitlines()[1:] == ["another"]


@pytest.mark.parametrize(
    ("base", "walltime", "expected", "line"),
    [
        ("slurm", "12 h", SHORT, "#SBATCH -t 00:30:00"),
        ("slurm", "5 min", 300.0, "#SBATCH -t 00:05:00"),
        ("slurm", None, None, "#SBATCH -n 1"),
        ("desy-naf", "3 h", SHORT, "+RequestRuntime = 1800"),
    ],
)
def test_its_jobs_ask_for_a_short_time_and_never_for_more_than_the_site_gives(
    base, walltime, expected, line, tmp_path
):
    file = tmp_path / "ours.yaml"
    file.write_text(yaml.safe_dump({"mlaas4hep": {"base": base, "walltime": walltime}}))
    cluster = Cluster(address=load_site(base).system, site=str(file))
    with one_of_each(Asked(cluster, no_input(), 3600.0, tmp_path)) as options:
        site = load_site(options.site)
        script = job_script(site, "readers", scheduler_address="tcp://h:1", name="readers-0")
    assert [site.walltime(group) for group in GROUPS] == [expected] * 2
    assert line in script.text.splitlines()


@pytest.mark.slow
def test_nothing_is_submitted_without_a_proxy_that_the_site_requires(tmp_path, monkeypatch):
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "absent"))
    site = {"mlaas4hep": {"title": "ours", "base": "slurm", "proxy": "required"}}
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(site))
    (line,) = check("--cluster", "slurm", "--site", "ours.yaml", cwd=tmp_path)
    assert (line.colour, line.what) == ("red", "credentials")
    assert f"X.509 proxy {tmp_path / 'absent'}" in line.text
    assert "voms-proxy-init" in line.text
    assert not (tmp_path / "mlaas4hep.jobs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "mode", "said"), [(-HOUR, 0o600, "it expired at"), (HOUR, 0o644, "chmod 600")]
)
def test_nothing_is_submitted_with_a_token_of_no_use(tmp_path, monkeypatch, seconds, mode, said):
    token = token_of(tmp_path, seconds, mode)
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(token))
    site = site_of(tmp_path, "htcondor", {"token": "required", "proxy": "none"})
    (line,) = check("--cluster", "htcondor", "--site", site, cwd=tmp_path)
    assert (line.colour, line.what) == ("red", "credentials")
    assert f"token {token}: " in line.text
    assert said in line.text
    assert line.advice == "make a new one before you submit"
    assert not (tmp_path / "mlaas4hep.jobs").exists()


@pytest.mark.slow
def test_a_port_that_is_open_is_reached_and_a_closed_one_is_told():
    port = listen("127.0.0.1")
    assert reach("127.0.0.1", port, 5) == ""
    stop_listening(port)
    wait_until(lambda: reach("127.0.0.1", port, 5) == "Connection refused", "it is closed")


@pytest.mark.cluster
@pytest.mark.timeout(280)
def test_a_cluster_elsewhere_is_green_and_what_its_workers_lack_is_red(tmp_path):
    old = elsewhere.package(tmp_path / "there", "fancy", "1.1")
    new = elsewhere.package(tmp_path / "here", "fancy", "1.2")
    lacking = elsewhere.package(tmp_path / "more", "absent", "3.2")
    main_job.write_config(tmp_path)
    with elsewhere.cluster(tmp_path / "workers", paths=[old]) as place:
        lines = check("dataset.yaml", "--cluster", place, cwd=tmp_path)
        assert not the_red(lines)
        assert kinds(lines) == EVERY
        opened = next(line for line in lines if line.what == "input")
        assert "5,684 entries" in opened.text

        config = json.loads((tmp_path / "dataset.yaml").read_text())
        config["function"] = {"callable": "cuts.py:select"}
        (tmp_path / "dataset.yaml").write_text(json.dumps(config))
        (tmp_path / "cuts.py").write_text("import absent, fancy\ndef select(events): pass\n")
        lines = check("dataset.yaml", "--cluster", place, cwd=tmp_path, paths=[new, lacking])
        red = the_red(lines)
        assert red.keys() == {"environment", "versions"}
        assert "function 'cuts.py:select' needs absent (here 3.2)" in red["environment"].text
        assert "fancy 1.1 (here 1.2)" in red["versions"].text

        config["samples"][0]["files"] = "root://127.0.0.1:1//store/a.root"
        del config["function"]
        config["reading"] = {"attempts": 1, "timeout": 2}
        (tmp_path / "dataset.yaml").write_text(json.dumps(config))
        red = the_red(check("dataset.yaml", "--cluster", place, cwd=tmp_path))
        assert red.keys() == {"input"}
        assert "root://127.0.0.1:1//store/a.root" in red["input"].text
        assert "proxy and token" in red["input"].advice


@contextmanager
def small(folder):
    """A file system of 4 MB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.nightly
@pytest.mark.cluster
@pytest.mark.timeout(200)
@pytest.mark.skipif(os.geteuid() != 0, reason="a file system that is full needs root")
def test_a_full_scratch_and_an_address_that_nobody_reaches_are_red(tmp_path):
    with small(tmp_path / "full") as full, elsewhere.cluster(full, names=["one"]) as place:
        lines = check("--cluster", place, cwd=tmp_path)
        assert the_red(lines).keys() == {"scratch"}
        assert "cannot be written (No space left on device)" in the_red(lines)["scratch"].text
        only = next(line for line in lines if line.what == "ports")
        assert (only.colour, only.text) == ("yellow", "there is only one worker")
    with elsewhere.cluster(tmp_path / "workers", names=[]) as place:
        away = "tcp://127.0.0.1:1"
        listening = ("--listen-address", "tcp://127.0.0.1:0")
        odd = elsewhere.worker(place, tmp_path, *listening, "--contact-address", away)
        try:
            (line,) = check("--cluster", place, cwd=tmp_path)
        finally:
            odd.terminate()
            odd.wait(30)
    assert (line.colour, line.what) == ("red", "starts")
    assert f"worker {away}" in line.text
    assert "the scheduler cannot reach it at that address" in line.text
    assert "--worker-port" in line.advice


FORWARD = """
import socket, sys, threading

def place(text):
    host, _, port = text.rpartition(":")
    return host, int(port)

def pump(one, other):
    while data := one.recv(65536):
        other.sendall(data)
    other.shutdown(socket.SHUT_WR)

server = socket.create_server(place(sys.argv[1]))
while True:
    one, _ = server.accept()
    other = socket.create_connection(place(sys.argv[2]))
    for pair in ((one, other), (other, one)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


@pytest.mark.timeout(250)
def test_a_worker_behind_a_forwarded_port_cannot_be_a_rank_and_is_told(hosts, tmp_path):
    """Dask reaches it at one port; ranks would listen at others."""
    first, second = hosts
    (tmp_path / "forward.py").write_text(FORWARD)
    file = tmp_path / "scheduler.json"
    common = ("--no-dashboard", "--scheduler-file", str(file))
    dask = {
        name: (sys.executable, "-m", f"distributed.cli.dask_{name}")
        for name in ("scheduler", "worker")
    }
    own, outer = f"{second.address}:40001", f"{first.address}:40002"
    started = []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        command = [*dask["scheduler"], *common, "--port", "0", "--host", first.address]
        started.append(first.popen(command, **quiet))
        wait_until(lambda: file.exists() and file.read_text().endswith("}"), "it listens")
        place = json.loads(file.read_text())["address"]
        started.append(first.popen([sys.executable, tmp_path / "forward.py", outer, own], **quiet))
        options = (*common, "--no-nanny", "--nthreads", "1", "--local-directory", str(tmp_path))
        name = ("--name", "readers-0", "--host", first.address)
        started.append(first.popen([*dask["worker"], *options, *name], **quiet))
        name = ("--name", "trainers-0", "--listen-address", f"tcp://{own}")
        contact = ("--contact-address", f"tcp://{outer}")
        started.append(second.popen([*dask["worker"], *options, *name, *contact], **quiet))
        ready = "from distributed import Client; Client('{}').wait_for_workers(2, timeout=100)"
        first.run(sys.executable, "-c", ready.format(place), timeout=120)
        done = first.run(
            *CHECK, "--json", "--cluster", place, cwd=tmp_path, check=False, timeout=200
        )
    finally:
        for process in started:
            process.kill()
            process.wait(30)
    assert done.returncode == 2, done.stdout + done.stderr
    red = [Line(**line) for line in json.loads(done.stdout) if line["colour"] == "red"]
    assert [(line.group, line.what) for line in red] == [("readers", "ports")]
    assert "cannot reach of trainers" in red[0].text
    assert "Cannot assign requested address" in red[0].text


def site_of(folder, system, options=None, **keys):
    file = folder / "ours.yaml"
    options = {"title": "ours", "base": system, **(options or {})}
    site = {"mlaas4hep": options, "jobqueue": {system: keys}}
    file.write_text(yaml.safe_dump(site))
    return file


def green_and_red(system, jobs, folder):
    """A batch system is green as it is, and red for what a site's file has wrong."""
    small_jobs = site_of(folder, system, {"token": "required"}, memory="1 GiB")
    with xrootd_server(main_job.DATA) as (_, url), pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEARER_TOKEN_FILE", str(token_of(folder, 30 * HOUR)))
        main_job.write_config(folder, where=url)
        lines = check("dataset.yaml", "--cluster", system, "--site", small_jobs, cwd=folder)
    assert not the_red(lines), as_text(lines)
    green = {line.what: line.text for line in lines if line.colour == "green"}
    assert green["input"].startswith(f"{url}/{main_job.SIGNAL}: 5,684 entries")
    assert green["credentials"] == f"WLCG token {folder / 'token'} is valid for 30.0 h"
    assert kinds(lines) == EVERY | {("", "credentials")}
    assert jobs() == ""

    wrong = site_of(folder, system, python="/opt/none/bin/python")
    red = the_red(check("--cluster", system, "--site", wrong, cwd=folder))
    assert red.keys() == {"starts"}
    assert "/opt/none/bin/python: " in red["starts"].text
    assert "the key python of the site's file" in red["starts"].advice

    large = site_of(folder, system, memory="900 GiB")
    options = ("--cluster", system, "--site", large, "--timeout", "25")
    red = the_red(check(*options, cwd=folder))
    assert red.keys() == {"starts"}
    assert jobs() == ""
    return red["starts"]


@needs_xrootd
@pytest.mark.timeout(290)
def test_slurm_is_green_and_wrong_python_and_memory_are_red(slurm, tmp_path):
    def jobs():
        states = "--states=PENDING,RUNNING"
        return slurm.run("squeue", "--noheader", states).stdout.strip()

    line = green_and_red("slurm", jobs, tmp_path)
    assert "Memory specification can not be satisfied" in line.text
    assert "change account, queue, memory or walltime" in line.advice


@needs_xrootd
@pytest.mark.nightly
@pytest.mark.timeout(290)
def test_htcondor_is_green_and_wrong_python_and_memory_are_red(htcondor, tmp_path):
    def jobs():
        left = ("-constraint", "JobStatus != 3")  # and not removed
        return htcondor.run("condor_q", *left, "-format", "%d", "ClusterId").stdout

    line = green_and_red("htcondor", jobs, tmp_path)
    # The analysis is there once the pool has tried to match, which may be later.
    if "TARGET.Memory >= RequestMemory" in line.text:
        assert "ask for less memory" in line.advice
    else:
        assert "no match found" in line.text


def needs_of(config):
    return code_needs(description_of(config), config.model, config.training, config.loss)


def test_all_code_that_a_run_imports_is_tried(tmp_path):
    names = ("build", "small", "select", "lion", "falling", "Watch", "Until", "scaled")
    (tmp_path / "own.py").write_text("".join(f"def {name}(): pass\n" for name in names))
    keys = {
        "name": "made",
        "samples": [
            {"name": "signal", "label": 1, "files": "s.root"},
            {"name": "background", "label": 0, "files": "b.root"},
        ],
        "model": {"callable": "own.py:build"},
        "function": {"callable": "own.py:select"},
        "encode": {"normalisation": {"*_pt": "own.py:scaled", "*": "standard"}},
        "training": {
            "loss": "own.py:small",
            "optimiser": "own.py:lion",
            "scheduler": {"callable": "own.py:falling"},
            "hooks": ["own.py:Watch", "own.py:Until"],
        },
    }
    needs = needs_of(Config.from_mapping(keys, base=tmp_path))
    assert sorted(need.what for need in needs) == [
        "function 'own.py:select'",
        "hooks[0] 'own.py:Watch'",
        "hooks[1] 'own.py:Until'",
        "loss 'own.py:small'",
        "model 'own.py:build'",
        "optimiser 'own.py:lion'",
        "scheduler 'own.py:falling'",
    ]
    keys["training"] = {"optimiser": "AdamW", "hooks": ["own.py:Wach"]}
    with pytest.raises(CodeError, match=r"Wach.*did you mean 'Watch'"):
        needs_of(Config.from_mapping(keys, base=tmp_path))


def test_one_worker_of_each_group_is_chosen_and_another_for_each(client):
    chosen = chosen_workers(ClusterHandle(client))
    assert list(chosen) == ["readers", "trainers"]
    assert len(set(chosen.values())) == 2
