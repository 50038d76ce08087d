"""A job as a batch system takes it: its text, and how it is submitted and looked into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Script:
    """A job that can be submitted.

    Attributes
    ----------
    text : str
        The job script, or the submit file.
    name : str
        The name of the job, by which the batch system's queue is asked.
    submit : tuple of str
        The command that submits it, to which the path of a file with the text is added.
    log : str or None
        Path of what the job prints; ``{job}`` stands for its id. None when it is not kept.
    environment : mapping of str to str, optional
        The variables of the command that submits it; those of this process by default.
    """

    text: str
    name: str
    submit: tuple[str, ...]
    log: str | None
    environment: Mapping[str, str] | None = None

    def log_of(self, job: str) -> Path | None:
        """The file with what the job of an id prints; None when it is not kept."""
        return None if self.log is None else Path(self.log.replace("{job}", job))
