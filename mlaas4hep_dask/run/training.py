"""Runs the ranks of a training on a Dask cluster, and starts them again when a worker dies."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distributed import Future

from mlaas4hep_dask.bundle import Bundle, draft_bundle
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.blocks import BlockPlan
from mlaas4hep_dask.devices import Choice
from mlaas4hep_dask.encode import EncodeCounts
from mlaas4hep_dask.encode.examples import Examples
from mlaas4hep_dask.gang import Attempts, Gang, Keeping, forget_sources, keep, known_counts
from mlaas4hep_dask.gang.keeping import SHARES, Shares
from mlaas4hep_dask.journal import SPLITS
from mlaas4hep_dask.run import amounts
from mlaas4hep_dask.run.cautions import training_cautions
from mlaas4hep_dask.run.devices import devices_of
from mlaas4hep_dask.run.exporting import Exported, export_network, try_network
from mlaas4hep_dask.run.losses import require_samples
from mlaas4hep_dask.run.method import method_of
from mlaas4hep_dask.run.outcome import Checkpoint, Outcome, UnderWay, course_of
from mlaas4hep_dask.train.calls import (
    abandon,
    close,
    measure_split,
    open_memory,
    open_rank,
    run_epoch,
)
from mlaas4hep_dask.train.chunks import chunk_of, num_chunks
from mlaas4hep_dask.train.feed import TEST, VALIDATION
from mlaas4hep_dask.train.given import Given
from mlaas4hep_dask.train.grouping import num_steps
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import ModelSource
from mlaas4hep_dask.train.session import RankTask
from mlaas4hep_dask.usercode import TRIAL_SECONDS
from mlaas4hep_dask.waiting import OverdueError

logger = logging.getLogger(__name__)


class Trainer:
    """Trains epoch after epoch.

    Parameters
    ----------
    dataset : Dataset
        Gives blocks.
    model : ModelSource
        Builds the network.
    method : Method, optional
        By default that of the configuration.
    window_bytes : int
        Dense rows of one window of all ranks; each holds its part of two.
    round_bytes : int
        Packed blocks of one round, where not all are kept; a rank holds two.
    shares : Shares
        What part of memory and disk blocks may fill.
    timeout : float, optional
        Seconds for workers to come, or to come back; see `Gang`.
    results : Path, optional
        The run directory, where copies of blocks may outlive batch jobs.
    """

    def __init__(
        self,
        dataset: Dataset,
        model: ModelSource,
        method: Method | None = None,
        *,
        window_bytes: int = amounts.WINDOW_BYTES,
        round_bytes: int = amounts.ROUND_BYTES,
        shares: Shares = SHARES,
        timeout: float | None = None,
        results: Path | None = None,
    ) -> None:
        self._shares, self._results = shares, results
        self._dataset = dataset
        self._cluster = dataset.cluster
        self._config = dataset.config
        self._model = model
        self._method = method or method_of(dataset.config)
        self._plan: BlockPlan = dataset.blocks()
        self._assignments = amounts.assignments(dataset, self._plan, window_bytes)
        self._round_bytes = round_bytes
        self.num_events = sum(events[0] for _, events in dataset.split_counts())
        self.objective = dataset.objective()
        self._given = Given.of(dataset.encoding(), self.objective)  # more if it is asked
        self._samples = dataset.plan().supervision.samples
        self.weights = dataset.training_weights()
        self.packed_bytes = amounts.packed_bytes(dataset)
        self.num_chunks = num_chunks(self.num_events, dataset.config.training.chunk_events)
        self.passes = dataset.config.training.passes
        self.course = course_of(dataset.config, self.objective, self.num_chunks)
        self.outcome: Outcome | None = None  # once all epochs are over
        self.restarts = 0
        self.rounds = 1  # of an epoch, once one is over
        self.choice = Choice()  # of what ranks compute on, once there are some
        cache = self.cache = dataset.config.cache  # what that has become, once training has begun
        self._place = str(self._config.resolve(cache)) if "/" in cache else cache
        self.counts: dict[int, EncodeCounts] = {}  # by block: what encoding it lost
        self.lost_samples: dict[str, int] = {}  # events of samples of which none was learned
        self._examples: Examples | None = None
        self._trial: Future | None = None
        self._chunk = chunk_of(self._assignments.train, 0, self.num_chunks)
        self.warnings = training_cautions(self._config, self._chunk, self.num_chunks)
        ranks = dataset.config.training.ranks
        self._attempts = Attempts(ranks, dataset.config.training.max_restarts)
        self._gang = Gang(dataset.cluster, ranks, f"training.ranks is {ranks}", timeout=timeout)
        self._keeping: Keeping | None = None
        self._session = ""
        self._under_way: UnderWay | None = None  # how far an epoch has come
        self._memory: str | None = None  # of rank 0, for the gradients
        self._tasks: list[Any] = []

    @property
    def events_per_epoch(self) -> int:
        """Training events that all ranks together go through in an epoch, about."""
        return self.num_events * self.passes // self.num_chunks

    def epochs(
        self,
        earlier: Sequence[Checkpoint] = (),
        *,
        under_way: UnderWay | None = None,
        keep: Callable[[UnderWay], None] = lambda _: None,
    ) -> Iterator[Checkpoint]:
        """Train the epochs after the ``earlier`` ones, giving a `Checkpoint` after each.

        Then the test events are measured with the network that is kept: see `outcome`.

        Parameters
        ----------
        earlier : sequence of Checkpoint
            Of an earlier process.
        under_way : UnderWay, optional
            The last checkpoint within the epoch after these.
        keep : callable
            Given every such checkpoint.

        Raises
        ------
        ModelError
            When the trial of the network fails.
        TrainingError
            When a rank fails, workers died more than ``training.max_restarts`` times without a
            checkpoint in between, or no event of a class could be read.
        """
        self.end_trial()
        records = [checkpoint.record for checkpoint in earlier]
        state = earlier[-1].state if earlier else None
        kept = earlier[self.course.kept(records) - 1].state if earlier else None
        pause = 60 * minutes if (minutes := self._config.training.checkpoint_minutes) else None
        try:
            while not self.course.is_over(records):
                epoch = len(records) + 1
                began = time.perf_counter() - (under_way.seconds if under_way else 0.0)
                self._under_way, under_way = under_way, None
                while True:
                    results = self._by_all(run_epoch, (epoch, pause), state, f"epoch {epoch}")
                    seconds = time.perf_counter() - began
                    if results[0].part is None:
                        break
                    self._under_way = UnderWay.of(results, seconds)
                    keep(self._under_way)
                self._under_way = None
                require_samples(self._dataset, self._plan, self.lost_samples)
                lead = results[0]
                num_events = sum(result.num_events for result in results)
                state, self.rounds = lead.state, lead.rounds
                record = {
                    "epoch": epoch,
                    "seconds": round(seconds, 4),
                    "events_per_second": round(num_events / seconds, 1),
                    "data_wait": [round(result.waited, 4) for result in results],
                    **{name: split.as_json() for name, split in lead.splits.items()},
                    **({"stopped": True} if lead.is_last else {}),  # as a hook asked
                }
                records.append(record)
                kept = state if self.course.kept(records) == epoch else kept
                yield Checkpoint(record, state)
            self.outcome = self._outcome(records[self.course.kept(records) - 1], state, kept)
            for counts in self._gang.on_survivors(known_counts, self._plan.token):
                self.counts |= counts
            if self._keeping is not None:
                self._keeping.remove_copies(self._gang)
        finally:
            self._close()

    def _outcome(self, record: dict[str, Any], last: bytes | None, kept: bytes | None) -> Outcome:
        assert kept is not None  # checkpoints that may be kept have their states
        what = (SPLITS[TEST], None if kept is last else kept)
        split = self._by_all(measure_split, what, kept, "measuring test events")[0]
        record = {**record, SPLITS[TEST]: split.as_json()}
        return Outcome(record["epoch"], kept, record, dict(split.detail))

    def begin_trial(self) -> Examples:
        """Let a worker try the network, its export and its scores; the real events it is given.

        `epochs` waits for the trial. The events serve for the export too: after training a server
        may be gone.
        """
        if self._examples is None:
            self._examples = self._dataset.examples()
            self._trial = self._cluster.submit(
                try_network,
                self._model,
                self._examples,
                self._draft(),
                {
                    "batches": amounts.batches(self._chunk),
                    "steps": self.passes * num_steps(self._chunk, self._method.accumulate),
                    "epochs": self.course.epochs,
                    "num_ranks": self._config.training.ranks,
                    "method": self._method,
                    "learning_rate": self._config.training.learning_rate,
                    "formats": self._config.export.formats,
                    "device": self._config.training.device,
                },
                group="trainers",
                pure=False,
            )
        return self._examples

    def end_trial(self) -> tuple[str, ...]:
        """What the trial warns of.

        Raises
        ------
        ModelError
            When the network does not work.
        """
        self.begin_trial()
        if self._trial is not None:
            seconds = TRIAL_SECONDS * len({"torchscript", *self._config.export.formats})
            try:
                warnings, names = self._cluster.result(
                    self._trial, "trying the model", group="trainers", seconds=seconds
                )
                self.warnings += warnings
                facts = (self._dataset.encoding(), self.objective, self._dataset.specs())
                self._given = Given.of(*facts, names=names)
            except OverdueError as error:
                self._cluster.let_go([self._trial])
                raise self._model.error(
                    f"has not come back for {seconds:g} s when it was tried on "
                    f"{len(self.begin_trial()):,} events: does its forward end?"
                ) from error
            self._trial = None
        return self.warnings

    def export(self, state: bytes) -> Exported:
        """A checkpoint's network, exported on a worker.

        Raises
        ------
        ModelError
            When the exported network does not give the scores of the trained one.
        """
        future = self._cluster.submit(
            export_network,
            self._model,
            state,
            self.begin_trial(),
            self._draft(),
            self._config.export.formats,
            workers=list(self._gang.workers)[:1] or None,  # it has imported torch
            allow_other_workers=bool(self._gang.workers),
            pure=False,
        )
        return self._cluster.result(future, "export")  # type: ignore[no-any-return]

    def _draft(self) -> Bundle:
        dataset = self._dataset
        return draft_bundle(
            self._config.name,
            specs=dataset.specs(),
            encode=dataset.encode_options(),
            recipe=dataset.plan().preparation.recipe,
            objective=self.objective,
        )

    def _by_all(
        self, function: Callable[..., Any], what: Any, state: bytes | None, words: str
    ) -> Sequence[Any]:
        """What each rank returns, though some die under way; from a checkpoint, if they have to."""
        while True:
            try:
                if not self._session:
                    self._open(state)
                assert self._keeping is not None  # opening has decided
                results = self._gang.run(
                    function,
                    [(task, what, self._memory) for task in self._tasks],
                    self._keeping.blocks,
                    words,
                )
            except Exception as error:
                if not self._gang.has_lost(error):
                    raise
                self._abandon()  # first: the others wait
                error = self._gang.why(error)
                self.restarts += 1
                self._attempts.count(error, in_order=self._gang.ended_in_order())
                logger.warning("starting %s again: %s", words, error)
            else:
                self._attempts.forget()
                return results

    def _open(self, state: bytes | None) -> None:
        gang, split = self._gang, self._config.split
        gang.meet()
        self.choice = devices_of(gang, self._config.training.device)
        member_bytes = self.packed_bytes * amounts.largest_part(self._assignments, self._plan)
        self._keeping = keep(
            self._plan,
            gang,
            place=self._place,
            packed_bytes=self.packed_bytes,
            member_bytes=member_bytes,
            owners=amounts.owners(self._assignments),
            # The oftener measured first.
            fractions={VALIDATION: split.validation, TEST: split.test},
            results=self._results,
            shares=self._shares,
        )
        self.cache = self._keeping.place
        logger.info("blocks, %d bytes packed, are kept: %s", self.packed_bytes, self._keeping)
        if not self._keeping.blocks.in_rank:
            rounds = amounts.num_rounds(member_bytes, self._keeping.room, self._round_bytes)
            self._assignments = self._assignments.in_rounds(rounds)
            logger.info("an epoch has %d rounds, each with a part of every file", rounds)
        task = RankTask(
            session=uuid.uuid4().hex,
            rank=0,
            num_ranks=gang.size,
            host="",
            model=self._model,
            given=self._given,
            learning_rate=self._config.training.learning_rate,
            seed=self._config.seed.weights,
            mean_weight=self.weights.mean,
            assignments=self._assignments,
            objective=self.objective,
            method=self._method,
            epochs=self.course.epochs,
            passes=self.passes,
            num_chunks=self.num_chunks,
            monitor=self.course.monitor,
            is_more_better=self.course.is_more_better,
            balance=self.weights.balance,
            samples=self._samples,
        )
        places = zip(gang.hosts, self.choice.devices, strict=True)
        self._tasks = [task.for_rank(rank, *place) for rank, place in enumerate(places)]
        self._session = task.session
        start = "ranks start"
        way, num_rounds = self._under_way, self._assignments.train.rounds or 1
        if way is not None and way.rounds < num_rounds:
            logger.warning("epoch %d begins anew: its blocks need %d rounds", way.epoch, num_rounds)
            way = self._under_way = None
        begin = [(state, ())] * gang.size if way is None else way.by_rank(gang.size)
        arguments = zip(self._tasks, begin, strict=True)
        facts = gang.on_each(open_rank, [(task, *each) for task, each in arguments], start)
        self._memory = None
        if gang.size > 1:
            self._memory = gang.on_each(open_memory, [(task.session, facts)], start)[0]

    def _abandon(self) -> None:
        self._gang.on_survivors(abandon, self._session)
        self._session = ""

    def _close(self) -> None:
        self._gang.on_survivors(abandon, self._session)  # after an interrupt they are at work
        self._gang.on_survivors(close, self._session)
        self._gang.on_survivors(forget_sources)
        self._cluster.call({})  # they are ranks no more
        self._keeping = None
        self._session = ""
