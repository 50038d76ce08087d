"""CSV files, which have a line of names first."""

from __future__ import annotations

from mlaas4hep_dask.reader import text
from mlaas4hep_dask.reader.texttable import TextTable


class Table(TextTable):
    """An open CSV file."""

    def parser(self, head: bytes, suffix: str, *, is_all: bool) -> text.Csv:
        """As `TextTable.parser`."""
        delimiter = self.access.delimiter or ("\t" if suffix == ".tsv" else ",")
        return text.Csv(head, delimiter, dict(self.access.types), is_all=is_all)
