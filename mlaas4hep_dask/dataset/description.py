"""What a configuration says of its data set; here the configuration ends."""

from __future__ import annotations

from mlaas4hep_dask.catalog import Listing
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.inputs.description import Description, access_of
from mlaas4hep_dask.inputs.prepare import Texts
from mlaas4hep_dask.inputs.supervision import Supervision


def description_of(config: Config) -> Description:
    """What a data set is to be, for `mlaas4hep_dask.inputs.preflight.preflight`.

    Raises
    ------
    ConfigError
        When a target or the weight is no expression.
    """
    return Description(
        Listing(config.samples, config.tree, config.friends, config.reading, config.places),
        access_of(config.reading, config.collections),
        Supervision.of(
            config.objective, config.samples, config.target.branch, config.weight, config.places
        ),
        config.branches,
        texts=Texts(config.derive, config.objects, config.select, config.branches.include),
        function=config.function,
        image=config.image,
        encode=config.encode,
        specs_path=config.specs.path,
        split=config.split,
        seed=config.seed.split,
        max_events=config.max_events,
        skip=config.on_bad_file == "skip",
    )
