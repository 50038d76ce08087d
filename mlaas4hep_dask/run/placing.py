"""Puts the line of dataset.yaml before what is wrong with the user's code when it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.errors import FunctionError, ModelError


@contextmanager
def code_at_its_line(config: Config) -> Iterator[None]:
    """Errors of model, loss, function and such that name the place of their key, as others do."""
    try:
        yield
    except (ModelError, FunctionError) as error:
        keys = {config.model.callable: "model.callable", config.loss: "training.loss"}
        if config.function is not None:
            keys[config.function.callable] = "function.callable"
        found = error.facts.get("key") or keys.get(error.facts.get("callable", ""))
        if found is None or error.message.startswith(config.where(found)):
            raise
        raise type(error)(f"{config.where(found)}: {error.message}", **error.facts) from error
