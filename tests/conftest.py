import sys

import pytest
from hypothesis import HealthCheck, settings
from paths import DATA, TUTORIAL

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config import Cluster
from mlaas4hep_dask.dataset.cache import VARIABLE
from mlaas4hep_dask.events.events import concatenate
from mlaas4hep_dask.reader import access, plan_file, read

# The same examples every time, however loaded the machine: a suite decides whether a change lands.
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

PROCESSES = {"cluster", "ddp", "server", "slow"}  # marks of tests that may start some
STARTS = {"subprocess.Popen", "os.fork", "os.posix_spawn", "socket.bind"}
_started: list[str] = []
sys.addaudithook(lambda event, _: _started.append(event) if event in STARTS else None)


def pytest_collection_modifyitems(items):
    """Mark what a fixture or a folder tells."""
    for item in items:
        if "client" in item.fixturenames or item.path.parent.name == "line":
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(autouse=True)
def quick(request):
    """A test without a mark starts neither a process nor a server, and so ``make check`` has it."""
    _started.clear()
    yield
    names = {mark.name for mark in request.node.iter_markers()}
    if _started and not names & PROCESSES:
        what, marks = sorted(set(_started)), ", ".join(sorted(PROCESSES))
        pytest.fail(f"{what}: tests that start processes or servers are marked, by one of {marks}")


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


@pytest.fixture
def hasty(monkeypatch):
    """Pauses between attempts too short to wait for; and no server has failed before."""
    monkeypatch.setattr(access, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(access, "_failures", {})
    monkeypatch.setattr(access, "_silences", {})
