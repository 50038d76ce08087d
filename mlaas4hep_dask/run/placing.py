"""Puts the line of dataset.yaml before what is wrong with the user's code when it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.errors import FunctionError, ModelError
from mlaas4hep_dask.train.method import OPTIMISERS, SCHEDULERS, reference_of


@contextmanager
def code_at_its_line(config: Config) -> Iterator[None]:
    """Errors of model, loss, function and such that name the place of their key, as others do."""
    try:
        yield
    except (ModelError, FunctionError) as error:
        keys = {config.model.callable: "model.callable", config.loss: "training.loss"}
        for key, home in (("optimiser", OPTIMISERS), ("scheduler", SCHEDULERS)):
            if (piece := getattr(config.training, key)) is not None:
                keys[reference_of(piece.callable, home)] = f"training.{key}"
        for number, hook in enumerate(config.training.hooks):
            keys[hook.callable] = f"training.hooks.{number}"
        if (begin := config.training.warm_start) is not None:
            keys[begin.path] = "training.warm_start"
        if config.function is not None:
            keys[config.function.callable] = "function.callable"
        found = keys.get(error.facts.get("callable", ""))
        if found is None or error.message.startswith(config.where(found)):
            raise
        raise type(error)(f"{config.where(found)}: {error.message}", **error.facts) from error
