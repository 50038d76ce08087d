"""Natural batching: what arrives while the scoring thread is busy is scored as one batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from mlaas4hep_dask.errors import BusyError, PayloadError
from mlaas4hep_dask.score.parts import SLICE, SLICE_VALUES, Part
from mlaas4hep_dask.score.scores import Scores

MAX_WAITING = 131_072  # events


@dataclass(eq=False, slots=True)
class _Queue:
    jobs: deque[_Job] = field(default_factory=deque)
    num_waiting: int = 0  # events, those that are being scored too


@dataclass(eq=False, slots=True)
class _Job:
    queue: _Queue
    parts: Sequence[Part]
    answer: asyncio.Future[Scores]
    size: int  # events
    position: int = 0  # of the part that is next
    scores: list[Scores] = field(default_factory=list)


class Batcher:
    """Queue of requests in front of one model; lives in one event loop, without a timer.

    Parameters
    ----------
    score : callable
        Gives the outcome of each part; called in ``executor``, once at a time.
    executor : Executor
        The scoring thread.
    max_waiting : int
        Largest number of events that wait or are being scored; of large requests, and as many of
        small ones, so that neither keep the others out.
    stopping : str
        What requests are told when no more are taken.
    """

    def __init__(
        self,
        score: Callable[[Sequence[Part]], list[Scores | PayloadError]],
        executor: Executor,
        *,
        max_waiting: int = MAX_WAITING,
        stopping: str = "no more events are scored",
    ) -> None:
        self._score = score
        self._executor = executor
        self._max_waiting = max_waiting
        self._stopping = stopping
        self._small = _Queue()
        self._large = _Queue()
        self._running: list[_Job] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = False

    async def submit(self, parts: Sequence[Part]) -> Scores:
        """Scores of the events of one request.

        Parameters
        ----------
        parts : sequence of Part
            The request, in parts that are scored in one go each; others get a turn in between.

        Raises
        ------
        PayloadError
            When what was sent cannot be scored.
        BusyError
            When too many events wait, or no more are taken.
        """
        size = sum(part.num_events for part in parts)
        if not size:
            return Scores()
        if self._is_closed:
            raise BusyError(self._stopping)
        queue = self._small if len(parts) == 1 else self._large
        if queue.num_waiting and queue.num_waiting + size > self._max_waiting:
            raise BusyError(f"{queue.num_waiting} events are waiting; try again soon")
        job = _Job(queue, parts, asyncio.get_running_loop().create_future(), size)
        queue.num_waiting += size
        queue.jobs.append(job)
        if self._idle.is_set():
            self._start()
        return await job.answer

    async def drain(self) -> None:
        """Take no more requests and return when all earlier ones are answered."""
        self._is_closed = True
        await self._idle.wait()

    def give_up(self) -> None:
        """Take no more requests, and refuse all that are not answered."""
        self._is_closed = True
        for job in (*self._running, *self._small.jobs, *self._large.jobs):
            if not job.answer.done():
                job.answer.set_exception(BusyError(self._stopping))

    def _start(self) -> None:
        batch = self._take()
        self._running = [job for job, _ in batch]
        if not batch:
            self._idle.set()
            return
        self._idle.clear()
        parts = [part for _, part in batch]
        running = asyncio.get_running_loop().run_in_executor(self._executor, self._score, parts)
        running.add_done_callback(lambda done: self._finish(batch, done))

    def _take(self) -> list[tuple[_Job, Part]]:
        """Requests of one part as far as a slice goes, and a part of one larger request."""
        batch: list[tuple[_Job, Part]] = []
        events, values = SLICE, SLICE_VALUES
        small, large = self._small.jobs, self._large.jobs
        while small:
            part = small[0].parts[0]
            if batch and (part.num_events > events or part.num_values > values):
                break
            job = small.popleft()
            if self._is_wanted(job):
                batch.append((job, part))
                events -= part.num_events
                values -= part.num_values
        while large:
            job = large.popleft()
            if self._is_wanted(job):
                batch.append((job, job.parts[job.position]))
                job.position += 1
                break
        return batch

    def _is_wanted(self, job: _Job) -> bool:
        if job.answer.done():  # cancelled: its client went away
            job.queue.num_waiting -= job.size
            return False
        return True

    def _finish(
        self,
        batch: Sequence[tuple[_Job, Part]],
        future: asyncio.Future[list[Scores | PayloadError]],
    ) -> None:
        failure = future.exception()
        outcomes = [failure] * len(batch) if failure is not None else future.result()
        for (job, _), outcome in zip(batch, outcomes, strict=True):
            if not self._is_wanted(job):
                continue
            if isinstance(outcome, BaseException):
                job.answer.set_exception(outcome)
                job.queue.num_waiting -= job.size
                continue
            job.scores.append(outcome)
            if job.position and job.position < len(job.parts):
                self._large.jobs.append(job)
            else:
                job.answer.set_result(Scores.together(job.scores))
                job.queue.num_waiting -= job.size
        self._start()
