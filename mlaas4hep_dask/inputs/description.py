"""What a data set is to be, before any of its files is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlaas4hep_dask.catalog import Listing
from mlaas4hep_dask.config import Branches, Encoding, Function, Image, Places, Reading, Split
from mlaas4hep_dask.inputs.prepare import Texts
from mlaas4hep_dask.inputs.supervision import Supervision
from mlaas4hep_dask.reader import Access


@dataclass(frozen=True)
class Description:
    """What a data set is to be: its files, what becomes of events, and what is learned of them.

    Parameters
    ----------
    listing : Listing
        What tells the files of every sample.
    access : Access
        How they are reached and read.
    supervision : Supervision
        How events get a label or targets, and a weight.
    branches : Branches
        Which branches are inputs.
    texts : Texts
        Derived branches, object cuts and the selection.
    function : Function, optional
        The user's function, which gets the events first.
    image : Image, optional
        What events become; None for rows.
    encode : Encoding
        How events become rows of numbers.
    specs_path : str, optional
        The file of specs that are to be used.
    split : Split
        Fractions of events for training, validation and test.
    seed : int
        Of the split.
    max_events : int, optional
        At most this many events of every sample are used.
    skip : bool
        Files that stay unreadable are left out.
    """

    listing: Listing
    access: Access
    supervision: Supervision
    branches: Branches = field(default_factory=Branches)
    texts: Texts = field(default_factory=Texts)
    function: Function | None = None
    image: Image | None = None
    encode: Encoding = field(default_factory=Encoding)
    specs_path: str | None = None
    split: Split = field(default_factory=Split)
    seed: int = 0
    max_events: int | None = None
    skip: bool = False

    @property
    def places(self) -> Places:
        """Where files are, and where keys were written."""
        return self.listing.places


def access_of(reading: Reading, collections: Mapping[str, Sequence[str]] | None = None) -> Access:
    """How files are reached and read, as the keys ``reading`` and ``collections`` say."""
    return Access(
        reading.format,
        tuple(reading.replicas),
        reading.timeout,
        reading.attempts,
        tuple(reading.types.items()),
        reading.delimiter,
        reading.options,
        tuple((name, tuple(patterns)) for name, patterns in (collections or {}).items()),
    )
