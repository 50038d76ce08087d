import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.run.amounts import FEW_EVENTS, batches
from mlaas4hep_dask.train.assign import assign


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    ranks=st.integers(1, 4),
    per_rank=st.integers(1, FEW_EVENTS),
    window_events=st.integers(10, 80),
)
def test_the_smallest_batch_is_known_where_a_rank_has_few_events_of_one(
    sizes, ranks, per_rank, window_events
):
    counts = [("a", size) for size in sizes]
    options = {"batch_size": ranks * per_rank, "window_events": window_events, "seed": 0}
    made = assign(counts, ranks=ranks, files=list(range(len(sizes))), **options)
    steps = [
        np.diff(made.deal(window).rows(rank)[1]).min(initial=per_rank)
        for window in range(made.num_windows)
        for rank in range(ranks)
    ]
    assert batches(made) == (per_rank, min(steps))
