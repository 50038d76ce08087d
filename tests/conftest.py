import gc
import logging
import os
import shutil
import signal
import sys
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import HealthCheck, settings
from paths import DATA, TUTORIAL
from remains import nothing_left, own_shared_memory, require_nothing
from services.hosts import hosts as joined_hosts
from services.htcondor import HTCondor
from services.processes import Missing
from services.slurm import Slurm

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config import Cluster
from mlaas4hep_dask.dataset.cache import VARIABLE
from mlaas4hep_dask.events.events import concatenate
from mlaas4hep_dask.reader import Pace, access, plan_file, read

# The same examples every time, however loaded the machine: a suite decides whether a change lands.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("quick", settings.get_profile("suite"), max_examples=20)
settings.load_profile("suite")

PROCESSES = {"batch", "cluster", "ddp", "server", "slow"}  # marks of tests that may start some
NODES = {"cpus": 4, "memory": 16000}  # of a batch system
SERVICES = {"hosts", "htcondor", "htcondor_pool", "slurm", "slurm_cluster"}
SYSTEMS = ("htcondor", "slurm")
STARTS = {"subprocess.Popen", "os.fork", "os.posix_spawn", "socket.bind"}
_started: list[str] = []
sys.addaudithook(lambda event, _: _started.append(event) if event in STARTS else None)


def pytest_configure():
    """What tests leave in /dev/shm is told apart from what others have there."""
    own_shared_memory()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests of one batch system wait in one process, others with those of their file.

    With pytest 9.2, xdist does so itself no more: each process started both systems.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return ByGroup(config, log) if config.getvalue("dist") == "loadgroup" else None


def group_of(test):
    """The batch system that an id names, or else its file."""
    return next((system for system in SYSTEMS if system in test), test.partition("::")[0])


def pytest_collection_modifyitems(items):
    """Mark what a fixture or a folder tells; the id of a test names its batch system."""
    for item in items:
        if "client" in item.fixturenames or item.path.parent.name == "line":
            item.add_marker(pytest.mark.cluster)
        if not SERVICES.isdisjoint(item.fixturenames):
            item.add_marker(pytest.mark.batch)
        systems = [group_of(name) for name in item.fixturenames if name in SYSTEMS]
        if len(systems) == 1 and group_of(item.nodeid) != systems[0]:
            raise pytest.UsageError(f"{item.nodeid}: name {systems[0]}, by which it is grouped")
    items.sort(key=lambda item: item.get_closest_marker("batch") is None)  # the longest first


def pytest_collection_finish():
    """Libraries and tests stay until the end: the garbage collector need not look at them again."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """What fixtures of a module or a session start counts for the test that needs them."""
    _started.clear()


@pytest.hookimpl(trylast=True)
def pytest_runtest_call():
    """What is logged is heard, though a cluster of the session lives: Dask silences handlers."""
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def quick(request):
    """A test without a mark starts neither a process nor a server, and so ``make check`` has it."""
    yield
    names = {mark.name for mark in request.node.iter_markers()}
    if _started and not names & PROCESSES:
        what, marks = sorted(set(_started)), ", ".join(sorted(PROCESSES))
        pytest.fail(f"{what}: tests that start processes or servers are marked, by one of {marks}")


@pytest.fixture(autouse=True)
def hears_signals():
    """What a test starts hears Ctrl-C and a closed terminal, whatever these tests were started by.

    A shell's background job ignores the one, one under nohup the other, and children inherit that.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    both = (signal.SIGINT, signal.SIGHUP)
    ignored = [number.name for number in both if signal.getsignal(number) == signal.SIG_IGN]
    assert ignored == [], "the test leaves signals ignored, by all that later tests start"


@pytest.fixture(autouse=True)
def leaves_nothing(request):
    """A test of batch systems, or of several hosts, leaves nothing but the files that it keeps."""
    if request.node.get_closest_marker("batch") is None:
        yield
        return
    folder = request.getfixturevalue("tmp_path")
    had_hosts = "hosts" in (*request.fixturenames, request.path.stem.rpartition("_")[2])
    with nothing_left(request.node.nodeid, folder, had_hosts=had_hosts):
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Runs of the tests neither fill the user's cache nor find specs there."""
    folder = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, folder)
        yield


@pytest.fixture(scope="session")
def edge_cases():
    """Folder of small files in the shapes of other experiments."""
    return DATA


@pytest.fixture(scope="session")
def cms_files():
    """The tutorial's four files; the first is signal."""
    return sorted((TUTORIAL / "data").glob("*.root"))


@pytest.fixture(scope="session")
def cms_plans(cms_files):
    return [plan_file(str(file), "events", file.stem) for file in cms_files]


@pytest.fixture(scope="session")
def cms_parts(cms_plans):
    """All events of each file, in at least three partitions per file."""
    parts = {}
    for plan in cms_plans:
        planned = plan.planned(list(plan.branches))
        limits = {"max_events": plan.num_entries // 2 - 1, "num_entries": plan.num_entries}
        partitions = planned.partitions(target_bytes=1 << 40, **limits)
        parts[plan.sample] = [read(part, list(plan.branches.values())) for part in partitions]
    return parts


@pytest.fixture(scope="session")
def cms_events(cms_parts):
    """All events of the four files."""
    return concatenate([part for parts in cms_parts.values() for part in parts])


@pytest.fixture(scope="session")
def client():
    """A client of a local cluster with two workers, as a run starts it."""
    with connect(Cluster(workers=2), ranks=2) as client:
        yield client


def skip_without(missing):
    """Skip for what is missing; in CI fail, where it could have been installed."""
    if os.environ.get("CI") and missing.can_be_installed and shutil.which("apt-get"):
        pytest.fail(f"missing in CI: {missing}")
    pytest.skip(str(missing))


@contextmanager
def started(kind, *arguments, **options):
    """A service for as long as the context; without what it needs, the test is skipped."""
    with ExitStack() as stack:
        try:
            service = stack.enter_context(kind(*arguments, **options))
        except Missing as missing:
            skip_without(missing)
        yield service


def commands_of(service, patch):
    """A batch system whose commands work until what is patched is put back."""
    for name, value in service.environment.items():
        patch.setenv(name, value)
    return service


@contextmanager
def without_jobs(service, patch):
    """A batch system as of `commands_of`; its jobs leave nothing in the context."""
    try:
        yield commands_of(service, patch)
        require_nothing(service.left)
    finally:
        service.clear()


@pytest.fixture(scope="session")
def slurm_cluster():
    """A real SLURM with two nodes; use ``slurm`` unless a fixture for several tests needs it."""
    with started(Slurm, **NODES) as service:
        yield service


@pytest.fixture
def slurm(slurm_cluster, monkeypatch):
    """A real SLURM with two nodes, without jobs; its commands work in the test."""
    with without_jobs(slurm_cluster, monkeypatch) as service:
        yield service


@pytest.fixture(scope="session")
def htcondor_pool():
    """A real HTCondor pool with two nodes; use ``htcondor`` unless a fixture needs it."""
    with started(HTCondor, **NODES) as service:
        yield service


@pytest.fixture
def htcondor(htcondor_pool, monkeypatch):
    """A real HTCondor pool with two nodes, without jobs; its commands work in the test."""
    with without_jobs(htcondor_pool, monkeypatch) as service:
        yield service


@pytest.fixture
def hosts():
    """Two hosts in one network, each with a name, a loopback and a /dev/shm of its own."""
    with started(joined_hosts, 2) as made:
        yield made
        require_nothing(lambda: [line for host in made for line in host.left()])


@pytest.fixture
def hasty():
    """Access with pauses too short to wait for, in a process in which no server has failed."""
    access.SERVERS.forget()
    yield access.Access(pace=Pace(pause=0.01))
    access.SERVERS.forget()
