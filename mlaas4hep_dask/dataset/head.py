"""Tries on the first events of each sample what can fail once events are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset.context import Context
from mlaas4hep_dask.dataset.labelled import label
from mlaas4hep_dask.dataset.prepare import first_events
from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.reader import FilePlan
from mlaas4hep_dask.reader.access import is_remote

if TYPE_CHECKING:
    from mlaas4hep_dask.dataset.preflight import Preflight


def check_heads(config: Config, checked: Preflight, plans: Sequence[FilePlan]) -> None:
    """Raise what the workers would raise of labels, targets, weights and the user's function.

    Of every sample's first file the first thousand events are tried, and only what is needed for
    it is read. Expressions cannot fail on branches of the right kinds, and that no event of these
    is selected means little. A remote file is left to the workers: it would be read twice.

    Parameters
    ----------
    config : Config
        The configuration.
    checked : Preflight
        What the first files have in common.
    plans : sequence of FilePlan
        The first file of each sample.

    Raises
    ------
    DataError
        When a label, a target or a weight is not what it has to be; names file and entry.
    FunctionError
        When the function fails for another sample than the one it was traced on.
    """
    fractions = (config.split.train, config.split.validation, config.split.test)
    context = Context(
        checked.preparation,
        (),
        checked.supervision,
        fractions,
        config.seed,
        skip=False,
    )
    known = checked.reference.branches.keys()
    for plan in plans:
        # A function that did not fail on one file will not on another with the same branches.
        is_unlike = checked.traced is not None and plan.branches.keys() != known
        if plan.num_entries == 0 or is_remote(plan.file):
            continue
        if checked.supervision.names or is_unlike:
            try:
                label(first_events(plan, config.max_events), context, ())
            except UnreadableFileError:
                if config.on_bad_file == "error":
                    raise
