from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.train.course import Course

LOSSES = st.lists(st.one_of(st.none(), st.just(float("nan")), st.integers(0, 5)), max_size=12)


def records(values, metric="loss"):
    return [{"epoch": n, "validation": {metric: value}} for n, value in enumerate(values, 1)]


def test_the_first_epoch_of_which_none_is_better_is_kept():
    assert Course(9).kept(records([3, 2, 2, 4])) == 2
    assert Course(9, keeps_best=False).kept(records([3, 2, 2, 4])) == 4
    auc = Course(9, monitor="auc", is_more_better=True)
    assert auc.kept(records([0.5, 0.9, 0.7], "auc")) == 2
    assert Course(9).kept(records([None, None])) == 2  # nothing is validated


def test_training_ends_when_no_epoch_was_better_for_long_enough():
    course = Course(9, patience=2)
    values = [3, 2, 4, 2, 1]
    assert [course.is_over(records(values[:n])) for n in range(6)] == [
        *[False] * 4,
        True,
        False,
    ]
    assert Course(3).is_over(records([1, 2, 3]))


@given(values=LOSSES, patience=st.one_of(st.none(), st.integers(1, 4)))
def test_what_is_kept_is_known_when_training_is_over(values, patience):
    course = Course(12, patience=patience)
    done = []
    for value in values:
        if course.is_over(records(done)):
            break
        done.append(value)
        best = course.best(records(done))
        known = [each for each in done if each is not None and each == each]
        assert 1 <= best <= len(done)
        assert not known or done[best - 1] == min(known)
    if len(done) < min(len(values), 12):
        assert len(done) - course.best(records(done)) == patience
