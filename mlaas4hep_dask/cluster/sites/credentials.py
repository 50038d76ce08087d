"""The X.509 proxy and the WLCG token of a user: whether they are private, and last for a run."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlaas4hep_dask.cluster.sites.site import Site
from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.places import GROUPS

RENEW = {
    "proxy": "voms-proxy-init --valid 192:00",
    "token": "htgettoken, oidc-token or what your site has",
}
DAY = 86400.0  # seconds
OPENSSL_TIMEOUT = 30.0
NAMES = {"proxy": "X.509 proxy", "token": "WLCG token"}


@dataclass(frozen=True)
class Credential:
    """What a user shows to servers of data.

    Attributes
    ----------
    kind : str
        ``proxy`` or ``token``.
    file : Path
        Where it is.
    expires : float
        Seconds since 1970.
    """

    kind: str
    file: Path
    expires: float

    @property
    def seconds_left(self) -> float:
        """How long it is still valid; negative when it has expired."""
        return self.expires - time.time()

    @property
    def title(self) -> str:
        """What it is, and for how long."""
        return f"{NAMES[self.kind]} {self.file} is valid for {_hours(self.seconds_left)}"


def check_credentials(
    site: Site, *, seconds: float | None = None, environment: Mapping[str, str] | None = None
) -> list[str]:
    """What to warn of before jobs are submitted to a site.

    Parameters
    ----------
    site : Site
        Whose keys ``proxy`` and ``token`` say what is required.
    seconds : float, optional
        How long the run is expected to take; by default as `time_needed` has it.
    environment : mapping of str to str, optional
        Variables; those of this process by default.

    Raises
    ------
    ClusterError
        When a credential that is required is missing, has expired, cannot be read, or can be read
        by others. One that is not required is warned of.
    """
    credentials, warnings = credentials_for(site, environment)
    return warnings + too_short(credentials, time_needed(site) if seconds is None else seconds)


def time_needed(site: Site) -> float:
    """Seconds for which credentials should last: the longest walltime, or a day where none is."""
    return max(site.walltime(group) or DAY for group in GROUPS)


def too_short(credentials: list[Credential], needed: float) -> list[str]:
    """What to warn of those that end within so many seconds."""
    return [
        f"{each.title}, and the run may take {_hours(needed)}; renew it meanwhile "
        f"({RENEW[each.kind]}), files that are opened later take the new one"
        for each in credentials
        if each.seconds_left < needed
    ]


def credentials_for(
    site: Site, environment: Mapping[str, str] | None = None
) -> tuple[list[Credential], list[str]]:
    """The credentials that jobs of a site are given, and what is wrong with others.

    Parameters and errors are those of `check_credentials`.
    """
    here = os.environ if environment is None else environment
    credentials: list[Credential] = []
    warnings: list[str] = []
    for kind, find, read in (("proxy", proxy_file, read_proxy), ("token", token_file, read_token)):
        wanted = getattr(site.options, kind)
        if wanted == "none":
            continue
        try:
            file = find(here)
            if file is None:
                if wanted == "required":
                    raise _error(kind, None, f"site {site.name} needs one, and there is none")
                continue
            credential = read(file)
            if credential.seconds_left <= 0:
                raise _error(kind, file, f"it expired at {_date(credential.expires)}")
        except ClusterError as error:
            if wanted == "required":
                raise
            warnings.append(str(error))
        else:
            credentials.append(credential)
    return credentials, warnings


def files_of(site: Site, environment: Mapping[str, str]) -> list[Path]:
    """Where the credentials are, or should be, that jobs of a site are given."""
    finders = {"proxy": proxy_file, "token": token_file}
    places = [
        find(environment) for kind, find in finders.items() if getattr(site.options, kind) != "none"
    ]
    return [place for place in places if place is not None]


def proxy_file(environment: Mapping[str, str]) -> Path | None:
    """Where the X.509 proxy is; None when there is none."""
    return _first(environment, "X509_USER_PROXY", f"/tmp/x509up_u{os.geteuid()}")  # noqa: S108


def token_file(environment: Mapping[str, str]) -> Path | None:
    """Where the WLCG token is, by the rules of WLCG's bearer token discovery; or None."""
    name = f"bt_u{os.geteuid()}"
    folder = environment.get("XDG_RUNTIME_DIR")
    places = [f"{folder}/{name}"] if folder else []
    return _first(environment, "BEARER_TOKEN_FILE", *places, f"/tmp/{name}")  # noqa: S108


def read_proxy(file: Path) -> Credential:
    """The proxy in a file; it is valid as long as the first of its certificates to expire.

    Raises
    ------
    ClusterError
        When it is no proxy, or others can read it.
    """
    text = _private_text("proxy", file)
    pattern = "-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----"
    ends = [_end_of(file, part) for part in re.findall(pattern, text, re.DOTALL)]
    if not ends:
        raise _error("proxy", file, "no certificate is in it")
    return Credential("proxy", file, min(ends))


def read_token(file: Path) -> Credential:
    """The token in a file; its signature, which servers look at, is not looked at.

    Raises
    ------
    ClusterError
        When it is no JSON web token, or others can read it.
    """
    parts = _private_text("token", file).strip().split(".")
    try:
        body = parts[1] + "=" * (-len(parts[1]) % 4)
        expires = float(json.loads(base64.urlsafe_b64decode(body))["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise _error("token", file, "it is no JSON web token with a time of expiry") from error
    return Credential("token", file, expires)


def _end_of(file: Path, certificate: str) -> float:
    try:
        process = subprocess.run(
            ["openssl", "x509", "-noout", "-enddate"],  # noqa: S607  # the system's own
            input=certificate,
            capture_output=True,
            text=True,
            check=False,
            timeout=OPENSSL_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        text = f"openssl, which reads it, did not answer within {OPENSSL_TIMEOUT:g} s"
        raise _error("proxy", file, text) from error
    except FileNotFoundError as error:
        raise _error("proxy", file, "openssl, which reads it, is not installed") from error
    match = re.match(r"notAfter=(.+) GMT", process.stdout)
    if match is None:
        raise _error("proxy", file, f"openssl cannot read it ({process.stderr.strip()[:100]})")
    return datetime.strptime(match[1], "%b %d %H:%M:%S %Y").replace(tzinfo=UTC).timestamp()


def _first(environment: Mapping[str, str], variable: str, *places: str) -> Path | None:
    """The file that a variable names, though it may be missing; else the first that exists."""
    if environment.get(variable):
        return Path(environment[variable])
    return next((Path(place) for place in places if Path(place).exists()), None)


def _private_text(kind: str, file: Path) -> str:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise _error(kind, file, f"others may read it (mode {mode:04o}): chmod 600 {file}")
        return file.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise _error(kind, file, f"it cannot be read ({reason})") from error


def _error(kind: str, file: Path | None, text: str) -> ClusterError:
    where = NAMES[kind] if file is None else f"{NAMES[kind]} {file}"
    return ClusterError(f"{where}: {text}; a new one: {RENEW[kind]}", file=str(file), kind=kind)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
