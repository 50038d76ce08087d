"""Sites: which there are, and the values of one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlaas4hep_dask.cluster.settings import NESTED, dotted, merged
from mlaas4hep_dask.cluster.sites.model import HEAD, KINDS, Document
from mlaas4hep_dask.cluster.sites.options import Group, Head, Options
from mlaas4hep_dask.cluster.systems.jobs import Jobs
from mlaas4hep_dask.config.document import parse
from mlaas4hep_dask.config.problems import Places, Problem, config_error, describe, problems_of
from mlaas4hep_dask.errors import ClusterError, ConfigError, did_you_mean, either
from mlaas4hep_dask.places import GROUPS, LOCAL, SYSTEMS

FOLDER = "jobqueue"  # in the package that is installed, or beside it in its repository
LIFETIME, STAGGER = 0.9, 0.05  # of the walltime


@dataclass(frozen=True)
class Site:
    """One batch system, and what its jobs need.

    Attributes
    ----------
    name : str
        The name of its file without the suffix.
    file : Path
        The YAML file.
    document : Document
        What stands in it.
    """

    name: str
    file: Path
    document: Document

    @property
    def system(self) -> str:
        """``slurm`` or ``htcondor``."""
        return self.document.jobqueue.system

    @property
    def options(self) -> Options:
        """Section ``mlaas4hep``."""
        return self.document.mlaas4hep

    @property
    def title(self) -> str:
        """What the site is, in one sentence."""
        return self.options.title

    def group(self, name: str) -> Group:
        """A group of workers, by ``readers`` or ``trainers``."""
        _require_group(name)
        group: Group = getattr(self.options, name)
        return group

    def jobs(self, group: str) -> Jobs:
        """What a group's jobs, or that of the head, ask for."""
        _require_group(group, KINDS)
        return self.document.jobs_of(group)

    @property
    def queue_options(self) -> tuple[str, ...]:
        """More options of the batch system's commands that see and end jobs."""
        return self.document.jobs.queue_options

    def walltime(self, group: str) -> float | None:
        """Seconds after which the batch system ends a group's jobs; None when it is not known."""
        jobs = self.jobs(group)
        part: Head = getattr(self.options, group)
        return part.walltime or jobs.own_walltime or self.options.walltime

    def gpus(self, group: str) -> int:
        """GPUs of each of a group's jobs; the head has none."""
        return 0 if group == HEAD else self.group(group).gpus

    def lifetime(self, group: str) -> tuple[float, float] | None:
        """Seconds after which a group's workers end, and by how much they differ; or None."""
        walltime = self.walltime(group)
        lifetime, stagger = self.options.lifetime, self.options.lifetime_stagger
        if lifetime is None and walltime is not None:
            lifetime = LIFETIME * walltime
        if lifetime is None:
            return None
        if group == "trainers":  # they work together, so that one end costs as much as all
            return lifetime, 0.0
        if stagger is None:
            stagger = STAGGER * (walltime or lifetime)
        return lifetime, stagger

    @cached_property
    def nested_settings(self) -> dict[str, Any]:
        """Settings of Dask for scheduler and workers, as in a file of Dask's configuration."""
        return merged(NESTED, {"distributed": self.document.distributed})

    @property
    def settings(self) -> dict[str, Any]:
        """The same with dotted keys, for `dask.config.set`."""
        return dotted(self.nested_settings)


def load_site(
    name: str | None, system: str | None = None, more: Mapping[str, Any] | None = None
) -> Site:
    """The site of a name or a file.

    Parameters
    ----------
    name : str or None
        A name that `site_names` has, or the path of a YAML file; None is the generic site of the
        batch system.
    system : str, optional
        The batch system that it has to have: ``slurm`` or ``htcondor``.
    more : mapping, optional
        Values over those of the file.

    Raises
    ------
    ConfigError
        The file cannot be read, or does not describe a site; lists every problem with its line.
    ClusterError
        There is no site of the name, or it has another batch system.
    """
    if name is None:
        assert system is not None
        name = system
    file = _file_of(name)
    values = _merged_document(file, ())
    site = Site(file.stem, file, Document.model_validate(values))
    if system is not None and site.system != system:
        raise ClusterError(
            f"site {site.name} has {site.system}, not {system}: give --cluster {site.system}, or "
            f"one of {', '.join(_names_with(system))}",
            site=site.name,
        )
    if more:
        return replace(site, document=Document.model_validate(merged(values, more)))
    return site


def system_of(site: str | None, address: str | None) -> str | None:
    """``cluster.address``; where a site is given, and no other place, its batch system."""
    return address if site is None or address not in (None, LOCAL) else load_site(site).system


def site_names() -> list[str]:
    """The names of the sites that come with this package; first the generic ones."""
    names = sorted(path.stem for path in _folder().glob("*.yaml"))
    return sorted(names, key=lambda name: name not in SYSTEMS)


def _names_with(system: str) -> list[str]:
    return [name for name in site_names() if load_site(name).system == system]


def _folder() -> Path:
    package = Path(__file__).parents[2]
    inside = package / FOLDER
    return inside if inside.is_dir() else package.parent / FOLDER


def _file_of(name: str) -> Path:
    expanded = Path(os.path.expandvars(name)).expanduser()
    if expanded.suffix in (".yaml", ".yml") or len(expanded.parts) > 1:
        return expanded
    names = site_names()
    if name not in names:
        near = did_you_mean(name, names) or f"; there are {', '.join(names)}"
        raise ClusterError(
            f"there is no site {name!r}{near}; a file of your own ends in .yaml", site=name
        )
    return _folder() / f"{name}.yaml"


def _merged_document(file: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The values of a file over those of its base, all of them looked at."""
    if file in above:
        chain = " → ".join(map(str, (*above, file)))
        raise ConfigError(f"{file}: the bases of a site go round in a circle: {chain}", file=file)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text: {error.reason}", file=str(file)) from None
    except OSError as error:
        raise ConfigError(
            f"{file}: the site's file cannot be read ({error.strerror})", file=str(file)
        ) from None
    content, lines = parse(text, place=str(file))
    places = Places(str(file), lines)
    if not isinstance(content, dict):
        text = f"expected the sections mlaas4hep and jobqueue, found {describe(content)}"
        raise config_error(places, [Problem("", text)])
    document: dict[str, Any] = content
    options = document.get("mlaas4hep")
    base = options.get("base") if isinstance(options, dict) else None
    if isinstance(base, str):
        try:
            file_of_base = _file_of(base if base in site_names() else str(file.parent / base))
        except ClusterError as error:
            raise places.error("mlaas4hep.base", str(error)) from None
        document = merged(_merged_document(file_of_base, (*above, file)), document)
    try:
        Document.model_validate(document)
    except ValidationError as error:
        raise config_error(places, problems_of(error, Document, habits=False)) from None
    return document


def _require_group(name: str, names: tuple[str, ...] = GROUPS) -> None:
    if name not in names:
        raise ClusterError(f"there is no group {name!r}: expected {either(names)}", group=name)
