"""What of a training does not go as its keys suggest, once its events are counted."""

from __future__ import annotations

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.train.assign import Assignment


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
    """
    training = config.training
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
