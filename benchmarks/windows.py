"""What ranks read in an epoch, for very many partitions: arithmetic on counts alone.

The reference is ten times what a tenth of the partitions takes: ``ratio`` is 1 when the work grows
with the number of partitions. There are as many windows as fit four partitions of a rank each.
"""

from __future__ import annotations

import common

from mlaas4hep_dask.train.assign import assign

PER_PARTITION = 1000  # events
PER_WINDOW = 4  # partitions of one rank
TENTH = 10


def walk(num_partitions: int, ranks: int) -> int:
    """Assign the events, and find all windows of one rank; returns the number of steps."""
    counts = [("ab"[number % 2], PER_PARTITION + number % 7) for number in range(num_partitions)]
    assignment = assign(
        counts,
        ranks=ranks,
        batch_size=PER_PARTITION,
        window_events=PER_WINDOW * PER_PARTITION * ranks,
        seed=1,
    )
    epoch = assignment.epoch(0, 1)
    for number in range(assignment.num_rounds):
        of_round = epoch.round(number)
        for place in range(of_round.num_windows):
            of_round.window(place)
    for number in range(assignment.num_windows):
        assignment.deal(number).rows(0)
    return sum(map(assignment.num_steps, range(assignment.num_windows)))


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        partitions={"type": int, "default": 100_000, "help": "partitions"},
        ranks={"type": int, "default": 8, "help": "ranks"},
    )
    common.pin_to_one_core()
    few = max(parsed.partitions // TENTH, 1)

    def tenth() -> None:
        for _ in range(TENTH):
            walk(few, parsed.ranks)

    result = common.compare(lambda: walk(parsed.partitions, parsed.ranks), tenth, parsed.repeats)
    common.close(
        "windows",
        parsed.partitions * PER_PARTITION,
        result,
        reference=f"{TENTH} times the windows of {few} partitions",
        cores=1,
        partitions=parsed.partitions,
        ranks=parsed.ranks,
    )


if __name__ == "__main__":
    main()
