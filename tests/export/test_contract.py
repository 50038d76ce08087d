"""What counts as rounding where scores are compared."""

import pytest
import torch

from mlaas4hep_dask.export.contract import compared
from mlaas4hep_dask.objective.two_classes import TwoClasses


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_in_half_precision_may_differ_by_a_step_of_it(dtype):
    step = torch.finfo(dtype).eps / 2  # below 1
    scores = torch.full((4, 1), 0.75, dtype=dtype)
    x = torch.zeros(4, 3)
    assert not compared(scores + step, scores, x, TwoClasses())
    assert compared(scores + 8 * step, scores, x, TwoClasses()).num_events == 4
    assert compared(scores.float() + step, scores.float(), x, TwoClasses()).num_events == 4
