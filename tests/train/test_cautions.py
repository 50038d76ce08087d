"""What a training is warned of once its events are counted."""

import pytest
from alone import Memory
from test_method import config

from mlaas4hep_dask.errors import ConfigError
from mlaas4hep_dask.run.cautions import training_cautions
from mlaas4hep_dask.train.chunks import chunk_of
from mlaas4hep_dask.train.grouping import num_steps

CHUNKED = {"strategy": "chunked", "chunk_events": 200, "batch_size": 20}


def cautions(num_chunks=1, **training):
    train = chunk_of(Memory().assignments().train, 0, num_chunks)
    return training_cautions(config(**training), train, num_chunks)


def test_a_training_as_its_keys_suggest_has_none():
    assert cautions() == ()
    assert cautions(early_stopping=2) == ()
    assert cautions(3, **CHUNKED) == ()


def test_one_chunk_leaves_nothing_to_choose():
    (said,) = cautions(**CHUNKED, early_stopping=2)
    assert (
        "chunk_events puts all events into one chunk, which is validated once: training.keep"
        in said
    )


def test_early_stopping_counts_chunks():
    (said,) = cautions(3, **CHUNKED, early_stopping=2)
    assert (
        "early_stopping counts the 3 chunks: training may end before it has seen the last" in said
    )


@pytest.mark.parametrize("accumulate", [8, 13])
def test_a_step_has_no_more_batches_than_a_window(accumulate):
    train = Memory().assignments().train
    most = max(train.num_steps(window) for window in range(train.num_windows))
    assert 8 < most < 13
    said = cautions(accumulate=accumulate)
    assert len(said) == (accumulate > most)
    assert all(f"accumulate is 13, but a step has at most {most} batches" in each for each in said)


@pytest.mark.parametrize(
    ("every", "keys", "factor"),
    [
        (None, {"epochs": 3}, 3),
        ("step", {"epochs": 3, "accumulate": 4}, 3),
        (None, {"epochs": 5, **CHUNKED}, 5),
        ("epoch", {"epochs": 30}, None),
    ],
)
def test_a_schedule_that_is_shorter_than_the_training_is_refused(every, keys, factor):
    steps = num_steps(Memory().assignments().train, keys.get("accumulate", 1))
    calls = 30 if factor is None else factor * steps

    def of(total_steps):
        kwargs = {"total_steps": total_steps}
        scheduler = {"callable": "OneCycleLR", "kwargs": kwargs, "every": every}
        return cautions(**keys, scheduler=scheduler)

    of(calls)
    of(calls + 100)
    said = (
        rf"OneCycleLR of training.scheduler has total_steps: {calls - 1:,}, but is called {calls:,}"
    )
    with pytest.raises(ConfigError, match=said):
        of(calls - 1)
