"""What workers do with one partition: read, encode, score, and pick what the output holds."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlaas4hep_dask.bundle import Bundle
from mlaas4hep_dask.bundle.golden import Golden
from mlaas4hep_dask.dataset.plan import Skipped
from mlaas4hep_dask.derive.recipe import Recipe
from mlaas4hep_dask.encode import EncodeCounts, Encoded, EncodedImages, Encoding, encode
from mlaas4hep_dask.errors import BundleError, EventError, UnreadableFileError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.objective.arithmetic.reconstruction import reconstruction_error
from mlaas4hep_dask.reader import Partition, read
from mlaas4hep_dask.score.scorer import Scorer
from mlaas4hep_dask.score.script import Script
from mlaas4hep_dask.score.verify import verify
from mlaas4hep_dask.writer import decoded_branches, decoded_events

SLICE = 2048  # events scored at once
SLICE_BYTES = 8 * 1024**2  # and their encoded rows, which stay in a cache
FILE, ENTRY, IS_FINITE = "source_file", "source_entry", "is_finite"


@dataclass(frozen=True)
class Scoring:
    """What all partitions share.

    Parameters
    ----------
    name : str
        Name of the model, for errors.
    model : bytes
        The bundle's TorchScript.
    digest : str
        Its sha256.
    encoding : Encoding
        How prepared events become its input.
    reads : tuple of Branch
        Branches of the files that it needs.
    recipe : Recipe or None
        Derived branches and object cuts that prepare the events of the files.
    copied : tuple of Branch
        Branches that are copied from the files.
    skip : bool
        Leave out what cannot be read instead of stopping.
    score_names : tuple of str
        Names of the score branches; empty when the scores of the model are rows.
    decode : bool
        Write the events that rows stand for: of an autoencoder beside its score, of another model
        in place of it.
    suffix : str
        Appended to the names of decoded branches.
    """

    name: str
    model: bytes
    digest: str
    encoding: Encoding
    reads: tuple[Branch, ...]
    recipe: Recipe | None
    copied: tuple[Branch, ...]
    skip: bool
    score_names: tuple[str, ...] = ()
    decode: bool = False
    suffix: str = ""

    @property
    def branches(self) -> tuple[Branch, ...]:
        """What the output holds, in its order."""
        source = (Branch(FILE, "flat", "uint32"), Branch(ENTRY, "flat", "uint64"))
        branches = tuple(Branch(name, "flat", "float32") for name in self.score_names)
        if self.decode:
            decoded = decoded_branches(self.encoding, suffix=self.suffix)
            branches = (*branches, Branch(IS_FINITE, "flat", "bool"), *decoded)
        return (*source, *self.copied, *branches)


@dataclass(frozen=True)
class ScoredPart:
    """Scores of one partition, or why it has none.

    Parameters
    ----------
    events : Events or None
        What the output holds of it.
    counts : EncodeCounts
        What encoding could not keep.
    num_not_finite : int
        Events without a finite score.
    skipped : Skipped or None
        The partition, when it could not be read.
    """

    events: Events | None
    counts: EncodeCounts = field(default_factory=EncodeCounts)
    num_not_finite: int = 0
    skipped: Skipped | None = None

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + sys.getsizeof(self.events)


def num_outputs(scoring: Scoring, bundle: Bundle, golden: Golden | None) -> int | None:
    """Numbers that the model gives for an event; None when it gives one without an axis for it.

    Raises
    ------
    BundleError
        When the model does not run, gives something else, or does not keep to its bundle.
    """
    encoding = scoring.encoding
    x = np.zeros((3, *encoding.row_shape), dtype=np.float32)
    missing = np.zeros(x.shape, dtype=np.bool_)
    try:
        script = _script(scoring)
        scores = script.scores_of(x, missing)
        if scores.ndim not in (1, 2) or len(scores) != 3:
            raise BundleError(
                f"model {scoring.name!r} gives an array of shape {scores.shape} for 3 events; "
                "expected (3,) or (3, outputs)"
            )
        # Without a kind of its own, the rows that a model gives can be decoded.
        gives_rows = scoring.decode and not bundle.objective.gives_rows
        verify(Scorer(bundle, script), golden, gives_rows=gives_rows)
    except (RuntimeError, AttributeError, EventError) as error:
        raise BundleError(f"model {scoring.name!r} does not run ({error})") from error
    return None if scores.ndim == 1 else scores.shape[1]


def score_partition(partition: Partition, file_number: int, scoring: Scoring) -> ScoredPart:
    """What the output holds of one partition.

    Raises
    ------
    UnreadableFileError
        When it cannot be read, unless the scoring says to skip.
    """
    branches = {branch.name: branch for branch in (*scoring.reads, *scoring.copied)}
    try:
        events = read(partition, list(branches.values()))
    except UnreadableFileError as error:
        if not scoring.skip:
            raise
        return ScoredPart(None, skipped=Skipped.of(partition, error.message))
    prepared = events
    if scoring.recipe is not None:
        keep = [branch.name for branch in scoring.encoding.reads]
        prepared = scoring.recipe.prepare(events, keep, select=False).events
    encoded = encode(prepared, scoring.encoding)
    num_events = len(partition)
    contents: dict[str, NDArray[Any]] = {
        FILE: np.full(num_events, file_number, dtype=np.uint32),
        ENTRY: np.arange(partition.entry_start, partition.entry_stop, dtype=np.uint64),
        **{branch.name: events.contents[branch.name] for branch in scoring.copied},
    }
    offsets = {
        branch.collection: events.offsets[branch.collection]
        for branch in scoring.copied
        if branch.collection is not None
    }
    reconstructs = scoring.decode and bool(scoring.score_names)
    scores, rows, is_finite = _scored(
        encoded, _script(scoring), scoring.encoding.row_shape, reconstructs=reconstructs
    )
    if scoring.score_names:
        scores = scores.reshape(num_events, len(scoring.score_names))
        for column, name in enumerate(scoring.score_names):
            contents[name] = np.ascontiguousarray(scores[:, column])
    if scoring.decode:
        contents[IS_FINITE] = is_finite
        assert isinstance(encoded, Encoded)  # images are refused before
        decoded = _decoded(rows, encoded, scoring)
        contents |= decoded.contents
        offsets |= decoded.offsets
    scored = Events(num_events, scoring.branches, contents, offsets)
    num_not_finite = num_events - int(np.count_nonzero(is_finite))
    return ScoredPart(scored, encoded.counts, num_not_finite)


def _scored(
    encoded: Encoded | EncodedImages,
    script: Script,
    row_shape: tuple[int, ...],
    *,
    reconstructs: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """The model's scores of all events, its rows, and whether they are finite.

    Unless an autoencoder reconstructs, the rows are the scores.
    """
    torch.set_num_threads(1)  # torch keeps the number per thread; two are slower on shared cores
    step = max(1, min(SLICE, SLICE_BYTES // (4 * math.prod(row_shape))))
    pieces: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    flags: list[NDArray[np.bool_]] = []
    for start in range(0, len(encoded), step):
        rows_of_batch = np.arange(start, min(start + step, len(encoded)))
        x, missing = encoded.inputs(rows_of_batch)
        scores = rows = script.rows_of(x, missing) if reconstructs else script.scores_of(x, missing)
        if reconstructs:
            scores = reconstruction_error(*map(torch.from_numpy, (rows, x, missing))).numpy()
        # A value too large to normalise is infinite in x, which some networks turn into a score.
        # The server refuses such an event.
        is_finite = _are_finite(x) & _are_finite(scores) & _are_finite(rows)
        if not is_finite.all():
            scores, rows = scores.copy(), rows.copy()
            scores[~is_finite] = rows[~is_finite] = np.nan
        pieces.append((scores, rows))
        flags.append(is_finite)
    scores, rows = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return scores, rows, np.concatenate(flags)


def _are_finite(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether all numbers of an event are finite, shape (events,)."""
    flags = np.isfinite(rows.reshape(len(rows), -1))
    return np.asarray(flags.all(axis=1), dtype=np.bool_)


def _decoded(rows: NDArray[np.float32], encoded: Encoded, scoring: Scoring) -> Events:
    encoding = scoring.encoding
    columns = encoding.layout.branch_of_columns()
    whole = np.array([np.dtype(branch.dtype).kind != "f" for branch in encoding.branches])[columns]
    if whole.any():  # integers have no NaN; the branch IS_FINITE tells that they mean nothing
        rows[:, whole] = np.nan_to_num(rows[:, whole], nan=0.0)
    return decoded_events(
        rows,
        encoded.missing(),
        encoding,
        multiplicities=encoded.multiplicities(),
        suffix=scoring.suffix,
    )


_scripts: dict[str, Script] = {}
_lock = Lock()


def _script(scoring: Scoring) -> Script:
    """The TorchScript of this worker, loaded once."""
    with _lock:
        if scoring.digest not in _scripts:
            _scripts.clear()
            _scripts[scoring.digest] = Script(scoring.model)
        return _scripts[scoring.digest]
