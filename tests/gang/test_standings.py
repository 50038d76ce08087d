import logging

import pytest

from mlaas4hep_dask.errors import TrainingError
from mlaas4hep_dask.gang import standings
from mlaas4hep_dask.gang.standings import FIRST_WORD, HANGS, Standings

NAMES = [f"rank {n}'s worker tcp://h:{n} (name {n}, host h)" for n in range(3)]


def at(rank, seconds, waits_for="work", place="line 12 of loss.py", slowest=0.0):
    return {
        "rank": rank,
        "pid": 100 + rank,
        "waits_for": waits_for,
        "place": place,
        "seconds": seconds,
        "slowest": slowest,
    }


def waiting(rank, seconds):
    return at(rank, seconds, "ranks", "the exchange of gradients")


def told(standing, caplog, *facts):
    """What is told when members have told this."""
    for each in facts:
        standing.hear(each)
    caplog.clear()
    with caplog.at_level(logging.WARNING, standings.__name__):
        standing.look()
    return caplog.messages


def test_a_member_that_stays_where_it_is_is_named_again_after_twice_as_long(caplog):
    now = [1_000.0]
    standing = Standings("epoch 3", NAMES, clock=lambda: now[0])
    assert told(standing, caplog, at(1, 59.0), waiting(0, 59.0)) == []
    words = told(standing, caplog, at(1, 61.0), waiting(0, 60.0), waiting(2, 60.0))
    expected = (
        "epoch 3: rank 1's worker tcp://h:1 (name 1, host h, pid 101) has been at one step, in "
        "line 12 of loss.py, for 61 s now; ranks [0, 2] wait for others in the exchange of "
        "gradients"
    )
    assert words == [expected]
    assert told(standing, caplog, at(1, 121.0)) == []
    assert len(told(standing, caplog, at(1, 122.0))) == 1
    assert told(standing, caplog, at(1, 240.0)) == []
    # It gets on: nothing more is heard. The next time counts from the beginning.
    now[0] += 100.0
    assert told(standing, caplog) == []
    assert len(told(standing, caplog, at(2, FIRST_WORD))) == 1


def test_a_member_that_hangs_ends_the_wait_and_one_of_slow_steps_does_not(caplog):
    standing = Standings("epoch 3", NAMES)
    told(standing, caplog, at(1, HANGS - 1), waiting(0, HANGS + 100))
    standing.hear(at(1, HANGS + 1))
    words = (
        r"epoch 3: rank 1's worker .*pid 101\) .*line 12 of loss.py, for 1801 s now; ranks \[0\]"
    )
    with pytest.raises(TrainingError, match=words) as caught:
        standing.look()
    assert caught.value.ranks == [1]
    # Minutes for every event, and a piece of many.
    told(standing, caplog, at(1, HANGS + 1, slowest=60.0))
    standing.hear(at(1, 6_001.0, slowest=60.0))
    with pytest.raises(TrainingError):
        standing.look()


def test_events_that_do_not_come_are_told_and_end_nothing(caplog):
    rows = at(1, 10 * HANGS, "rows", "the next window")
    (words,) = told(Standings("epoch 3", NAMES), caplog, rows, waiting(0, 10 * HANGS))
    assert "pid 101) has waited for events of the next window for 18000 s now; ranks [0]" in words


def test_members_that_all_wait_for_each_other_hang(caplog):
    standing = Standings("epoch 3", NAMES)
    # Rank 2 gets on, or is stopped, which others tell.
    assert told(standing, caplog, waiting(0, 2 * HANGS), waiting(1, 2 * HANGS)) == []
    hook = at(2, HANGS + 1, "ranks", "line 3 of hooks.py")
    standing.hear(hook)
    with pytest.raises(TrainingError, match=r"rank 2's.* waited for others in line 3 of hooks.py"):
        standing.look()
