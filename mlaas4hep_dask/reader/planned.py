"""One file of a plan as the client keeps it, and the partitions it is cut into."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlaas4hep_dask.errors import MLaaSError
from mlaas4hep_dask.reader.access import PLAIN, Access, attempt
from mlaas4hep_dask.reader.counts import ReadCounts
from mlaas4hep_dask.reader.opened import forget, open_data
from mlaas4hep_dask.reader.partition import Friend, Partition, TextRange, cut
from mlaas4hep_dask.reader.places import Places
from mlaas4hep_dask.reader.stamp import is_same

# Of a tree, for each partition of it after the first: from so many on, to parse it takes longer
# than to send and unpack what it tells. Who reads several partitions of a file parses it once.
MANY_BRANCHES = 6


@dataclass(frozen=True)
class PlannedFile:
    """One file as the client keeps it, without the list of its branches.

    The attributes are those of `FilePlan`; ``bytes_per_event`` is that of the inputs together,
    ``read_counts`` tells what planning cost beside the plain way, ``is_of_many`` that the data set
    has several trees of the file, ``places`` where the baskets of the inputs lie, and
    ``num_branches`` how many its tree has; ``late`` has those of the inputs that its first
    entries lack.
    """

    file: str
    tree: str
    uuid: str
    sample: str
    num_entries: int
    clusters: tuple[int, ...]
    baskets: tuple[int, ...]
    bytes_per_event: float
    access: Access = PLAIN
    stamp: str = ""
    lines: tuple[tuple[int, int], ...] = ()
    read_counts: ReadCounts = field(default_factory=ReadCounts)
    is_of_many: bool = False
    places: Places | None = None
    num_branches: int = 0
    friends: tuple[Friend, ...] = ()
    late: tuple[str, ...] = ()

    def within(self, max_places: int) -> PlannedFile:
        """Without ``places`` if they take more bytes."""
        if self.places is None or len(self.places) <= max_places:
            return self
        return replace(self, places=None)

    def is_current(self) -> bool:
        """True unless the file has changed since it was planned, or cannot be opened now."""
        try:
            opened = attempt(
                lambda location: open_data(self.file, location, self.tree, self.access),
                self.file,
                self.access,
                forget=forget,
            )
        except MLaaSError:
            return False
        return bool(self.stamp) and is_same(self.stamp, opened.stamp)

    def friends_as_json(self) -> list[Any]:
        """What is read of friend trees, as JSON values."""
        return [each.as_json() for each in self.friends if each.names]

    def partitions(
        self, *, target_bytes: int, max_events: int, num_entries: int
    ) -> list[Partition]:
        """Partitions of the first ``num_entries`` entries.

        Each has at most ``target_bytes`` uncompressed bytes of the inputs, by the file's mean,
        and at most ``max_events`` events.
        """
        limit = max(1, min(max_events, int(target_bytes / max(self.bytes_per_event, 1.0))))
        ranges = cut(num_entries, max_events=limit, clusters=self.clusters, baskets=self.baskets)
        places = self._places(ranges)
        return [
            self._partition(*entries, part) for entries, part in zip(ranges, places, strict=True)
        ]

    def partition(self, entry_start: int, entry_stop: int) -> Partition:
        """The entries [entry_start, entry_stop) of the file."""
        (places,) = self._places([(entry_start, entry_stop)])
        return self._partition(entry_start, entry_stop, places)

    def _places(self, ranges: Sequence[tuple[int, int]]) -> Sequence[Places | None]:
        """What the partitions carry, for which to parse the tree would take long."""
        if self.places is None or self.num_branches < MANY_BRANCHES * (len(ranges) - 1):
            return [None] * len(ranges)
        return self.places.parts(ranges)

    def _partition(self, entry_start: int, entry_stop: int, places: Places | None) -> Partition:
        return Partition(
            self.file,
            self.tree,
            self.uuid,
            entry_start,
            entry_stop,
            self.sample,
            self.access,
            self.stamp,
            self._text(entry_start, entry_stop),
            self.is_of_many,
            places,
            tuple(friend for friend in self.friends if friend.names),
        )

    def _text(self, start: int, stop: int) -> TextRange | None:
        if not self.lines:
            return None
        first = bisect_right(self.lines, start, key=lambda line: line[0]) - 1
        last = bisect_left(self.lines, stop, key=lambda line: line[0])
        (first_entry, byte_start), (end, byte_stop) = self.lines[first], self.lines[last]
        return TextRange(byte_start, byte_stop, first_entry, end - first_entry)
