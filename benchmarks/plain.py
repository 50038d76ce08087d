"""A plain loop of torch over dense rows in memory, as one would write it in a notebook."""

from __future__ import annotations

from itertools import pairwise

import torch

HIDDEN = (128, 64)


def network(num_columns: int) -> torch.nn.Module:
    """The published network of torch's own parts."""
    layers: list[torch.nn.Module] = []
    for width, following in pairwise((num_columns, *HIDDEN)):
        layers += [torch.nn.Linear(width, following), torch.nn.ReLU(), torch.nn.Dropout(0.5)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN[-1], 1))


def learn(
    learning: torch.nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    batch_size: int,
    epochs: int = 1,
    shuffle: bool = True,
    validation: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """Go through all rows in batches, ``epochs`` times, on one thread.

    Parameters
    ----------
    learning : torch.nn.Module
        The network.
    x, y : Tensor of shape (events, columns) and (events,)
        Rows and labels.
    batch_size : int
        Events per step.
    epochs : int
        How often.
    shuffle : bool
        Whether each epoch has another order.
    validation : tuple of Tensor, optional
        Rows and labels whose loss is measured after every epoch.
    """
    torch.set_num_threads(1)  # as each of our ranks: a second one gains little in small steps
    optimiser = torch.optim.Adam(learning.parameters(), lr=1e-3, fused=True)
    loss_of = torch.nn.BCEWithLogitsLoss()
    for _ in range(epochs):
        learning.train()
        order = torch.randperm(len(x)) if shuffle else None
        for begin in range(0, len(x), batch_size):
            part = slice(begin, begin + batch_size)
            rows = part if order is None else order[part]
            optimiser.zero_grad()
            loss = loss_of(learning(x[rows]).squeeze(1), y[rows])
            loss.backward()
            optimiser.step()
        if validation is not None:
            learning.eval()
            with torch.inference_mode():
                loss_of(learning(validation[0]).squeeze(1), validation[1])
