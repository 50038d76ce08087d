"""Journal: what a run tells while it works, one line for each fact, appended to a file."""

from mlaas4hep_dask.journal.journal import Advance, Journal
from mlaas4hep_dask.journal.process import birth_of
from mlaas4hep_dask.journal.read import Entry, Records, read
from mlaas4hep_dask.journal.records import (
    SPLITS,
    Caution,
    Death,
    End,
    Epoch,
    LostRange,
    Message,
    Note,
    Other,
    Outcome,
    Progress,
    Record,
    Retries,
    Run,
    Samples,
    Scores,
    Stage,
    StageEnd,
)
from mlaas4hep_dask.journal.tail import Tail
from mlaas4hep_dask.journal.text import text

__all__ = [
    "SPLITS",
    "Advance",
    "Caution",
    "Death",
    "End",
    "Entry",
    "Epoch",
    "Journal",
    "LostRange",
    "Message",
    "Note",
    "Other",
    "Outcome",
    "Progress",
    "Record",
    "Records",
    "Retries",
    "Run",
    "Samples",
    "Scores",
    "Stage",
    "StageEnd",
    "Tail",
    "birth_of",
    "read",
    "text",
]
