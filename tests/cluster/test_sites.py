import json
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import dask
import pytest
from distributed.nanny import _get_env_variables
from distributed.security import Security
from paths import REPOSITORY

from mlaas4hep_dask.__main__ import main
from mlaas4hep_dask.cluster.cli import EXAMPLE
from mlaas4hep_dask.cluster.settings import NESTED, SETTINGS, variables
from mlaas4hep_dask.cluster.sites import head_script, job_script, load_site, site_names
from mlaas4hep_dask.cluster.sites.environment import environment_of, prologue_of
from mlaas4hep_dask.cluster.sites.options import Container, Options, Readers
from mlaas4hep_dask.cluster.sites.render import python_of
from mlaas4hep_dask.cluster.systems.fields import clock
from mlaas4hep_dask.cluster.systems.registry import MODULES
from mlaas4hep_dask.errors import ClusterError, ConfigError
from mlaas4hep_dask.places import GROUPS, SYSTEMS

ADDRESS = "tcp://10.0.0.1:8786"
HERE = {"HOME": "/home/physicist", "PATH": "/opt/bin:/bin", "SECRET": "x", "BEARER_TOKEN": "eyJ"}
SLURM = """
mlaas4hep:
  title: a test
  base: slurm
"""


@pytest.fixture
def written(tmp_path):
    """Loads a site whose file has a text."""

    def load(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return load_site(str(path))

    return load


def script(site, group="readers", **options):
    options = {"scheduler_address": ADDRESS, "name": "ttH-1f-0", "environment": HERE, **options}
    return job_script(site, group, **options)


def directives(text):
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line]


def command(text):
    """The worker's line of a SLURM script, as the shell splits it."""
    return shlex.split(text.rstrip("\n").splitlines()[-1])


def test_the_generic_sites_of_both_systems_come_first():
    assert site_names()[:2] == sorted(SYSTEMS)
    for system in SYSTEMS:
        assert load_site(None, system).system == system


def test_an_unknown_name_names_the_nearest_site():
    with pytest.raises(ClusterError, match="did you mean 'htcondor'"):
        load_site("htcondr")


def test_a_site_of_the_other_system_is_refused():
    with pytest.raises(ClusterError, match="has htcondor, not slurm"):
        load_site("htcondor", "slurm")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("  patiense: 4 h\n", 5, "did you mean 'patience'"),
        ("  patience: soon\n", 5, "'90 s', '12 h'"),
        ("  worker-ports: 10100:10000\n", 5, "range of ports"),
        ("  readers: {minimum: 3, maximum: 2}\n", 5, "at least minimum"),
        ("  trainers:\n    gpus: 1\n    maximum: 2\n", 7, "as many trainers as training.ranks"),
        ("jobqueue:\n  slurm:\n    job-extra-directive: [-C cpu]\n", 7, "'job-extra-directives'"),
        ("jobqueue:\n  slurm:\n    project: m1\n", 7, "called 'account' now"),
        ("jobqueue:\n  slurm: {memory: 300 MB, processes: 2}\n", 6, "200 MB for each of 2 workers"),
        ("jobqueue:\n  htcondor: {}\n", 5, "one batch system"),
        ("  readers:\n    jobqueue:\n      queu: short\n", 7, "did you mean 'queue'"),
    ],
)
def test_what_is_wrong_in_a_sites_file_is_told_with_its_line(text, line, said, written):
    with pytest.raises(ConfigError, match=rf"mine\.yaml:{line}: .*{said}") as raised:
        written(SLURM + text)
    assert raised.value.line == line


def test_a_file_changes_what_it_names_of_its_base(written):
    text = SLURM + "jobqueue:\n  slurm:\n    account: m1234\n    memory: 2 GiB\n"
    given = directives(script(written(text)).text)
    assert "-A m1234" in given
    assert "--mem=2744M" in given  # 1.2 * 2048 MiB and 300 MB, rounded up


def test_bases_that_go_round_in_a_circle_are_an_error(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        text = f"mlaas4hep:\n  title: x\n  base: {other}.yaml\njobqueue:\n  slurm: {{}}\n"
        (tmp_path / f"{one}.yaml").write_text(text)
    with pytest.raises(ConfigError, match="circle"):
        load_site(str(tmp_path / "a.yaml"))


def test_a_group_differs_where_it_says_so(written):
    text = SLURM + (
        "  trainers:\n    gpus: 2\n    walltime: 1-12:00:00\n"
        "    jobqueue: {queue: gpu, cores: 4}\n"
        "jobqueue:\n  slurm: {queue: cpu, walltime: 2 h}\n"
    )
    site = written(text)
    readers, trainers = (script(site, group).text for group in ("readers", "trainers"))
    assert {"-p cpu", "-t 02:00:00", "--cpus-per-task=1"} <= set(directives(readers))
    wanted = {"-p gpu", "-t 1-12:00:00", "--cpus-per-task=4", "--gres=gpu:2"}
    assert wanted <= set(directives(trainers))
    assert "GPU=2" in command(trainers)
    assert "export OMP_NUM_THREADS=4" in trainers


def test_workers_end_before_their_job_and_readers_not_together(written):
    found = {}
    for group in ("readers", "trainers"):
        words = command(script(written(SLURM + "  walltime: 10 h\n"), group).text)
        lifetime, found[group] = (
            float(words[words.index(option) + 1].removesuffix("s"))
            for option in ("--lifetime", "--lifetime-stagger")
        )
        assert 0 <= found[group] < lifetime
        assert lifetime + found[group] < 10 * 3600
    assert found["readers"] > 0
    assert found["trainers"] == 0  # they work together, so that one end costs as much as all


def test_dask_gives_no_walltime_that_nobody_asked_for():
    assert not any(line.startswith("-t") for line in directives(script(load_site("slurm")).text))


def test_what_others_did_to_the_configuration_of_dask_does_not_stop_a_script():
    with dask.config.set({"jobqueue": None}):  # as it is after a key was set before the import
        assert "--nodes=1" in directives(script(load_site("slurm")).text)


def test_a_job_is_on_one_node_and_its_log_is_found_by_its_id(tmp_path):
    made = script(load_site("slurm"), logs=tmp_path)
    assert "--nodes=1" in directives(made.text)
    assert f"--output={tmp_path}/mlaas4hep-ttH-1f-0-%j.log" in directives(made.text)
    assert made.log_of("17") == tmp_path / "mlaas4hep-ttH-1f-0-17.log"
    assert made.name in directives(made.text)[0]


def test_ports_and_certificates_reach_the_worker(written):
    text = SLURM + "  worker-ports: 10000:10070\n  nanny-ports: 10070:10100\n"
    files = {"tls_ca_file": "/run/ca.pem", "tls_worker_cert": "/run/c.pem"}
    security = Security(require_encryption=True, tls_worker_key="/run/k.pem", **files)
    made = script(written(text), scheduler_address="tls://h:1", security=security)
    words = command(made.text)
    pairs = dict(pairwise(words))
    assert pairs["--worker-port"] == "10000:10070"
    assert pairs["--nanny-port"] == "10070:10100"
    assert pairs["--tls-key"] == "/run/k.pem"
    assert pairs["--protocol"] == "tls"


def test_no_secret_and_nothing_that_was_not_asked_for_is_in_a_script(written):
    site = written(SLURM + "  pass-environment: ['*']\n")
    assert "SECRET" in script(site).text
    assert "eyJ" not in script(site).text
    assert "SECRET" not in script(load_site("slurm")).text


def test_a_container_starts_the_workers_python(written):
    text = SLURM + "  container:\n    image: /cvmfs/i.sif\n    options: [--bind /cvmfs]\n"
    words = command(script(written(text)).text)
    assert words[:7] == ["exec", "apptainer", "exec", "--bind", "/cvmfs", "/cvmfs/i.sif", "python3"]


def test_what_only_the_user_knows_is_asked_for(written, monkeypatch):
    site = written(SLURM + "  needs: [account]\n")
    with pytest.raises(ClusterError, match="DASK_JOBQUEUE__SLURM__ACCOUNT"):
        script(site)
    with dask.config.set({"jobqueue.slurm.account": "m1234"}):
        assert "-A m1234" in directives(script(site).text)


def test_a_rank_has_the_cores_of_its_job_and_runs_one_task(written):
    made = script(written(SLURM + "jobqueue:\n  slurm: {cores: 8}\n")).text
    assert "export OMP_NUM_THREADS=8" in made
    words = command(made)
    last = len(words) - 1 - words[::-1].index("--nthreads")
    assert words[last + 1] == "1"


@pytest.mark.slow
def test_a_process_with_the_variables_of_a_job_has_the_settings_of_local_workers():
    found = variables(NESTED)
    code = "import dask, distributed, json; print(json.dumps(dask.config.config))"
    told = subprocess.run(
        [sys.executable, "-c", code], env=found, capture_output=True, text=True, check=True
    )
    with dask.config.set(json.loads(told.stdout)):
        for key, value in SETTINGS.items():
            assert dask.config.get(key) == value, key
        assert "MALLOC_TRIM_THRESHOLD_" not in _get_env_variables(
            "distributed.nanny.pre-spawn-environ"
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", site_names())
def test_the_lines_before_a_worker_run_in_a_bare_shell(name):
    site = load_site(name)
    given = {"HOME": "/home/o'brien", "PATH": "/bin:/usr/bin", "XRD_LOGLEVEL": 'a "b" $c'}
    own = site.document.jobs.job_script_prologue
    lines = [line for line in prologue_of(site, "readers", given) if line not in own]
    done = subprocess.run(
        ["/bin/sh", "-euc", "\n".join([*lines, "env"])],
        env={}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    passed = given.keys() & environment_of(site, "readers", given).keys()
    assert "XRD_LOGLEVEL" in passed
    for key in passed - site.options.environment.keys():
        value = given[key]
        assert f"{key}={value}\n" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("system", "shared", "scratch"),
    [("slurm", True, "TMPDIR"), ("htcondor", False, "_CONDOR_SCRATCH_DIR")],
)
def test_each_job_unpacks_a_packed_environment_and_has_its_python(
    written, tmp_path, system, shared, scratch
):
    made, node = tmp_path / "made", tmp_path / "it's scratch"
    node.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    (packages,) = made.glob("lib/python*/site-packages")
    (packages / "packed.py").write_text("WORD = 'found'\n")
    unpack = made / "bin" / "conda-unpack"
    unpack.write_text('#!/bin/sh\ntouch "$(dirname "$0")/set-right"\n')
    unpack.chmod(0o755)
    archive = (tmp_path if shared else node) / "packed env.tar.gz"  # one that is transferred
    subprocess.run(["tar", "-czf", archive, "-C", made, "."], check=True)
    shutil.rmtree(made)
    site = written(
        f"mlaas4hep:\n  title: t\n  base: {system}\n  shared-files: {str(shared).lower()}\n"
        f"  packed-environment: {tmp_path}/packed env.tar.gz\n"
    )
    told = "import packed, sys; print(packed.WORD, sys.prefix)"
    lines = [
        *prologue_of(site, "readers", {"PATH": "/bin:/usr/bin"}),
        f'exec {python_of(site, "readers")} -c "{told}"',
    ]
    command = ["/bin/sh", "-euc", "\n".join(lines)]
    begin = {"env": {scratch: str(node)}, "cwd": "/", "stdout": subprocess.PIPE, "text": True}
    jobs = [subprocess.Popen(command, **begin) for _ in range(2)]  # at once, on one node
    found = {job.communicate(timeout=100)[0].strip() for job in jobs}
    places = {Path(each.removeprefix("found ")) for each in found}
    assert len(places) == 2
    assert {place.parent for place in places} == {node}
    assert all((place / "bin" / "set-right").exists() for place in places)


def test_clocks_are_written_as_slurm_does():
    assert [clock(59), clock(3600), clock(129_600)] == ["00:00:59", "01:00:00", "1-12:00:00"]


def test_the_command_lists_every_site(capsys):
    assert main(["cluster", "sites"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == site_names()


def test_the_command_shows_the_script_of_a_group(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["cluster", "show", "slurm", "--group", "trainers"]) == 0
    text = capsys.readouterr().out
    assert "RUN-trainers-0" in text
    assert EXAMPLE["tls"] in text
    assert not [*tmp_path.iterdir()]


def test_what_shows_jobs_is_a_command_of_the_queue():
    for name, system in SYSTEMS.items():
        assert system.shows in MODULES[name].queue.COMMANDS


MODELS = (Options, Readers, Container, *(system.jobs for system in MODULES.values()))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_key_of_a_site_is_in_the_reference(model):
    page = (REPOSITORY / "docs" / "reference" / "sites.md").read_text()
    for name, field in model.model_fields.items():
        assert f"| `{field.alias or name}` |" in page
        assert f"| {field.description} |" in page


PAGES = ["docs/how-to/follow.md", "jobqueue/README.md"]
PAGES += [f"docs/how-to/sites/{name}.md" for name in site_names()]


@pytest.mark.parametrize("page", PAGES)
def test_the_sites_that_pages_show_are_valid(page, written):
    blocks = re.findall(r"```yaml\n(mlaas4hep:.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)
    for block in blocks:
        for group in GROUPS:
            assert script(written(block), group).text
    assert blocks


@pytest.mark.parametrize(
    "section",
    [
        "slurm: {job-extra-directives: [--qos=a, --job-name=mine]}",
        "slurm: {job-extra-directives: [-J mine]}",
        "slurm: {job-extra-directives: [--array=1-3]}",
        "htcondor: {job-extra-directives: {batch_name: mine}}",
        "htcondor: {job-extra-directives: {+JobBatchName: mine}}",
    ],
)
def test_jobs_have_the_names_by_which_they_are_told_apart(written, section):
    system = section.partition(":")[0]
    with pytest.raises(ConfigError, match="told apart by their names, each alone; name says"):
        written(f"mlaas4hep: {{title: t, base: {system}}}\njobqueue: {{{section}}}\n")
    group = section.replace(f"{system}: {{", "").removesuffix("}")
    text = f"mlaas4hep: {{title: t, base: {system}, readers: {{jobqueue: {{{group}}}}}}}\n"
    with pytest.raises(ConfigError, match="told apart by their names"):
        written(text)


def head_of(site, folder, **variables):
    words = ["-m", "mlaas4hep_dask", "run", "it's $HOME.yaml"]
    environment = {"HOME": "/home/me", **variables}
    options = {"folder": folder, "logs": folder / "logs", "environment": environment}
    return head_script(site, words, name="head-1", **options)


def test_the_head_of_a_run_asks_for_what_its_section_says_and_runs_the_command(written, tmp_path):
    site = written(
        "mlaas4hep:\n  title: t\n  base: slurm\n  head:\n    walltime: 7 d\n"
        "    jobqueue: {queue: long, memory: 1 GiB}\njobqueue: {slurm: {queue: short}}\n"
    )
    made = head_of(site, tmp_path / "my run", SLURM_CONF="/etc/slurm's.conf")
    lines = made.text.splitlines()
    assert {"-p long", "-t 7-00:00:00", "--nodes=1"} <= set(directives(made.text))
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[-1].startswith("exec ")
    assert lines[-1].endswith(""" -m mlaas4hep_dask run 'it'"'"'s $HOME.yaml'""")
    assert f"cd '{tmp_path}/my run' || exit 1" in lines
    assert "export HOME=/home/me" in lines
    assert """export SLURM_CONF='/etc/slurm'"'"'s.conf'""" in lines
    assert "dask_worker" not in made.text
    assert made.log == f"{tmp_path}/my run/logs/mlaas4hep-head-1-{{job}}.log"
    assert "-p short" in directives(script(site).text)
    assert made.submit == ("sbatch", "--no-requeue")  # the same command takes the run up again
    assert script(site).submit == ("sbatch",)


def test_the_head_of_a_run_on_htcondor_works_where_the_queue_is(tmp_path):
    made = head_of(load_site("htcondor"), tmp_path, CONDOR_CONFIG="/etc/condor")
    assert "\nuniverse = local\n" in made.text
    assert "export CONDOR_CONFIG=/etc/condor; " in made.text
    assert "dask_worker" not in made.text
    assert "universe" not in script(load_site("htcondor")).text
    assert "\nuniverse = vanilla\n" in head_of(load_site("cern-lxplus"), tmp_path).text


def test_a_head_on_nodes_that_do_not_see_the_run_directory_is_refused_in_words(tmp_path):
    with pytest.raises(ClusterError, match=r"do not see the run directory.* leave --detach out"):
        head_of(load_site("fnal-lpc"), tmp_path)


def test_every_site_has_a_page_and_a_word_in_the_tables():
    how_to = (REPOSITORY / "docs" / "how-to" / "sites.md").read_text()
    table = (REPOSITORY / "jobqueue" / "README.md").read_text()
    for name in site_names():
        assert f"| [`{name}`](sites/{name}.md) |" in how_to
        assert (
            f"| [{name}]({name}.yaml) | {load_site(name).system} | {load_site(name).title} |"
            in table
        )


@pytest.mark.slow
def test_a_job_listens_at_the_address_from_which_it_reaches_the_scheduler(written):
    text = script(written(SLURM), scheduler_address="tcp://127.0.0.2:8786").text
    (line,) = [line for line in text.splitlines() if line.startswith("MLAAS4HEP_HOST=")]
    (option,) = re.findall(r"\$\{MLAAS4HEP_HOST:\+.*?\}", text.splitlines()[-1])
    told = f"{line}\necho {option} {option.replace('+', '-x', 1)}"
    done = subprocess.run(["sh", "-c", told], capture_output=True, text=True, timeout=60)
    assert done.stdout == "--host 127.0.0.1 127.0.0.1\n"


@pytest.mark.parametrize("key", ["interface: ib0", "worker-extra-args: [--host, node7]"])
def test_a_site_that_says_where_workers_listen_has_the_last_word(written, key):
    text = script(written(f"{SLURM}jobqueue:\n  slurm:\n    {key}\n")).text
    assert "MLAAS4HEP_HOST" not in text


SLOT = 2 * 10**9  # bytes for a core, as most sites give; nodes with 2,000 MiB for a core have them


def asked_memory(made):
    """The memory that a job asks for, in bytes."""
    (mebibytes,) = re.findall(r"^(?:#SBATCH --mem=|RequestMemory = )(\d+)M?$", made.text, re.M)
    return int(mebibytes) * 2**20


@pytest.mark.parametrize("name", ["slurm", "htcondor"])
@pytest.mark.parametrize("group", GROUPS)
def test_a_job_of_a_plain_installation_takes_no_more_than_the_memory_of_a_core(name, group):
    assert load_site(name).jobs(group).memory < asked_memory(script(load_site(name), group)) <= SLOT


@pytest.mark.parametrize("name", ["cern-lxplus", "desy-naf", "fnal-lpc", "infn-cnaf"])
def test_a_reader_takes_no_more_than_the_memory_of_a_core_where_a_core_has_two_gigabytes(name):
    assert asked_memory(script(load_site(name))) <= SLOT


def test_words_of_slurm_are_quoted_where_they_hold_blanks(written):
    names = "jobqueue: {slurm: {name: my jobs, queue: it's long, account: a b}}\n"
    given = directives(script(written(SLURM + names)).text)
    assert {"-J 'my jobs-ttH-1f-0'", """-p 'it'"'"'s long'""", "-A 'a b'"} <= set(given)


def test_a_file_that_htcondor_cannot_transfer_is_named(written):
    text = "mlaas4hep: {title: t, base: coffea-casa, transfer: ['/data/a,b.txt']}\n"
    with pytest.raises(ClusterError, match=r"comma in its path: /data/a,b\.txt"):
        script(written(text))


def test_sbatch_gets_the_variables_that_are_passed_on_and_its_own(written):
    here = {**HERE, "SLURM_CONF": "/etc/slurm.conf", "XRD_LOGLEVEL": "Info"}
    made = script(load_site("slurm"), environment=here).environment
    assert made.keys() == here.keys() - {"SECRET", "BEARER_TOKEN"}
    assert script(load_site("htcondor"), environment=here).environment is None


@pytest.mark.parametrize("name", [name for name in site_names() if name not in SYSTEMS])
def test_a_queue_that_many_share_is_looked_at_less_often(name):
    options = load_site(name).options
    assert options.poll_interval >= 10 > load_site(load_site(name).system).options.poll_interval
    assert any("htcondor" in page or "slurm" in page for page in options.documentation)


@pytest.mark.parametrize("name", [name for name in site_names() if name not in SYSTEMS])
def test_a_job_that_was_spooled_does_not_stay_in_the_queue_for_days(name):
    text = script(load_site(name), environment={**HERE}).text if name != "nersc-perlmutter" else ""
    is_spooled = "-spool" in getattr(load_site(name).document.jobs, "submit_command_extra", [])
    assert ("leave_in_queue = JobStatus == 4 && time()" in text) is is_spooled


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--comment=a b", "--comment='a b'"),
        ("--comment='a b'", "--comment='a b'"),
        ("--qos=regular", "--qos=regular"),
        ("-C cpu", "-C cpu"),
        ("--qos regular --comment=x", "--qos regular --comment=x"),
    ],
)
def test_a_value_with_blanks_is_quoted_where_an_option_of_sbatch_has_no_quotes(
    written, option, told
):
    text = SLURM + f"jobqueue: {{slurm: {{job-extra-directives: [{json.dumps(option)}]}}}}\n"
    assert told in directives(script(written(text)).text)


def test_a_run_in_a_job_has_the_keys_that_only_the_user_knows(tmp_path):
    keys = {"DASK_JOBQUEUE__SLURM__ACCOUNT": "m1234", "RUCIO_CONFIG": "/home/me/rucio.cfg"}
    lines = head_of(load_site("slurm"), tmp_path, **keys, OWN="x").text.splitlines()
    assert {f"export {name}={value}" for name, value in keys.items()} <= set(lines)
    assert not [line for line in lines if "OWN=" in line]
