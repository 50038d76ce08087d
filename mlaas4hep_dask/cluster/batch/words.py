"""The words for a job and for a reason, the same in all that a supervisor says."""

from __future__ import annotations

from mlaas4hep_dask.cluster.batch.actions import Action, Tell
from mlaas4hep_dask.cluster.batch.views import Job


def name(job: Job) -> str:
    """A job, by its id and its worker."""
    return f"job {job.id} ({job.worker})"


def because(reason: str) -> str:
    """A reason behind what it is the reason for; nothing where there is none."""
    return f" ({reason})" if reason else ""


def waits_for(action: Action, reason: str) -> bool:
    """Whether it tells that a job waits for a reason."""
    is_waiting = isinstance(action, Tell) and " has been " in action.text
    return is_waiting and action.text.endswith(because(reason))  # type: ignore[union-attr]
