"""How the network of a configuration learns."""

from __future__ import annotations

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.train.loss import find_loss
from mlaas4hep_dask.train.method import OPTIMISERS, SCHEDULERS, Method, find_piece
from mlaas4hep_dask.train.warm_start import find_warm_start


def method_of(config: Config) -> Method:
    """Loss, optimiser, scheduler and hooks, checked as far as possible without running them.

    Raises
    ------
    ModelError
        When there is no such file, module or callable, or nothing to start from.
    """
    keys, resolve = config.training, config.resolve

    def where(key: str) -> str:
        return config.where(f"training.{key}")

    optimiser = find_piece(
        keys.optimiser,
        what="optimiser",
        home=OPTIMISERS,
        resolve=resolve,
        where=where("optimiser"),
    )
    scheduler = find_piece(
        keys.scheduler,
        what="scheduler",
        home=SCHEDULERS,
        resolve=resolve,
        where=where("scheduler"),
    )
    hooks = [
        find_piece(hook, what=f"hooks[{n}]", home="", resolve=resolve, where=where(f"hooks.{n}"))
        for n, hook in enumerate(keys.hooks)
    ]
    begin, warm_start = keys.warm_start, None
    if begin is not None:
        place = where("warm_start")
        warm_start = find_warm_start(begin.path, begin.parameters, resolve=resolve, where=place)
    return Method(
        find_loss(config.loss, resolve=resolve, where=where("loss")),
        optimiser,
        scheduler,
        None if keys.scheduler is None else keys.scheduler.every,
        keys.clip_norm,
        tuple(keys.freeze),
        keys.ema,
        keys.accumulate,
        keys.precision,
        tuple(filter(None, hooks)),
        warm_start,
    )
