"""How often the members of a gang may be lost without getting on in between."""

from __future__ import annotations

from dataclasses import dataclass

from mlaas4hep_dask.errors import TrainingError


@dataclass
class Attempts:
    """Losses since the last checkpoint.

    Parameters
    ----------
    num_members : int
        Members of the gang.
    max_restarts : int
        Restarts after a death, without a checkpoint in between.
    num_deaths, num_ends : int
        How often members died, and how often one ended in order, since its lifetime was over or its
        job was ended, which is nobody's fault and may come to each of them.
    """

    num_members: int
    max_restarts: int
    num_deaths: int = 0
    num_ends: int = 0

    def count(self, error: Exception, *, in_order: bool) -> None:
        """Count a loss.

        Raises
        ------
        TrainingError
            When there were too many.
        """
        if in_order:
            self.num_ends += 1
            if self.num_ends > self.num_members * (self.max_restarts + 1):
                raise TrainingError(
                    "ranks came to the end of their lifetimes, or their jobs were ended, "
                    f"{self.num_ends} times without a checkpoint in between, which takes longer "
                    "than they live together: a longer walltime, or another "
                    f"training.checkpoint_minutes, helps; the last time: {error}",
                    attempts=self.num_ends,
                ) from error
            return
        self.num_deaths += 1
        if self.num_deaths > self.max_restarts:
            raise TrainingError(
                f"workers died {self.num_deaths} times without a checkpoint in between, and "
                f"training.max_restarts is {self.max_restarts}; the last time: {error}",
                attempts=self.num_deaths,
            ) from error

    def forget(self) -> None:
        """There is another checkpoint."""
        self.num_deaths = self.num_ends = 0
