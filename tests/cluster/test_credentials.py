import subprocess

import pytest
from tokens import HOUR, token_of

from mlaas4hep_dask.cluster.sites import check_credentials, load_site
from mlaas4hep_dask.cluster.sites.credentials import read_proxy, read_token
from mlaas4hep_dask.errors import ClusterError

TOKEN = {"proxy": "none", "token": "required"}


@pytest.fixture
def site(tmp_path):
    """A site with values of the keys proxy and token."""

    def load(**keys):
        text = "mlaas4hep:\n  title: x\n  base: htcondor\n"
        path = tmp_path / "site.yaml"
        path.write_text(text + "".join(f"  {key}: {value}\n" for key, value in keys.items()))
        return load_site(str(path))

    return load


def proxy_of(tmp_path, *days):
    """A file with one certificate for each number of days, and a key."""
    text = ""
    for number in days:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=physicist",
             "-days", str(number), "-keyout", "key.pem", "-out", "cert.pem"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
        text += (tmp_path / "cert.pem").read_text() + (tmp_path / "key.pem").read_text()
    path = tmp_path / "proxy"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_token_that_outlives_the_run_is_not_spoken_of(site, tmp_path):
    here = {"BEARER_TOKEN_FILE": str(token_of(tmp_path, 10 * HOUR))}
    assert check_credentials(site(proxy="none"), seconds=HOUR, environment=here) == []


def test_a_token_that_ends_before_the_run_is_warned_of_with_both_times(site, tmp_path):
    here = {"BEARER_TOKEN_FILE": str(token_of(tmp_path, 10 * HOUR))}
    (warning,) = check_credentials(site(proxy="none"), seconds=48 * HOUR, environment=here)
    assert "valid for 10.0 h" in warning
    assert "48.0 h" in warning


@pytest.mark.parametrize(
    ("seconds", "mode", "said"), [(-HOUR, 0o600, "expired"), (HOUR, 0o644, "chmod 600")]
)
def test_a_token_of_no_use_is_an_error_where_one_is_required(site, tmp_path, seconds, mode, said):
    here = {"BEARER_TOKEN_FILE": str(token_of(tmp_path, seconds, mode))}
    with pytest.raises(ClusterError, match=said):
        check_credentials(site(**TOKEN), environment=here)
    (warning,) = check_credentials(site(proxy="none"), environment=here)
    assert said in warning


def test_a_token_that_is_required_and_missing_is_an_error_that_says_where(site, tmp_path):
    here = {"BEARER_TOKEN_FILE": str(tmp_path / "none")}
    with pytest.raises(ClusterError, match=r"none: it cannot be read \(No such file"):
        check_credentials(site(**TOKEN), environment=here)


@pytest.mark.parametrize("text", ["", "abc", "a.b.c", "e30.e30.c2ln"])
def test_what_is_no_token_is_an_error(tmp_path, text):
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ClusterError, match="no JSON web token"):
        read_token(path)


@pytest.mark.slow
def test_a_proxy_is_valid_as_long_as_the_first_of_its_certificates(tmp_path):
    left = read_proxy(proxy_of(tmp_path, 30, 2, 10)).seconds_left
    assert 47 * HOUR < left < 49 * HOUR


def test_a_file_without_a_certificate_is_no_proxy(tmp_path):
    path = tmp_path / "proxy"
    path.write_text("nothing")
    path.chmod(0o600)
    with pytest.raises(ClusterError, match="no certificate"):
        read_proxy(path)
