import logging
import stat
import time

import pytest
from tokens import HOUR, token_of

from mlaas4hep_dask.cluster.sites import (
    Carried,
    check_credentials,
    head_script,
    job_script,
    load_site,
    make_log_folders,
)
from mlaas4hep_dask.cluster.sites.carried import CHECK_INTERVAL, COPY_INTERVAL, FOLDER, carried
from mlaas4hep_dask.errors import ClusterError


@pytest.fixture
def site(tmp_path):
    """A site without proxies, by its system and more lines."""

    def load(system, lines=""):
        path = tmp_path / "ours.yaml"
        path.write_text(f"mlaas4hep:\n  title: t\n  base: {system}\n  proxy: none\n{lines}")
        return load_site(str(path))

    return load


def script(site, copies, environment):
    options = {"scheduler_address": "tcp://10.0.0.1:8786", "name": "readers-0"}
    return job_script(site, "readers", credentials=copies, environment=environment, **options).text


def test_a_copy_is_private_and_as_new_as_the_users_own(site, tmp_path):
    token = token_of(tmp_path, HOUR)
    copies = Carried(site("slurm"), tmp_path / "keys", {"BEARER_TOKEN_FILE": str(token)})
    copy = copies.files["token"]
    assert copy.read_bytes() == token.read_bytes()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700
    before = copy.read_bytes()
    token_of(tmp_path, 30 * HOUR)
    copies.keep(time.monotonic())
    assert copy.read_bytes() == before  # it is not time yet
    copies.keep(time.monotonic() + COPY_INTERVAL)
    assert copy.read_bytes() == token.read_bytes() != before
    copies.remove()
    assert not copy.parent.exists()


def test_a_token_that_comes_later_is_carried_and_one_that_others_can_read_is_not(
    site, tmp_path, caplog
):
    here = {"XDG_RUNTIME_DIR": str(tmp_path), "BEARER_TOKEN_FILE": str(tmp_path / "token")}
    copies = Carried(site("slurm"), tmp_path / "keys", here)
    assert copies.files == {}
    token_of(tmp_path, HOUR, mode=0o644)
    copies.keep(time.monotonic() + COPY_INTERVAL)
    assert copies.files == {}
    assert "chmod 600" in caplog.text
    (tmp_path / "token").unlink()
    token_of(tmp_path, HOUR)
    copies.keep(time.monotonic() + 2 * COPY_INTERVAL)
    assert copies.files["token"].exists()


def test_a_credential_that_ends_soon_is_warned_of_every_hour(site, tmp_path, caplog):
    token = token_of(tmp_path, 1.5 * HOUR)
    copies = Carried(site("slurm"), tmp_path / "keys", {"BEARER_TOKEN_FILE": str(token)})
    now = time.monotonic()
    copies.keep(now + COPY_INTERVAL)
    assert caplog.text == ""
    for hour in (1, 2):
        caplog.clear()
        copies.keep(now + hour * (CHECK_INTERVAL + 1))
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "is valid for 1.5 h" in record.getMessage()


def test_one_that_is_renewed_in_time_is_not_warned_of(site, tmp_path, caplog):
    token = token_of(tmp_path, 30 * HOUR)
    copies = Carried(site("slurm"), tmp_path / "keys", {"BEARER_TOKEN_FILE": str(token)})
    copies.keep(time.monotonic() + CHECK_INTERVAL)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("system", "hours"), [("slurm", 24), ("cern-lxplus", 24), ("desy-naf", 24)]
)
def test_a_credential_should_last_for_the_longest_walltime_or_a_day(site, tmp_path, system, hours):
    here = {"BEARER_TOKEN_FILE": str(token_of(tmp_path, (hours - 1) * HOUR))}
    (warning,) = check_credentials(site(system), environment=here)
    assert f"the run may take {hours}.0 h" in warning
    here = {"BEARER_TOKEN_FILE": str(token_of(tmp_path, (hours + 1) * HOUR))}
    assert check_credentials(site(system), environment=here) == []


def test_jobs_that_see_the_files_are_told_where_the_copy_is(site, tmp_path):
    copies = {"token": tmp_path / "my keys" / "token"}
    environment = {"BEARER_TOKEN_FILE": "/tmp/bt_u1000"}
    lines = script(site("slurm"), copies, environment).splitlines()
    told = [line for line in lines if "BEARER_TOKEN_FILE" in line]
    assert told[-1] == f"export BEARER_TOKEN_FILE='{tmp_path}/my keys/token'"


def test_a_site_that_names_the_file_itself_has_the_last_word(site, tmp_path):
    ours = site("slurm", "  environment: {BEARER_TOKEN_FILE: /nodes/token}\n")
    text = script(ours, {"token": tmp_path / "token"}, {})
    assert "BEARER_TOKEN_FILE=/nodes/token" in text
    assert str(tmp_path / "token") not in text


def test_jobs_without_shared_files_get_the_copy_encrypted(tmp_path):
    copies = {"token": tmp_path / "token", "proxy": tmp_path / "proxy"}
    text = script(load_site("coffea-casa"), copies, {})
    (sent,) = [line for line in text.splitlines() if line.startswith("transfer_input_files = ")]
    (secret,) = [line for line in text.splitlines() if line.startswith("encrypt_input_files = ")]
    for kind, file in copies.items():
        assert str(file) in sent
        assert kind in secret
    assert 'BEARER_TOKEN_FILE=""$PWD/token""' in text
    assert "chmod 600" in text


def test_a_proxy_that_htcondor_carries_itself_is_not_carried_twice(tmp_path):
    text = script(load_site("fnal-lpc"), {"proxy": tmp_path / "proxy"}, {})
    assert "use_x509userproxy = True" in text
    assert str(tmp_path / "proxy") not in text


def test_a_run_in_a_job_takes_the_users_file_if_it_sees_it_and_a_copy_else(site, tmp_path):
    options = {"name": "h", "folder": tmp_path, "logs": tmp_path}
    copies, here = {"token": tmp_path / "token"}, {"BEARER_TOKEN_FILE": "/home/me/token"}
    text = head_script(site("slurm"), ["-c", ""], credentials=copies, environment=here, **options)
    copy = f"export BEARER_TOKEN_FILE={tmp_path}/token"
    own = "export BEARER_TOKEN_FILE=/home/me/token"
    assert f"if [ -r /home/me/token ]; then {own}; else {copy}; fi" in text.text.splitlines()
    text = head_script(site("slurm"), ["-c", ""], credentials=copies, environment={}, **options)
    assert copy in text.text.splitlines()


def test_copies_of_the_job_in_which_a_run_works_are_removed_with_its_own(
    site, tmp_path, monkeypatch
):
    own = tmp_path / "head" / "credentials"
    own.mkdir(parents=True)
    token_of(own, HOUR)
    monkeypatch.setenv(FOLDER, str(own))
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(own / "token"))
    with carried(site("slurm"), tmp_path / "keys") as copies:
        assert copies.files["token"].exists()
    assert not (tmp_path / "keys").exists()
    assert not own.exists()


def test_a_folder_of_logs_that_is_missing_is_made_or_told_of(site, tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    lines = "jobqueue: {htcondor: {log-directory: $PLACE/my logs}}\n"
    make_log_folders(site("htcondor", lines))
    assert (tmp_path / "place" / "my logs").is_dir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("PLACE", str(tmp_path / "file"))
    with pytest.raises(
        ClusterError, match=r"log-directory .*file/my logs cannot be made \(Not a dir"
    ):
        make_log_folders(site("htcondor", lines))


def test_every_look_at_the_workers_keeps_the_copies_and_returns_what_it_saw(site, tmp_path):
    copies = Carried(site("slurm"), tmp_path / "keys", {})
    seen = []
    assert copies.before(lambda: seen.append("look") or "workers")() == "workers"
    assert seen == ["look"]
