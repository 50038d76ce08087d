import bz2
import gzip
import json
import os
from dataclasses import replace

import awkward as ak
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import zstandard

from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.events.events import concatenate
from mlaas4hep_dask.reader import (
    Access,
    Pace,
    plan_file,
    read,
    require_same_branches,
    require_schemes,
)

NUM_EVENTS = 3_000
PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.compress,
}


@pytest.fixture(scope="module")
def columns():
    return made_columns()


def made_columns():
    """Flat columns of several types, and two collections."""
    rng = np.random.default_rng(3)
    num_jets = rng.integers(0, 5, NUM_EVENTS)
    num_hits = rng.integers(0, 3, NUM_EVENTS)
    energy = rng.normal(50, 20, NUM_EVENTS).astype(np.float32)
    energy[::7] = np.nan
    return {
        "run": np.full(NUM_EVENTS, 2**40 + 1),
        "MET": energy,
        "good": rng.random(NUM_EVENTS) < 0.5,
        "Jet_pt": ak.unflatten(rng.exponential(30, num_jets.sum()), num_jets),
        "Jet_n": ak.unflatten(rng.integers(-3, 9, num_jets.sum()), num_jets),
        "Hit": ak.unflatten(rng.random(num_hits.sum()), num_hits),
    }


def rows_of(columns):
    return ak.to_list(ak.zip(columns, depth_limit=1))


def as_json(columns):
    # JSON has no NaN; null stands for it.
    lines = (
        json.dumps({k: None if v != v else v for k, v in row.items()}) for row in rows_of(columns)
    )
    return "\n".join(lines) + "\n"


def as_csv(columns):
    lines = [",".join(columns)]
    for row in rows_of(columns):
        cells = (
            f'"{v}"' if isinstance(v, list) else "" if v != v else str(v) for v in row.values()
        )
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


def write_parquet(path, columns, **options):
    table = pa.table(
        {n: ak.to_arrow(ak.Array(v), extensionarray=False) for n, v in columns.items()}
    )
    pq.write_table(table, path, **options)


def write(path, columns):
    name = path.name
    if ".parquet" in name:
        write_parquet(path, columns, row_group_size=700)
    else:
        text = as_csv(columns) if ".csv" in name else as_json(columns)
        suffix = path.suffix if path.suffix in PACK else ""
        path.write_bytes(PACK[suffix](text.encode()))


def partitions_of(plan, max_events=10**9, target_bytes=1 << 40):
    planned = plan.planned(list(plan.branches))
    limits = {"target_bytes": target_bytes, "max_events": max_events}
    return planned.partitions(**limits, num_entries=plan.num_entries)


def pieces_of(num_bytes):
    """Access by which a small text has several pieces."""
    return Access(pace=Pace(text_bytes=num_bytes))


def all_events(plan, **limits):
    branches = list(plan.branches.values())
    return concatenate([read(part, branches) for part in partitions_of(plan, **limits)])


FILES = [
    "a.parquet",
    *(f"a.{kind}{suffix}" for kind in ("csv", "jsonl") for suffix in PACK),
]


@pytest.mark.parametrize("name", FILES)
def test_flat_and_jagged_columns_are_read_as_they_were_written(name, columns, tmp_path):
    access = pieces_of(1 << 14)
    write(tmp_path / name, columns)
    plan = plan_file(str(tmp_path / name), "Events", "s", access)
    assert plan.num_entries == NUM_EVENTS
    assert list(plan.branches) == list(columns)
    found = {name: (b.kind, b.collection) for name, b in plan.branches.items()}
    assert found == {
        "run": ("flat", None),
        "MET": ("flat", None),
        "good": ("flat", None),
        "Jet_pt": ("jagged", "Jet"),
        "Jet_n": ("jagged", "Jet"),
        "Hit": ("jagged", "Hit"),
    }
    assert plan.branches["run"].dtype == plan.branches["Jet_n"].dtype == "int64"
    assert plan.branches["good"].dtype == "bool"
    for limits in ({}, {"max_events": 700}, {"max_events": 101}, {"target_bytes": 9_000}):
        events = all_events(plan, **limits)
        assert len(events) == NUM_EVENTS
        for column, expected in columns.items():
            if plan.branches[column].kind == "jagged":
                collection = plan.branches[column].collection
                counts = np.diff(events.offsets[collection])
                np.testing.assert_array_equal(counts, ak.num(expected))
                expected = ak.to_numpy(ak.flatten(expected))
            np.testing.assert_array_equal(events.contents[column], expected)


def test_partitions_end_with_row_groups_and_lines(columns, tmp_path):
    access = pieces_of(1 << 14)
    for name in ("a.parquet", "a.csv"):
        write(tmp_path / name, columns)
    plan = plan_file(str(tmp_path / "a.parquet"), "Events", "s", access)
    assert plan.clusters == (700, 1400, 2100, 2800, 3000)
    assert [part.entry_stop for part in partitions_of(plan, 1000)] == [700, 1400, 2100, 3000]
    plan = plan_file(str(tmp_path / "a.csv"), "Events", "s", access)
    parts = partitions_of(plan, 800)
    assert {part.entry_stop for part in parts} <= set(plan.clusters)
    whole = (tmp_path / "a.csv").stat().st_size
    assert all(part.text.byte_stop - part.text.byte_start < whole / 2 for part in parts)


def test_records_become_one_branch_per_member(tmp_path):
    jets = [[{"pt": 1.5, "n": 1}, {"pt": 2.5, "n": 2}], [], [{"pt": 3.5, "n": 3}]]
    rows = [{"MET": {"pt": float(i), "phi": 0.5}, "Jet": jet} for i, jet in enumerate(jets)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ak.to_parquet(ak.Array(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        plan = plan_file(str(tmp_path / name), "Events", "s")
        assert set(plan.branches) == {"MET_pt", "MET_phi", "Jet_pt", "Jet_n"}
        assert plan.branches["Jet_pt"].collection == plan.branches["Jet_n"].collection == "Jet"
        found = all_events(plan).to_awkward()
        assert found.Jet_pt.to_list() == [[1.5, 2.5], [], [3.5]]
        assert found.Jet_n.to_list() == [[1, 2], [], [3]]
        assert found.MET_pt.to_list() == [0.0, 1.0, 2.0]
        only = read(partitions_of(plan)[0], [plan.branches["Jet_n"]])
        assert only.contents["Jet_n"].tolist() == [1, 2, 3]


def test_the_identity_is_that_of_the_content(columns, tmp_path):
    for name in FILES:
        one, two = tmp_path / name, tmp_path / f"copy-{name}"
        write(one, columns)
        two.write_bytes(one.read_bytes())
        os.utime(two, (1, 1))
        plans = [plan_file(str(path), "Events", "s") for path in (one, two)]
        assert plans[0].uuid == plans[1].uuid, name
        write(two, {**columns, "MET": columns["MET"] + 1})
        assert plan_file(str(two), "Events", "s").uuid != plans[0].uuid, name


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl.gz"])
def test_a_table_that_changes_or_grows_between_plan_and_read_is_noticed(name, columns, tmp_path):
    path = tmp_path / name
    write(path, columns)
    plan = plan_file(str(path), "Events", "s")
    all_events(plan)
    write(path, {n: ak.concatenate([v, v[:5]]) for n, v in columns.items()})
    with pytest.raises(DataError, match="has changed since it was planned") as caught:
        all_events(plan)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz", "a.jsonl.bz2", "a.csv.zst"])
def test_a_truncated_table_is_never_read_as_if_it_were_whole(name, columns, tmp_path):
    write(tmp_path / name, columns)
    content = (tmp_path / name).read_bytes()
    for part in (0.0, 0.1, 0.5, 0.95):
        (tmp_path / name).write_bytes(content[: int(part * len(content))])
        with pytest.raises((UnreadableFileError, DataError), match=name):
            plan_file(str(tmp_path / name), "Events", "s")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_a_compressed_text_that_ends_too_early_is_unreadable(suffix, tmp_path):
    lines = np.random.default_rng(0).integers(10**8, 10**9, 400_000)
    content = "x\n" + "".join(f"{line}\n" for line in lines)
    packed = PACK[suffix](content.encode())
    path = tmp_path / f"a.csv{suffix}"
    sizes = [int(part * len(packed)) for part in (0.3, 0.6, 0.99)]
    for size in (*sizes, len(packed) - 1):
        path.write_bytes(packed[:size])
        with pytest.raises(UnreadableFileError, match=r"end|Truncated compressed stream"):
            plan_file(str(path), "Events", "s")
    path.write_bytes(packed)
    assert plan_file(str(path), "Events", "s").num_entries == len(lines)


@pytest.mark.parametrize(
    ("name", "head", "line"),
    [("a.csv", "x,y\n", "1.5,2\n"), ("a.jsonl", "", '{"x": 1.5, "y": 2}\n')],
)
def test_a_text_that_is_cut_short_within_a_row_is_unreadable(name, head, line, tmp_path):
    access = pieces_of(1 << 12)
    path = text_file(tmp_path, name, head + line * 4_000 + line[:3])
    plan = plan_file(path, "Events", "s", access)
    *whole, cut = partitions_of(plan, 1_000)
    branches = list(plan.branches.values())
    assert all(set(read(part, branches).contents["x"]) == {1.5} for part in whole)
    with pytest.raises(UnreadableFileError, match=f"{name}: .*parse error"):
        read(cut, branches)
    with pytest.raises(UnreadableFileError, match=name):
        plan_file(text_file(tmp_path, f"short_{name}", head + line[:3]), "Events", "s", access)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_a_compressed_text_may_be_joined_of_several(suffix, columns, tmp_path):
    content = as_csv(columns).encode()
    half = len(content) // 2
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(PACK[suffix](content[:half]) + PACK[suffix](content[half:]))
    assert plan_file(str(path), "Events", "s").num_entries == NUM_EVENTS


@pytest.mark.parametrize(("name", "blank"), [("a.csv", "MET,Jet_pt\n"), ("a.jsonl", "")])
def test_a_text_without_rows_fits_all_others(name, blank, columns, tmp_path):
    write(tmp_path / name, columns)
    whole = plan_file(str(tmp_path / name), "Events", "s")
    (tmp_path / f"blank_{name}").write_text(blank)
    empty = plan_file(str(tmp_path / f"blank_{name}"), "Events", "s")
    assert empty.num_entries == 0
    require_same_branches(whole, empty, ["MET", "Jet_pt"])
    planned = empty.planned(["MET", "Jet_pt"])
    assert planned.partitions(target_bytes=1_000, max_events=10, num_entries=0) == []


def test_a_text_without_rows_whose_header_lacks_an_input_is_refused(columns, tmp_path):
    write(tmp_path / "a.csv", columns)
    whole = plan_file(str(tmp_path / "a.csv"), "Events", "s")
    answer = text_file(tmp_path, "b.csv", "<html>please log in</html>")
    with pytest.raises(DataError, match=r"'MET' is missing .*b\.csv; .*2 branches are missing"):
        require_same_branches(whole, plan_file(answer, "Events", "s"), ["MET", "Jet_pt"])


def text_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "num_entries"),
    [
        ("a.csv", "x,y\n1,2\n\n3,4", 2),
        ("a.csv", "x,y\r\n1,2\r\n\r\n3,4\r\n\r\n", 2),
        ("a.csv", "x,y\n", 0),
        ("a.csv", "\ufeffx,y\n1,2\n", 1),
        ("a.tsv", "x\ty\n1\t2\n", 1),
        ("a.jsonl", '{"x": 1, "y": 2}\n\n{"x": 3, "y": 4}', 2),
        ("a.ndjson", "", 0),
    ],
)
def test_blank_lines_and_ends_of_lines_do_not_count(name, content, num_entries, tmp_path):
    (tmp_path / name).write_bytes(content.encode())
    plan = plan_file(str(tmp_path / name), "Events", "s")
    assert plan.num_entries == num_entries
    if num_entries:
        assert all_events(plan).contents["x"].tolist() == [1, 3][:num_entries]


def test_many_pieces_of_blank_lines_keep_the_entries_in_place(tmp_path):
    access = pieces_of(16)
    lines = "".join(f"{i}\n" + "\r\n" * (i % 23) for i in range(300))
    plan = plan_file(text_file(tmp_path, "a.csv", f"x\n{lines}"), "Events", "s", access)
    assert plan.num_entries == 300
    for size in (1, 7, 300):
        parts = partitions_of(plan, size)
        found = [read(part, list(plan.branches.values())).contents["x"] for part in parts]
        assert np.concatenate(found).tolist() == list(range(300))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"x": 1} {"x": 2}\n{"x": 3}\n', "2 lines after entry 0 hold 3 rows"),
        ("a.jsonl", '{\n"x": 1}\n', "2 lines after entry 0 hold 1 rows"),
        ("a.jsonl", '{"x": 1}\n  \n', "2 lines after entry 0 hold 1 rows"),
        ("a.csv", 'x,y\n1,"[1,\n2]"\n', "2 lines after entry 0 hold 1 rows"),
    ],
)
def test_lines_that_are_not_one_row_each_are_refused(name, content, message, tmp_path):
    plan = plan_file(text_file(tmp_path, name, content), "Events", "s")
    with pytest.raises(DataError, match=message):
        read(partitions_of(plan, 1)[0], [plan.branches["x"]])


def test_what_cannot_be_an_input_is_left_out_with_the_reason(tmp_path):
    content = '{"x": 1, "name": "a", "empty": null, "deep": [[1], [2]], "no": []}\n'
    plan = plan_file(text_file(tmp_path, "a.jsonl", content), "Events", "s")
    assert list(plan.branches) == ["x"]
    assert plan.left_out["name"] == "a string"
    assert "reading.types" in plan.left_out["empty"]
    assert "doubly nested" in plan.left_out["deep"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "header is missing"),
        ("a.csv", "1.5,2\n3,4\n", "the first line holds numbers"),
        ("a.csv", "x,x\n1,2\n", "two columns are called 'x'"),
        ("a.csv", "x,y\n1,2\n3\n", "Expected 2 columns, got 1"),
        ("a.jsonl", '[{"x": 1}]', "expected one JSON object per line"),
        ("a.jsonl", '{"x": 1}\n{"x": "a"}\n', "x"),
        ("a.jsonl", "{nonsense", "JSON"),
        ("a.parquet", "no parquet at all", "PAR1"),
    ],
)
def test_what_is_no_table_is_named(name, content, message, tmp_path):
    with pytest.raises((DataError, UnreadableFileError), match=message) as caught:
        plan_file(text_file(tmp_path, name, content), "Events", "s")
    assert name in str(caught.value)
    is_of_another_type = " changed from " in str(caught.value)
    assert isinstance(caught.value, UnreadableFileError) != is_of_another_type


@pytest.mark.parametrize(
    ("name", "first", "later"),
    [
        ("a.csv", "x,y\n" + "1,2\n" * 4000, "1.5,2\n"),
        ("a.csv", "x,y\n" + "1,2\n" * 4000, "many,2\n"),
        ("a.csv", "x,y\n" + "1,2\n" * 4000, ",2\n"),
        ("a.csv", "x,y\n" + '"[1, 2]",2\n' * 4000, '"1, 2",2\n'),
        ("a.jsonl", '{"x": 1, "y": 2}\n' * 4000, '{"x": 1.5, "y": 2}\n'),
        ("a.jsonl", '{"x": 1, "y": 2}\n' * 4000, '{"x": "many", "y": 2}\n'),
        ("a.jsonl", '{"x": [1], "y": 2}\n' * 4000, '{"x": null, "y": 2}\n'),
        ("a.jsonl", '{"x": 1, "y": 2}\n' * 4000, '{"y": 2}\n'),
    ],
)
def test_a_value_of_another_type_further_down_is_named(name, first, later, tmp_path):
    access = pieces_of(1 << 12)
    plan = plan_file(text_file(tmp_path, name, first + later), "Events", "s", access)
    assert plan.num_entries == 4001
    with pytest.raises(DataError, match="'x'") as caught:
        all_events(plan)
    assert name in str(caught.value)
    y = read(partitions_of(plan)[0], [plan.branches["y"]])
    assert y.contents["y"].tolist() == [2] * 4001


def test_a_given_type_holds_where_the_first_lines_tell_another(tmp_path):
    types = (("x", "float32"), ("Jet_pt", "float32"))
    access = replace(pieces_of(1 << 12), types=types)
    csv = "x,Jet_pt\n" + '1,"[1]"\n' * 4000 + '1.5,"[2.5, 3]"\n,[]\n'
    lines = '{"x": 1, "Jet": [{"pt": 1}]}\n' * 4000
    lines += '{"x": 1.5, "Jet": [{"pt": 2.5}, {"pt": 3}]}\n{"x": null, "Jet": []}\n'
    for name, content in (("a.csv", csv), ("a.jsonl", lines)):
        plan = plan_file(text_file(tmp_path, name, content), "Events", "s", access)
        assert {branch.dtype for branch in plan.branches.values()} == {"float32"}
        events = all_events(plan)
        assert events.contents["x"][-2] == 1.5
        assert np.isnan(events.contents["x"][-1])
        assert events.contents["Jet_pt"][-2:].tolist() == [2.5, 3.0]


def test_integers_that_are_null_need_a_float_type(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": pa.array([1, None, 3])}), path)
    with pytest.raises(DataError, match="'n' has 1 values that are null"):
        all_events(plan_file(str(path), "Events", "s"))
    plan = plan_file(str(path), "Events", "s", Access(types=(("n", "float64"),)))
    np.testing.assert_array_equal(all_events(plan).contents["n"], [1, np.nan, 3])


def test_lists_that_stop_to_agree_are_not_read_as_one_collection(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {"J_a": [[1.0]] * 2000 + [[1.0, 2.0]], "J_b": [[1.0]] * 2001}
    pq.write_table(pa.table(columns), path)
    plan = plan_file(str(path), "Events", "s")
    with pytest.raises(DataError, match=r"'J_b' has other multiplicities .* 'J'"):
        all_events(plan)


def test_a_column_that_one_file_lacks_is_named_with_both(tmp_path):
    plans = [
        plan_file(text_file(tmp_path, name, content), "Events", "s")
        for name, content in (
            ("a.csv", "x,y\n1,2\n"),
            ("b.csv", "x\n1\n"),
            ("c.csv", "x,y\n1.5,2\n"),
        )
    ]
    with pytest.raises(DataError, match=r"'y' is missing .*b\.csv; it is flat int64 in .*a\.csv"):
        require_same_branches(plans[0], plans[1], ["x", "y"])
    with pytest.raises(DataError, match=r"flat float64 .* but flat int64 .*reading\.types"):
        require_same_branches(plans[0], plans[2], ["x", "y"])


def test_the_format_can_be_given(tmp_path):
    path = text_file(tmp_path, "table", "x;y\n1;2\n")
    plan = plan_file(path, "Events", "s", Access("csv", delimiter=";"))
    assert all_events(plan).contents["y"].tolist() == [2]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz", "a.jsonl"])
def test_tables_are_read_from_any_file_system_of_fsspec(name, columns, tmp_path):
    write(tmp_path / name, columns)
    url = f"memory://{tmp_path.name}/{name}"
    with fsspec.open(url, "wb") as out:
        out.write((tmp_path / name).read_bytes())
    local, remote = (plan_file(file, "E", "s") for file in (str(tmp_path / name), url))
    assert remote.uuid == local.uuid
    for column, content in all_events(local).contents.items():
        np.testing.assert_array_equal(all_events(remote, max_events=999).contents[column], content)
    write(tmp_path / name, {n: v[:9] for n, v in columns.items()})
    with fsspec.open(url, "wb") as out:
        out.write((tmp_path / name).read_bytes())
    read_anew(url)
    with pytest.raises(DataError, match="has changed"):
        all_events(remote)


def read_anew(url):
    """As another worker would: nothing of the file is known."""
    from mlaas4hep_dask.reader.opened import forget

    forget(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [("adl://x/a.root", "adlfs"), ("box://x/a.csv", "boxfs"), ("oss://b/a.parquet", "ossfs")],
)
def test_a_package_that_is_missing_is_named(url, message):
    with pytest.raises(DataError, match=message):
        require_schemes([url], Access())


def test_a_file_of_pandas_style_integers_keeps_its_columns(tmp_path):
    path = tmp_path / "a.csv"
    table = pa.table({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5], "c": [True, False, True]})
    pa_csv.write_csv(table, path)
    events = all_events(plan_file(str(path), "E", "s"))
    assert events.contents["a"].tolist() == [1, 2, 3]
    assert events.contents["c"].tolist() == [True, False, True]


def test_half_precision_is_read_as_single_precision(tmp_path):
    half = [np.float16(value) for value in (0.5, 1.5, 2.5)]
    table = pa.table({"x": pa.array(half), "v": pa.array([half[:1], [], half[1:]])})
    pq.write_table(table, tmp_path / "a.parquet")
    plan = plan_file(str(tmp_path / "a.parquet"), "", "s")
    events = read(plan.planned([]).partition(0, 3), list(plan.branches.values()))
    for name in ("x", "v"):
        assert plan.branches[name].dtype == "float32"
        np.testing.assert_array_equal(events.contents[name], np.float32([0.5, 1.5, 2.5]))
