"""The default network, that of the published pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def mlp(
    num_columns: int, *, hidden: Sequence[int] = (128, 64), dropout: float = 0.5
) -> torch.nn.Module:
    """A fully connected network with one logit per event.

    The default is the 128-64-1 network with dropout 0.5 of Kuznetsov, Giommi and Bonacorsi
    (Comput. Softw. Big Sci. 2021).

    Parameters
    ----------
    num_columns : int
        Length of a dense row.
    hidden : sequence of int
        Width of each hidden layer.
    dropout : float
        Fraction of the hidden values set to 0 in training.

    Returns
    -------
    torch.nn.Module
        float32 (events, columns) in, float32 (events, 1) out.
    """
    layers: list[torch.nn.Module] = []
    width = num_columns
    for size in hidden:
        layers += [torch.nn.Linear(width, size), torch.nn.ReLU(), torch.nn.Dropout(dropout)]
        width = size
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 1))
