"""What turns a network's outputs into scores, inside and outside TorchScript."""

# No `from __future__ import annotations`: torch.jit reads the annotations of buffers as types.
import torch


class Activation(torch.nn.Module):
    """What the network gives to scores.

    Its ``forward`` takes outputs, and the rows and missing mask that the network was given; it
    returns scores, shape (events,) of one number per event and (events, outputs) of several. A
    bundle's module keeps kind, number of outputs, shift and scale, which are compared with those
    of the manifest when it is loaded.

    Parameters
    ----------
    kind : str
        Of the objective.
    num_outputs : int
        Numbers that the network gives for an event.
    shifts, scales : tuple of float
        For each output, where the network gives ``(value - shift) * scale``.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        kind: str,
        num_outputs: int,
        shifts: tuple[float, ...] = (),
        scales: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        self.kind: str = kind
        self.num_outputs: int = num_outputs
        for key, values in (("shift", shifts), ("scale", scales)):
            self.register_buffer(key, torch.tensor(values, dtype=torch.float64))
