import queue
import sys
import threading
import time
from functools import partial
from types import FunctionType

import pytest
from alone import Memory

from mlaas4hep_dask.train import exchange, feed, standing
from mlaas4hep_dask.train.standing import RANKS, ROWS, WORK, Pulse, look_at
from mlaas4hep_dask.usercode.load import PREFIX


def function_of(module, name, file):
    """A function that stands in a module of this name, and calls what it is given."""

    def calls(inner):
        inner()

    code = calls.__code__.replace(co_name=name, co_filename=file)
    return FunctionType(code, {"__name__": module, "__file__": file})


def waits(*functions):
    """Where a thread stands that is in these functions, of which each calls the next."""
    begun, over = threading.Event(), threading.Event()

    def last():
        begun.set()
        over.wait(30)

    call = last
    for function in reversed(functions):
        call = partial(function, call)
    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(30)
    try:
        frame = sys._current_frames()[thread.ident]
        return [standing.standing(frame, by_torch=by_torch) for by_torch in (False, True)]
    finally:
        over.set()
        thread.join()


LEARNER = function_of("mlaas4hep_dask.train.learner", "_add_gradient", "learner.py")
LOSS = function_of(f"{PREFIX}0.loss", "loss", "/home/me/loss.py")
SOCKET = function_of("socket", "recv", "/lib/socket.py")
BACKWARD = function_of("torch.autograd.graph", "_engine_run_backward", "graph.py")
EXCHANGE = function_of(exchange.__name__, "_wait", "exchange.py")
SUM = function_of("torch.distributed.distributed_c10d", "all_reduce", "c10d.py")
WINDOWS = function_of(feed.__name__, "windows", "feed.py")


@pytest.mark.parametrize(
    ("functions", "expected"),
    [
        ((LEARNER, LOSS), (WORK, " of loss.py")),
        ((LEARNER, LOSS, SOCKET), (WORK, " of loss.py")),
        ((LEARNER, BACKWARD, EXCHANGE), (RANKS, "the exchange of gradients")),
        ((LEARNER, SUM), (RANKS, "a sum over all ranks")),
        ((LEARNER, LOSS, SUM), (RANKS, " of loss.py")),  # a user's own
        ((LEARNER, WINDOWS, function_of("queue", "get", "queue.py")), (ROWS, "the next")),
    ],
)
def test_the_innermost_frame_tells_what_is_waited_for(functions, expected):
    for waits_for, place in waits(*functions):
        assert waits_for == expected[0]
        assert expected[1] in place


def test_a_backward_pass_may_be_a_wait_where_torch_exchanges_gradients():
    alone, by_torch = waits(LEARNER, BACKWARD)
    assert alone[0] == WORK
    assert by_torch == (RANKS, "a backward pass, in which gradients are exchanged")


def test_only_a_rank_that_has_not_got_on_for_a_while_tells():
    pulse = Pulse()
    assert look_at(threading.get_ident(), pulse, by_torch=False) is None
    facts = look_at(threading.get_ident(), pulse, by_torch=False, quiet=0.0)
    assert facts["waits_for"] == WORK
    assert facts["place"].endswith("of standing.py")  # looked at from its own thread


def test_a_piece_may_take_as_long_for_an_event_as_the_slowest_but_for_the_first():
    pulse = Pulse()
    assert pulse.slowest == 0.0
    pulse.beat(10)
    time.sleep(0.05)  # compiles
    pulse.beat(10)
    assert pulse.slowest == 0.0
    began = time.monotonic()
    time.sleep(0.02)
    pulse.beat(1000)
    elapsed = time.monotonic() - began
    assert 2.0 <= pulse.slowest <= 100 * elapsed + 1e-3 * 100
    pulse.beat()  # what is not done event by event
    assert pulse.slowest == 0.0
    assert pulse.num_rows == 0


def test_a_queue_that_stays_empty_is_seen_where_rows_are_waited_for():
    """With the real feed: its window never comes."""

    class Never:
        def prefetch(self, blocks, split):
            """Nothing comes."""

        def get(self, block, split):
            del block, split
            over.wait(30)
            raise queue.Empty

    over = threading.Event()
    found = feed.Feed(Never(), Memory().assignments().train, rank=0, split=0, row_shape=(3,))

    def go():
        with pytest.raises(queue.Empty):
            next(iter(found.windows(0)))

    thread = threading.Thread(target=go)
    thread.start()
    deadline = time.monotonic() + 30
    told = ("", "")
    while told[0] != ROWS and time.monotonic() < deadline:
        time.sleep(0.01)  # until it waits
        told = standing.standing(sys._current_frames().get(thread.ident), by_torch=True)
    over.set()
    thread.join()
    assert told == (ROWS, "the next window")
