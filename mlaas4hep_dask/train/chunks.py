"""The published way through the data: some passes over one chunk of events, then over the next.

A chunk has a part of every file of every sample, in proportion (Kuznetsov, Giommi and Bonacorsi,
Comput. Softw. Big Sci. 2021); every event is in one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from mlaas4hep_dask.train.assign import Assignment
from mlaas4hep_dask.train.epoch import Piece, between, ends_of


def num_chunks(num_events: int, chunk_events: int | None) -> int:
    """How many chunks there are, of about as many events; one where there is no such number."""
    return 1 if chunk_events is None else max(math.ceil(num_events / chunk_events), 1)


def chunk_of(assignment: Assignment, number: int, num_chunks: int) -> Assignment:
    """The events of a chunk.

    Parameters
    ----------
    assignment : Assignment
        All events.
    number : int
        Of the chunk, from 0.
    num_chunks : int
        How many there are.

    Returns
    -------
    Assignment
        The part of every file at every rank, or shard, is divided in the order of its pieces.
    """
    if num_chunks == 1:
        return assignment
    pieces = []
    before = 0  # events of the files above
    for samples in assignment.pieces:
        chosen = []
        for owned in samples:
            some: list[Piece] = []
            for line in _by_file(owned, assignment.files):
                ends = ends_of(list(map(len, line)))
                total = int(ends[-1])
                # What division leaves over falls into another chunk for each file.
                turn = before % num_chunks
                low, high = ((total * place + turn) // num_chunks for place in (number, number + 1))
                some += [
                    Piece(line[i].block, line[i].start + start, line[i].start + stop)
                    for i, start, stop in between(ends, low, high)
                ]
                before += total
            chosen.append(tuple(some))
        pieces.append(tuple(chosen))
    rounds = None if assignment.rounds is None else -(-assignment.rounds // num_chunks)
    return replace(assignment, pieces=tuple(pieces), rounds=rounds)


def _by_file(pieces: Iterable[Piece], files: tuple[int, ...]) -> list[list[Piece]]:
    lines: dict[int, list[Piece]] = {}
    for piece in pieces:
        lines.setdefault(files[piece.block], []).append(piece)
    return list(lines.values())
