"""Tries on the first events of each sample what can fail once events are read."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.inputs.labelled import label
from mlaas4hep_dask.inputs.prepare import first_events
from mlaas4hep_dask.reader import FilePlan
from mlaas4hep_dask.reader.access import is_remote


def check_heads(
    plans: Sequence[FilePlan],
    context: Context,
    traced_on: Collection[str] | None,
    *,
    max_events: int | None = None,
) -> None:
    """Raise what the workers would raise of labels, targets, weights and the user's function.

    Of every sample's first file the first thousand events are tried, and only what is needed for
    it is read. Expressions cannot fail on branches of the right kinds, and that no event of these
    is selected means little. A remote file is left to the workers: it would be read twice.

    Parameters
    ----------
    plans : sequence of FilePlan
        The first file of each sample.
    context : Context
        What is read of them, and how events get a label or targets, and a weight.
    traced_on : collection of str or None
        Names of the branches of the file on which the user's function was traced, if there is one.
    max_events : int or None
        At most so many events of a sample belong to the data set.

    Raises
    ------
    DataError
        When a label, a target or a weight is not what it has to be; names file and entry.
    FunctionError
        When the function fails for another sample than the one it was traced on.
    """
    for file_plan in plans:
        # A function that did not fail on one file will not on another with the same branches.
        is_unlike = traced_on is not None and file_plan.branches.keys() != traced_on
        if file_plan.num_entries == 0 or is_remote(file_plan.file):
            continue
        if context.supervision.names or is_unlike:
            try:
                label(first_events(file_plan, max_events), context, ())
            except UnreadableFileError:
                if not context.skip:
                    raise
