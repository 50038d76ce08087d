"""How far a rank has come within an epoch, so that it, or another in its place, goes on there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlaas4hep_dask.train.feed import Feed, Window
from mlaas4hep_dask.train.sample import Sample


@dataclass
class Within:
    """What a rank keeps of the windows of an epoch that it has learned from.

    Parameters
    ----------
    epoch : int
        Number of the epoch, from 1.
    sample : Sample
        Training events to be measured.
    window : int
        The next window.
    num_learnt : int
        Training events so far.
    loss_sums : ndarray of float64, shape (2,)
        Sums of losses and of weights.
    waited : float
        Seconds in which rows were waited for.
    num_reported : int
        Events of which others were told.
    """

    epoch: int
    sample: Sample
    window: int = 0
    num_learnt: int = 0
    loss_sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    waited: float = 0.0
    num_reported: int = 0

    def state(self) -> dict[str, Any]:
        """For a checkpoint: tensors and numbers."""
        return {
            "epoch": self.epoch,
            "window": self.window,
            "num_learnt": self.num_learnt,
            "loss_sums": self.loss_sums.tolist(),
            "waited": self.waited,
            "sample": self.sample.state(),
        }

    def take_up(self, states: Sequence[dict[str, Any]], rank: int, num_ranks: int) -> None:
        """Go on from what this rank has left, or all of another number of ranks."""
        first, is_own = states[0], states[0]["num_ranks"] == num_ranks
        self.epoch, self.window = first["epoch"], first["window"]
        # In sums over all ranks it is of no account who has which part.
        for state in states if is_own or rank == 0 else ():
            self.num_learnt += state["num_learnt"]
            self.loss_sums += state["loss_sums"]
        self.waited = first["waited"] if is_own else 0.0
        dealt = states if is_own else states[rank::num_ranks]
        self.sample.take_up([state["sample"] for state in dealt])


def own_buffers(states: Sequence[dict[str, Any]], num_ranks: int) -> list[torch.Tensor]:
    """The buffers with which a rank goes on: its own, or means of those of another number."""
    by_rank: list[list[torch.Tensor]] = [state["buffers"] for state in states]
    if states[0]["num_ranks"] == num_ranks:
        return by_rank[0]
    return [
        torch.stack(same).double().mean(0).to(same[0].dtype)
        if same[0].is_floating_point()
        else same[0]
        for same in zip(*by_rank, strict=True)
    ]


def windows_left(feed: Feed, passes: Sequence[int], first: int) -> Iterator[tuple[int, Window]]:
    """The windows of some passes that are left after the first, with the number of the pass."""
    for number in passes:
        for window in feed.windows(number, first=min(first, feed.num_windows)):
            yield number, window
        first = max(first - feed.num_windows, 0)
