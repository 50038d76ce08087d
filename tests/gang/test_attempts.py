import pytest

from mlaas4hep_dask.errors import TrainingError
from mlaas4hep_dask.gang import Attempts

LOST = OSError("worker tcp://a:1 left")


def test_deaths_end_a_training_when_they_are_more_than_allowed():
    attempts = Attempts(num_members=2, max_restarts=1)
    attempts.count(LOST, in_order=False)
    attempts.forget()  # an epoch was completed
    attempts.count(LOST, in_order=False)
    with pytest.raises(
        TrainingError, match=r"died 2 times .*max_restarts is 1; .*: worker tcp://a"
    ):
        attempts.count(LOST, in_order=False)


def test_the_end_of_a_lifetime_may_come_to_every_member_but_not_for_ever():
    attempts = Attempts(num_members=4, max_restarts=0)
    for _ in range(4):
        attempts.count(LOST, in_order=True)
    with pytest.raises(
        TrainingError, match=r"lifetimes, or .* 5 times .* longer walltime, or another"
    ):
        attempts.count(LOST, in_order=True)
    attempts.forget()
    attempts.count(LOST, in_order=True)
