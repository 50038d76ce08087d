"""Finds what dataset.yaml names for a training, with errors that say where it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlaas4hep_dask.errors import CodeError, ModelError
from mlaas4hep_dask.usercode import UserCode, find_code


def code_named(
    key: str,
    reference: str,
    *,
    resolve: Callable[[str], Path],
    where: str,
    values: Mapping[str, Any] | None = None,
) -> UserCode:
    """The code of a callable, checked as far as possible without running it.

    Parameters
    ----------
    key : str
        The key of dataset.yaml that names it.
    reference : str
        ``module:callable`` or ``path/to/file.py:callable``.
    resolve : callable
        Makes a relative path absolute.
    where : str
        Place in dataset.yaml, for errors.
    values : mapping, optional
        Keyword arguments of the callable.

    Raises
    ------
    ModelError
        When there is no such file, module or callable; names the nearest.
    """
    try:
        return find_code(reference, resolve=resolve, values=values)
    except CodeError as error:
        raise ModelError(f"{where}: {key}: {error.message}", **error.facts) from error
