"""Files of records that somebody is writing to, or was when it was killed."""

import json

from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.journal.lines import lines_of

RECORDS = st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), min_size=1)


@given(RECORDS, st.data())
def test_all_records_before_the_one_that_was_cut_are_there(tmp_path_factory, records, data):
    lines = [json.dumps(record).encode() + b"\n" for record in records]
    content = b"".join(lines)
    cut = data.draw(st.integers(0, len(content)))
    file = tmp_path_factory.mktemp("lines") / "jobs.jsonl"
    file.write_bytes(content[:cut])
    whole = max(n for n in range(len(lines) + 1) if len(b"".join(lines[:n])) <= cut)
    ends = [len(b"".join(lines[: n + 1])) - 1 for n in range(len(lines))]  # without the line's end
    assert list(lines_of(file)) == records[: whole + (cut in ends)]


def test_lines_of_other_things_and_files_that_are_not_there_hold_no_records(tmp_path):
    file = tmp_path / "jobs.jsonl"
    assert list(lines_of(file)) == []
    file.write_bytes(b'[1]\n"text"\n\xff\xfe\n{"event": "told"}\n7\n')
    assert list(lines_of(file)) == [{"event": "told"}]
