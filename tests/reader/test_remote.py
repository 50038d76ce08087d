import re
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
from servers import http_server, started

from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.reader import Access, Partition, plan_file, read

pytestmark = pytest.mark.server


@pytest.fixture
def url(cms_files):
    with http_server(cms_files[0].parent) as (_, base):
        yield f"{base}/{cms_files[0].name}"


def test_a_file_read_over_http_equals_the_local_file(url, cms_plans):
    local = cms_plans[0]
    remote = plan_file(url, "events", "any")
    assert remote.uuid == local.uuid
    assert remote.branches == local.branches
    branches = list(local.branches.values())
    for start, stop in ((0, 5_684), (700, 2_345)):
        there, here = (
            read(Partition(plan.file, "events", plan.uuid, start, stop, "any"), branches)
            for plan in (remote, local)
        )
        for name, content in here.contents.items():
            np.testing.assert_array_equal(there.contents[name], content)


def test_a_url_that_does_not_exist_is_named_at_once(url):
    missing = url.replace("single_top", "single_tip")
    with pytest.raises(UnreadableFileError, match="single_tip") as caught:
        plan_file(missing, "events", "any")
    assert "attempts" not in str(caught.value)


def test_a_tree_that_does_not_exist_over_http_is_named_with_the_nearest(url):
    with pytest.raises(DataError, match="did you mean 'events'"):
        plan_file(url, "Events2", "any")


def test_a_server_without_range_requests_is_told_apart(cms_files, hasty):
    command = ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]
    with started(sys.executable, *command, cms_files[0].parent) as (_, line):
        port = re.search(r"port (\d+)", line)[1]
        with pytest.raises(UnreadableFileError, match=f"{port} answers no range requests"):
            plan_file(f"http://127.0.0.1:{port}/{cms_files[0].name}", "events", "any", hasty)


def test_a_server_that_is_gone_is_tried_several_times(cms_files, hasty):
    with http_server(cms_files[0].parent) as (_, base):
        pass
    with pytest.raises(UnreadableFileError, match="after 3 attempts"):
        plan_file(f"{base}/{cms_files[0].name}", "events", "any", hasty)


@pytest.mark.timeout(60)
def test_a_server_that_dies_between_plan_and_read_is_an_error_not_a_hang(cms_files, hasty):
    with http_server(cms_files[0].parent) as (_, base):
        plan = plan_file(f"{base}/{cms_files[0].name}", "events", "any", hasty)
    partition = Partition(plan.file, "events", plan.uuid, 0, 5_684, "any", hasty)
    with pytest.raises(UnreadableFileError, match="after 3 attempts"):
        read(partition, list(plan.branches.values()))


@pytest.mark.timeout(60)
def test_what_stopped_a_read_is_told(cms_files):
    with http_server(cms_files[0].parent) as (process, base):
        access = Access(attempts=1, timeout=10)
        plan = plan_file(f"{base}/{cms_files[0].name}", "events", "any", access)
        process.send_signal(signal.SIGUSR1)
        partition = Partition(plan.file, "events", plan.uuid, 0, 5_684, "any", access, plan.stamp)
        with pytest.raises(UnreadableFileError, match=r"\(Client\w*Error|\(ServerDisconnected"):
            read(partition, list(plan.branches.values()))
        assert process.wait(timeout=20) == -signal.SIGKILL


def test_a_server_that_stays_silent_gets_one_attempt_until_it_answers(cms_files, hasty):
    name = cms_files[0].name
    quick = replace(hasty, timeout=0.5, attempts=3)
    with http_server(cms_files[0].parent) as (process, base):

        def plan():
            return plan_file(f"{base}/{name}", "events", "any", quick)

        for tried in ("after 3 attempts (", "cannot be read ("):
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(UnreadableFileError, match=re.escape(tried)):
                plan()
        process.send_signal(signal.SIGCONT)
        assert plan().num_entries == 5_684
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(UnreadableFileError, match="after 3 attempts"):
            plan()
