"""What is said of a batch system or a scheduler that does not answer, and how often; pure."""

from __future__ import annotations

from dataclasses import replace

from mlaas4hep_dask.cluster.batch.actions import Tell
from mlaas4hep_dask.cluster.batch.limits import Limits
from mlaas4hep_dask.cluster.batch.views import State, View
from mlaas4hep_dask.cluster.batch.words import because


def look_at_silence(state: State, view: View, limits: Limits) -> tuple[State, list[Tell]]:
    """The next state, in which silence has its beginning, and what is said of it."""
    now, told = view.now, list[Tell]()
    if view.queue is not None:
        state = replace(state, silent_since=None)
    else:
        is_new = state.silent_since is None
        state = replace(state, silent_since=now if is_new else state.silent_since, words=view.words)
        if is_new or now - state.silent_told >= limits.next_word:
            told.append(Tell(f"{silence(state, now)}; it is asked again"))
            state = replace(state, silent_told=now)
    if view.workers is not None:
        if state.deaf_since is not None:
            state = replace(state, deaf_since=None, heard_since=now)
    elif state.deaf_since is None:
        state = replace(state, deaf_since=now)
        told.append(Tell("Dask's scheduler does not answer; it is asked again"))
    return state, told


def silence(state: State, now: float) -> str:
    """That the batch system does not answer, for how long, and what is said instead; or empty."""
    if state.silent_since is None:
        return ""
    waited = now - state.silent_since
    what = f"has not answered for {waited:.0f} s" if waited else "does not answer"
    return f"the batch system {what}{because(state.words)}"
