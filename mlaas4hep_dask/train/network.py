"""The networks that are there: the default, that of the published pipeline, and of images."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

# No `from __future__ import annotations`: TorchScript reads the annotations as types.

MOST_WITH_WAVES = 256  # columns


class Dropout(torch.nn.Module):
    """Sets a fraction of the values to 0 in training and scales the others up.

    It does what ``torch.nn.Dropout`` does; that one's random numbers took a fifth of a training
    step of the published network on a CPU, these take half as long.
    """

    def __init__(self, fraction: float) -> None:
        super().__init__()
        if not 0.0 <= fraction < 1.0:
            raise ValueError(f"dropout {fraction}; expected at least 0 and less than 1")
        self.fraction = fraction

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The values, shape kept; unchanged outside training."""
        if not self.training or self.fraction == 0.0:
            return x
        mask = torch.rand_like(x).ge_(self.fraction)  # 1.0 or 0.0
        return x * mask.mul_(1.0 / (1.0 - self.fraction))


class Waves(torch.nn.Module):
    """Values, and beside each of them cosines of it whose frequencies and phases are learned.

    A layer behind it sees so whether a value lies in a narrow range, such as a mass peak, which
    it learns from the value alone only with many more steps. They are 0 at 0, which stands for
    what is missing, and begin small: how much they count is learned column by column.
    """

    def __init__(self, num_columns: int, number: int) -> None:
        super().__init__()
        self.frequencies = torch.nn.Parameter(2.0 * torch.randn(num_columns, number))
        self.phases = torch.nn.Parameter(2 * math.pi * torch.rand(num_columns, number))
        self.gains = torch.nn.Parameter(torch.full((num_columns, 1), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (events, columns) in, (events, columns times one more than the number) out."""
        turned = torch.cos(torch.addcmul(self.phases, x.unsqueeze(2), self.frequencies))
        waves = self.gains * (turned - torch.cos(self.phases))  # (events, columns, number)
        return torch.cat([x, waves.flatten(1)], dim=1)


def dense(
    num_columns: int,
    *,
    num_outputs: int = 1,
    hidden: Sequence[int] = (256, 128),
    dropout: float = 0.3,
    waves: int = 4,
) -> torch.nn.Module:
    """A fully connected network on values and waves of them, with one logit per event.

    Layers are normalised by event (LayerNorm) and not by batch, so that what is learned does not
    depend on how many ranks share a batch. ``benchmarks/learned.py`` compares it with others.

    Parameters
    ----------
    num_columns : int
        Length of a dense row.
    num_outputs : int
        Numbers per event: a logit for each of more than two classes, or one for each target.
    hidden : sequence of int
        Width of each hidden layer.
    dropout : float
        Fraction of the hidden values set to 0 in training.
    waves : int
        Cosines beside each value, see `Waves`; of rows of more than 256 columns none, which would
        take most of the time.

    Returns
    -------
    torch.nn.Module
        float32 (events, columns) in, float32 (events, num_outputs) out.
    """
    layers: list[torch.nn.Module] = []
    width = num_columns
    if waves and num_columns <= MOST_WITH_WAVES:
        layers.append(Waves(num_columns, waves))
        width *= 1 + waves
    for size in hidden:
        layers += [torch.nn.Linear(width, size), torch.nn.LayerNorm(size), torch.nn.SiLU()]
        layers.append(Dropout(dropout))
        width = size
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, num_outputs))


def mlp(
    num_columns: int,
    *,
    num_outputs: int = 1,
    hidden: Sequence[int] = (128, 64),
    dropout: float = 0.5,
) -> torch.nn.Module:
    """A fully connected network, with one logit per event for two classes.

    By default it is the 128-64-1 network with dropout 0.5 of Kuznetsov, Giommi and Bonacorsi
    (Comput. Softw. Big Sci. 2021), which learned with Adam, steps of 0.001 and batches of 100.

    Parameters
    ----------
    num_columns : int
        Length of a dense row.
    num_outputs : int
        Numbers per event: a logit for each of more than two classes, or one for each target.
    hidden : sequence of int
        Width of each hidden layer.
    dropout : float
        Fraction of the hidden values set to 0 in training.

    Returns
    -------
    torch.nn.Module
        float32 (events, columns) in, float32 (events, num_outputs) out.
    """
    layers: list[torch.nn.Module] = []
    width = num_columns
    for size in hidden:
        layers += [torch.nn.Linear(width, size), torch.nn.ReLU(), Dropout(dropout)]
        width = size
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, num_outputs))


def autoencoder(
    num_columns: int, *, hidden: Sequence[int] = (128, 64), latent: int = 16
) -> torch.nn.Module:
    """A fully connected autoencoder, which gives rows like those it is given.

    Parameters
    ----------
    num_columns : int
        Length of a dense row.
    hidden : sequence of int
        Width of each layer before the narrowest one; those behind it are the same in reverse.
    latent : int
        Width of the narrowest layer, through which all that is known of an event has to pass.

    Returns
    -------
    torch.nn.Module
        float32 (events, columns) in and out.
    """
    widths = [num_columns, *hidden, latent, *reversed(hidden)]
    layers: list[torch.nn.Module] = []
    for width, following in pairwise(widths):
        layers += [torch.nn.Linear(width, following), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], num_columns))


def cnn(
    shape: tuple[int, int, int],
    *,
    num_outputs: int = 1,
    filters: Sequence[int] = (16, 32),
    hidden: int = 64,
    dropout: float = 0.5,
) -> torch.nn.Module:
    """A small convolutional network for images, with one logit per event for two classes.

    Each convolution is followed by the maximum over 2 by 2 cells; an axis of fewer than two cells
    is kept as it is.

    Parameters
    ----------
    shape : (int, int, int)
        Channels, cells along y and cells along x of an image.
    num_outputs : int
        Numbers per event.
    filters : sequence of int
        Channels after each convolution.
    hidden : int
        Width of the layer behind them.
    dropout : float
        Fraction of the hidden values set to 0 in training.

    Returns
    -------
    torch.nn.Module
        float32 (events, channels, ny, nx) in, float32 (events, num_outputs) out.
    """
    channels, height, width = shape
    layers: list[torch.nn.Module] = []
    for number in filters:
        pool = (2 if height > 1 else 1, 2 if width > 1 else 1)
        layers += [
            torch.nn.Conv2d(channels, number, kernel_size=3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(pool),
        ]
        channels, height, width = number, height // pool[0], width // pool[1]
    layers += [
        torch.nn.Flatten(),
        torch.nn.Linear(channels * height * width, hidden),
        torch.nn.ReLU(),
        Dropout(dropout),
        torch.nn.Linear(hidden, num_outputs),
    ]
    return torch.nn.Sequential(*layers)
