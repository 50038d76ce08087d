"""What turns a network's outputs into scores, inside and outside TorchScript."""

# No `from __future__ import annotations`: torch.jit reads the annotations of buffers as types.
import torch

from mlaas4hep_dask.encode.outputs import Outputs


def reconstruction_error(
    rows: torch.Tensor, x: torch.Tensor, missing: torch.Tensor
) -> torch.Tensor:
    """Mean over an event's present values of the squared difference, float32 (events,).

    0 for an event of which every value is missing.

    Parameters
    ----------
    rows, x : Tensor of float32, shape (events, columns)
        What the network gives, and its input.
    missing : Tensor of bool, shape (events, columns)
        Missing mask.
    """
    differences = (rows - x).masked_fill(missing, 0.0)
    num_present = torch.logical_not(missing).sum(dim=1)
    return (differences * differences).sum(dim=1) / num_present.clamp(min=1)


class Activation(torch.nn.Module):
    """What the network gives to scores.

    Logits become probabilities, a regression's numbers have the units of its targets, and an
    autoencoder's rows become the error of the reconstruction.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self.kind: str = outputs.kind
        self.num_outputs: int = outputs.num_outputs
        for key, values in (("shift", outputs.shifts), ("scale", outputs.scales)):
            self.register_buffer(key, torch.tensor(values, dtype=torch.float64))

    def forward(self, logits: torch.Tensor, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """Scores, shape (events,) of one number per event and (events, outputs) of several.

        ``x`` and ``missing`` are what the network was given.
        """
        if self.kind == "reconstruction":
            return reconstruction_error(logits.reshape(x.shape), x, missing)
        logits = logits.reshape(-1, self.num_outputs)
        if self.kind == "binary":
            scores = torch.sigmoid(logits)
        elif self.kind == "classes":
            scores = torch.softmax(logits, dim=1)
        else:
            scores = (logits.double() / self.scale + self.shift).float()
        return scores.reshape(-1) if self.num_outputs == 1 else scores
