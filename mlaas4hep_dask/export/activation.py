"""What turns a network's outputs into scores, inside and outside TorchScript."""

# No `from __future__ import annotations`: torch.jit reads the annotations of buffers as types.
import torch

from mlaas4hep_dask.encode.outputs import Outputs


class Activation(torch.nn.Module):
    """Logits to probabilities, or a regression's numbers to the units of its targets."""

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self.kind: str = outputs.kind
        self.num_outputs: int = outputs.num_outputs
        for key, values in (("shift", outputs.shifts), ("scale", outputs.scales)):
            self.register_buffer(key, torch.tensor(values, dtype=torch.float64))

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """Scores, shape (events,) of one output and (events, outputs) of several."""
        logits = logits.reshape(-1, self.num_outputs)
        if self.kind == "binary":
            scores = torch.sigmoid(logits)
        elif self.kind == "classes":
            scores = torch.softmax(logits, dim=1)
        else:
            scores = (logits.double() / self.scale + self.shift).float()
        return scores.reshape(-1) if self.num_outputs == 1 else scores
