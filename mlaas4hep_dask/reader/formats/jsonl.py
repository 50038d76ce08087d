"""Files of JSON lines: one object for each event."""

from __future__ import annotations

from mlaas4hep_dask.reader import text
from mlaas4hep_dask.reader.texttable import TextTable


class Table(TextTable):
    """An open file of JSON lines."""

    def parser(self, head: bytes, suffix: str, *, is_all: bool) -> text.JsonLines:
        """As `TextTable.parser`."""
        del suffix
        return text.JsonLines(head, dict(self.access.types), is_all=is_all)
