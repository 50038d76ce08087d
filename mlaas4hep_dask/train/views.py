"""Rows as the objects that they hold: modules for users' networks, in and out of TorchScript."""

from typing import NamedTuple

import torch

from mlaas4hep_dask.encode.input_layout import InputBranch, InputLayout

SHOWN = 4  # of numbers that are not told apart

# No `from __future__ import annotations`: TorchScript reads the annotations as types.


class Views(NamedTuple):
    """The rows of a batch, by collection and flat.

    Parameters
    ----------
    objects : dict of str to Tensor of float32, shape (events, objects, branches)
        By collection, its branches in the order of their columns; 0 where a value is missing.
    missing : dict of str to Tensor of bool, shape (events, objects)
        By collection, True where there is no object: all its values are missing. It is what
        torch's attention takes as ``key_padding_mask``.
    flat : Tensor of float32, shape (events, branches)
        The flat branches.
    flat_missing : Tensor of bool, shape (events, branches)
        True where a flat value is missing.
    """

    objects: dict[str, torch.Tensor]
    missing: dict[str, torch.Tensor]
    flat: torch.Tensor
    flat_missing: torch.Tensor


class CollectionViews(torch.nn.Module):
    """Makes `Views` of rows and their missing mask.

    Nothing is copied where the columns of a collection lie side by side, as they do unless the
    name of another branch sorts between those of its own.

    Parameters
    ----------
    layout : InputLayout
        The columns, as the callable of a model is given them.
    """

    columns: torch.Tensor
    names: list[str]
    places: list[tuple[int, int, int]]  # first of its columns, or of its part of `columns`

    def __init__(self, layout: InputLayout) -> None:
        super().__init__()
        self.num_flat: int = len(layout.flat)
        self.names = [collection.name for collection in layout.collections]
        self.is_together: list[bool] = []
        self.places = []
        scattered: list[int] = []
        for collection in layout.collections:
            columns = [i for branch in collection.branches for i in branch.columns]
            is_together = columns == list(range(columns[0], columns[0] + len(columns)))
            first = columns[0] if is_together else len(scattered)
            self.is_together.append(is_together)
            self.places.append((first, len(collection.branches), collection.width))
            scattered += [] if is_together else columns
        self.register_buffer(
            "columns", torch.tensor(scattered, dtype=torch.int64), persistent=False
        )

    def forward(self, x: torch.Tensor, missing: torch.Tensor) -> Views:
        """The views of rows, shape (events, columns), and their missing mask."""
        objects: dict[str, torch.Tensor] = {}
        absent: dict[str, torch.Tensor] = {}
        for i, name in enumerate(self.names):
            objects[name] = self._view(x, i)
            absent[name] = self._view(missing, i).all(dim=2)
        flat, flat_missing = x[:, : self.num_flat], missing[:, : self.num_flat]
        return Views(objects, absent, flat, flat_missing)

    def _view(self, rows: torch.Tensor, i: int) -> torch.Tensor:
        first, branches, width = self.places[i]
        stop = first + branches * width
        together = self.is_together[i]
        part = rows[:, first:stop] if together else rows[:, self.columns[first:stop]]
        objects = part.reshape(rows.shape[0], branches, width)  # a trace would fix len(rows)
        return objects.transpose(1, 2)  # (events, objects, branches)


class Categories(torch.nn.Module):
    """The columns of a branch of whole numbers as rows of an embedding.

    It finds the numbers back, however they are normalised: 1 for the first of ``branch.values``
    and so on, 0 for what is missing or none of them. So an embedding has
    ``branch.num_categories`` rows. Numbers that single precision does not tell apart, as it may be
    beside very large ones, are none of them; a run warns of these.

    Parameters
    ----------
    branch : InputBranch
        The branch, from a layout.

    Attributes
    ----------
    caution : str
        What a user should know of numbers that are not told apart; empty if all are.

    Raises
    ------
    ValueError
        When the branch has no few whole numbers as values.
    """

    low: torch.Tensor
    high: torch.Tensor
    numbers: torch.Tensor

    def __init__(self, branch: InputBranch) -> None:
        super().__init__()
        if not branch.values:
            kind = "many different values" if branch.is_whole else "values that are not whole"
            kind = "values that single precision does not tell apart" if branch.alike else kind
            raise ValueError(f"branch {branch.name!r} has {kind}, which are no categories")
        self.caution: str = _caution(branch)
        self.first: int = branch.first
        self.stop: int = branch.first + branch.width
        low, high = torch.tensor(branch.bounds, dtype=torch.float32).unbind(dim=1)
        numbers = torch.arange(1, branch.num_categories)
        for name, values in (("low", low), ("high", high), ("numbers", numbers)):
            self.register_buffer(name, values.contiguous(), persistent=False)

    def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """The categories in rows, int64 (events, objects), or (events, 1) of a flat branch."""
        values = x[:, self.first : self.stop].unsqueeze(2)  # (events, objects, 1)
        is_it = (values >= self.low) & (values <= self.high)  # (events, objects, categories)
        numbers = (is_it * self.numbers).sum(dim=2)
        return numbers.masked_fill(missing[:, self.first : self.stop], 0)


def _caution(branch: InputBranch) -> str:
    if not branch.alike:
        return ""
    some = ", ".join(map(str, branch.alike[:SHOWN])) + " …" * (len(branch.alike) > SHOWN)
    return (
        f"has no categories for {some} of branch {branch.name!r}, which it does not tell apart in "
        "single precision; another encode.normalisation of this branch may"
    )


def cautions_of(network: torch.nn.Module) -> list[str]:
    """What a user should know of the categories in a network."""
    found = (each.caution for each in network.modules() if isinstance(each, Categories))
    return list(filter(None, dict.fromkeys(found)))
