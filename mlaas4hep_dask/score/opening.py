"""Opens a bundle and gives its scorer, once it has kept to what the bundle says."""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path

from mlaas4hep_dask.bundle import open_bundle
from mlaas4hep_dask.errors import BundleError, PayloadError
from mlaas4hep_dask.score.example import example_of
from mlaas4hep_dask.score.parts import Records
from mlaas4hep_dask.score.scorer import Scorer
from mlaas4hep_dask.score.script import Script
from mlaas4hep_dask.score.verify import verify

logger = logging.getLogger(__name__)


def open_scorer(path: str | Path) -> Scorer:
    """The scorer of a verified bundle, warmed up.

    Parameters
    ----------
    path : str or Path
        A bundle's folder, or a .tar.gz of it.

    Raises
    ------
    BundleError
        When the bundle is incomplete or altered, its model does not run, or does not give its
        golden events their scores.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mlaas4hep-score-") as folder:
        bundle = open_bundle(path, unpack_to=Path(folder, "bundle"))
        try:
            scorer = Scorer(bundle, Script(bundle.model_path))
            verify(scorer, bundle.golden())
            _warm_up(scorer)
        except BundleError:
            raise
        except Exception as error:  # whatever a strange manifest or program leads to
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise BundleError.at(path, f"the model does not run ({reason})") from error
    seconds = time.perf_counter() - started
    logger.info("loaded model %r from %s in %.1f s", scorer.name, path, seconds)
    return scorer


def _warm_up(scorer: Scorer) -> None:
    record = example_of(scorer.bundle)
    nulls = {
        name: [None] * len(value) if isinstance(value, list) else None
        for name, value in record.items()
    }
    # The TorchScript interpreter specialises in its first runs; nulls make integers float64,
    # for which `encode` compiles another kernel.
    for records in ([nulls], [record], [record], [record] * 3, [record] * 3):
        (outcome,) = scorer.score([Records(records)])
        if isinstance(outcome, PayloadError):
            if records[0] is nulls and scorer.bundle.recipe is not None:
                continue  # a null is no whole number and no condition, which a recipe may need
            raise outcome
