"""The main job on workers that are jobs of a real batch system, with files by XRootD."""

import json
import re
import subprocess
import sys

import main_job
import pytest
import uproot
import yaml
from servers import needs_xrootd, xrootd_server

pytestmark = [pytest.mark.timeout(280), needs_xrootd]


CUTS, LIMITS = "cuts.py:select", "LEAST = 1\n"
SELECT = """
import limits

def select(events):
    return events[events.NJet >= limits.LEAST]
"""


def write_config(folder, **options):
    """The main job, with a function beside the file, which imports another module there."""
    main_job.write_config(folder, **options)
    file = folder / "dataset.yaml"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"function": {"callable": CUTS}}))
    (folder / "cuts.py").write_text(SELECT)
    (folder / "limits.py").write_text(LIMITS)


@pytest.fixture(scope="module")
def found_here(tmp_path_factory):
    """What the main job finds on this machine's own workers, from local files."""
    folder = tmp_path_factory.mktemp("here")
    write_config(folder)
    main_job.run(folder, "local")
    return main_job.results(folder)


def found_by(system, queue, folder, **run_alone):
    """What the main job finds on a batch system, from files of an XRootD server.

    Options hold for the site of the run, but not for that of what is detached.
    """
    options = {
        "title": "two nodes on one machine",
        "base": system,
        "readers": {"minimum": 2, "maximum": 2},
    }
    jobs = {system: {"memory": "1 GiB"}}
    for name, own in (("ours", run_alone), ("head", {})):
        site = {"mlaas4hep": options | own, "jobqueue": jobs}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(site))
    with xrootd_server(main_job.DATA) as (_, url):
        write_config(folder, where=url)
        done = main_job.run(folder, system, "--site", "ours.yaml")
    assert "dashboard: http://127.0.0.1:" in done.stdout
    assert "ssh -N -L" in done.stdout
    assert queue().stdout.strip() == ""  # no job is left
    (jobs,) = (folder / "run.jobs").iterdir()
    records = [json.loads(line) for line in (jobs / "jobs.jsonl").read_text().splitlines()]
    events = [record["event"] for record in records]
    assert events.count("submitted") == events.count("cancelled") == 4  # 2 readers, 2 trainers
    assert len([each for each in records if each.get("state") == "connected"]) == 4
    driver = json.loads((jobs / "driver.json").read_text())
    assert (driver["system"], driver["site"]) == (system, "ours")
    assert driver["scheduler"].startswith("tls://")
    assert not (jobs / "tls").exists()  # its key is of no use any more
    assert scores(folder, system, "--site", "head.yaml", "--detach") == scores(folder, "local")
    assert queue().stdout.strip() == ""
    return main_job.results(folder)


def command(folder, *words):
    """What a verb has printed, which must not fail."""
    done = subprocess.run(
        [sys.executable, "-m", "mlaas4hep_dask", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def scores(folder, place, *options):
    """The scores that the command gives a file on a cluster, in the order of its events."""
    output = folder / f"{place}.root"
    words = ["predict", "run/bundle", str(main_job.DATA / main_job.SIGNAL)]
    begun = command(folder, *words, "--output", output.name, "--cluster", place, *options)
    if "--detach" in options:
        job = re.match(rf"job (\S+) of {place}, submitted on ", begun)[1]
        assert "events scored" in command(folder, "attach", output.name)
        assert command(folder, "stop", output.name).startswith("nothing to end: complete")
        told = json.loads(command(folder, "status", output.name, "--json"))
        assert (told["state"], told["verb"], told["head"]["job"]) == ("complete", "predict", job)
        assert [each["state"] for each in told["jobs"]["jobs"]] == ["cancelled"] * 2
    with uproot.open(output) as file:
        return file["events"].arrays(library="np")["score"].tolist()


def test_the_main_job_finds_the_same_on_slurm(slurm, tmp_path, found_here):
    def queue():
        return slurm.run("squeue", "--noheader", "--states=PENDING,RUNNING")

    assert found_by("slurm", queue, tmp_path) == found_here


def test_the_main_job_finds_the_same_on_htcondor(htcondor, tmp_path, found_here):
    def queue():
        left = ("-constraint", "JobStatus != 3")  # and not removed
        return htcondor.run("condor_q", *left, "-format", "%d", "ClusterId")

    # Keys are transferred, and code goes by Dask: of the run's folder jobs see nothing.
    assert found_by("htcondor", queue, tmp_path, **{"shared-files": False}) == found_here
    scripts = list(tmp_path.glob("run.jobs/*/*.sh"))
    assert len(scripts) == 4
    for script in scripts:
        (arguments,) = [x for x in script.read_text().splitlines() if x.startswith("Arguments = ")]
        assert "--tls-key key.pem" in arguments
        assert str(tmp_path) not in arguments
