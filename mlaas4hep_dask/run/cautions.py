"""What of a training does not go as its keys suggest, once its events are counted."""

from __future__ import annotations

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.errors import ConfigError
from mlaas4hep_dask.train.assign import Assignment
from mlaas4hep_dask.train.grouping import num_steps


def training_cautions(config: Config, train: Assignment, num_chunks: int) -> tuple[str, ...]:
    """Sentences with the place of the key, for the start of a training.

    Parameters
    ----------
    config : Config
        Of the run.
    train : Assignment
        The training events, of one chunk.
    num_chunks : int
        How many chunks there are.

    Raises
    ------
    ConfigError
        When a schedule is shorter than the training, in the middle of which it would fail.
    """
    training = config.training
    _require_schedule(config, train, num_chunks)
    cautions = []
    if training.strategy == "chunked" and num_chunks == 1:
        cautions.append(
            f"{config.where('training.chunk_events')}: training.chunk_events puts all events into "
            "one chunk, which is validated once: training.keep and early_stopping change nothing"
        )
    elif training.strategy == "chunked" and training.early_stopping is not None:
        cautions.append(
            f"{config.where('training.early_stopping')}: training.early_stopping counts the "
            f"{num_chunks:,} chunks: training may end before it has seen the last of them"
        )
    most = max(map(train.num_steps, range(train.num_windows)))
    if training.accumulate > most:
        cautions.append(
            f"{config.where('training.accumulate')}: training.accumulate is "
            f"{training.accumulate:,}, but a step has at most {most:,} batches, which is what a "
            "window of events has"
        )
    return tuple(cautions)


def _require_schedule(config: Config, train: Assignment, num_chunks: int) -> None:
    """Raise for a schedule that the user has made too short; it takes the number, or would fail."""
    training, scheduler = config.training, config.training.scheduler
    own = None if scheduler is None else scheduler.kwargs.get("total_steps")
    if scheduler is None or not isinstance(own, int):
        return
    calls = num_chunks if training.strategy == "chunked" else training.epochs
    if scheduler.every != "epoch":  # what takes total_steps is called after every step
        calls *= training.passes * num_steps(train, training.accumulate)
    if own < calls:
        key = "training.scheduler.kwargs.total_steps"
        raise ConfigError(
            f"{config.where(key)}: {scheduler.callable} of training.scheduler has total_steps: "
            f"{own:,}, but is called {calls:,} times, after every {scheduler.every or 'step'}: "
            "leave total_steps out, and it is given that number",
            key=key,
        )
