"""Reconstruction: the encoded row of an event itself, for an autoencoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.journal.text import four_digits
from mlaas4hep_dask.objective.classification import labels_not_wanted
from mlaas4hep_dask.objective.objective import Fault, Objective, Selected, short

if TYPE_CHECKING:
    import torch

    from mlaas4hep_dask.objective.objective import Tally

ERRORS = (("mean", "mean"), ("median", "median"), ("quantile_95", "95 % below"))
NOT_WANTED = "not wanted: a reconstruction learns the inputs themselves"


@dataclass(frozen=True)
class Reconstruction(Objective):
    """The input of the network; its names are the columns, once they are known."""

    names: tuple[str, ...] = ()

    word = "reconstruction"
    meaning = "the encoded row itself, for an autoencoder"
    usual_network = "mlaas4hep_dask.train.network:autoencoder"
    kind = "reconstruction"
    score = "reconstruction_error"
    score_meaning = "mean squared error of the present values of an event, encoded"
    names_key = "columns"
    gives_rows = True
    expected = "rows like its input, some values of which are negative"
    rounding = 1e-5
    usual_loss = "mse"
    more_is_better = ("r2",)
    headline = ("r2", "R²")
    title = "Reconstruction of the test set"
    link = "Reconstruction"
    residual_axis = "difference of {}"
    limits = "What is a large error depends on the mixture of samples above."

    @classmethod
    def target_faults(cls, branch: Sequence[str], classes: Sequence[str]) -> list[Fault]:
        """As `Objective.target_faults`."""
        return [
            (key, NOT_WANTED) for key, value in (("branch", branch), ("classes", classes)) if value
        ]

    @classmethod
    def label_faults(
        cls, labels: Sequence[int | None], branch: Sequence[str], classes: Sequence[str]
    ) -> list[Fault]:
        """As `Objective.label_faults`."""
        del branch, classes
        return labels_not_wanted(labels, NOT_WANTED)

    @classmethod
    def names_of(
        cls, labels: Mapping[str, int | None], branch: Sequence[str], classes: Sequence[str]
    ) -> tuple[str, ...]:
        """None yet."""
        del labels, branch, classes
        return ()

    def y_of_sample(self, label: int | None, number: int) -> int:
        """The number of the sample, by which its tally tells the samples apart."""
        del label
        return number

    def fitted(self, selected: Selected) -> Reconstruction:
        """As `Objective.fitted`: with the columns."""
        return replace(self, names=selected.columns)

    @property
    def num_scores(self) -> int:
        """One error."""
        return 1

    def comparable(self, outputs: torch.Tensor, targets: Any) -> tuple[Any, Any]:
        """As `Objective.comparable`: both are 0 where a value is missing."""
        x, missing = targets
        return outputs.masked_fill(missing, 0.0), x

    def tally(self, samples: Sequence[str] = ()) -> Tally:
        """As `Objective.tally`."""
        from mlaas4hep_dask.objective.arithmetic.reconstruction import ReconstructionTally

        return ReconstructionTally(self.names, samples)

    def activation(self) -> torch.nn.Module:
        """As `Objective.activation`."""
        from mlaas4hep_dask.objective.arithmetic.reconstruction import Distance

        return Distance(self.kind, self.num_outputs)

    def wrong_scores(self, low: float, high: float) -> str | None:
        """As `Objective.wrong_scores`: an error is not negative."""
        del high
        return f"gives {low:.4g} as the error of a reconstruction" if low < 0 else None

    def metric_rows(self, test: Mapping[str, Any]) -> list[tuple[str, str]]:
        """As `Objective.metric_rows`."""
        rows = [("R²", four_digits(test.get("r2")))]
        for name, errors in (test.get("errors") or {}).items():
            cells = [f"{title} {short(errors.get(key))}" for key, title in ERRORS]
            rows.append((f"error of {name}", ", ".join(cells)))
        return rows

    def purpose(self, branch: Sequence[str], loss: str) -> str:
        """As `Objective.purpose`."""
        del branch, loss
        return (
            "Gives the error with which an event is reconstructed: the mean squared difference of "
            "its encoded values that are present. A large one means an event unlike those below."
        )
