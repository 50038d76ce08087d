import logging
import pickle

import pytest

from mlaas4hep_dask.config import Config, load, resolve_files
from mlaas4hep_dask.errors import ConfigError

TEXT = """\
samples:
  - name: signal
    label: 1
    files:
{entries}
  - name: background
    label: 0
    files: root://host.example//store/b.root
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.root", "b.root", "data/c.root", "data/d.root", "data/deep/e.root"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def resolve(folder):
    def _resolve(*entries, background=None):
        text = TEXT.format(entries="\n".join(f"      - '{entry}'" for entry in entries))
        (folder / "dataset.yaml").write_text(text)
        overrides = [f"samples.1.files={background}"] if background else []
        found = resolve_files(load("dataset.yaml", overrides))
        assert list(found) == ["signal", "background"]
        return [file.removeprefix(f"{folder}/") for file in found["signal"]]

    return _resolve


@pytest.fixture
def refused(resolve):
    def _refused(*entries, **more):
        with pytest.raises(ConfigError) as caught:
            resolve(*entries, **more)
        return caught.value

    return _refused


def test_files_keep_the_order_of_the_yaml(resolve):
    assert resolve("b.root", "a.root", "data/c.root") == ["b.root", "a.root", "data/c.root"]


def test_local_files_become_absolute_from_the_folder_of_the_yaml(resolve, folder, monkeypatch):
    assert resolve(f"{folder}/a.root", "data/../b.root") == ["a.root", "b.root"]
    monkeypatch.chdir("/")
    files = resolve_files(load(folder / "dataset.yaml"))
    assert files["signal"] == [str(folder / "a.root"), str(folder / "b.root")]


def test_a_mapping_finds_its_files_from_its_base(folder):
    samples = [
        {"name": "s", "label": 1, "files": "a.root"},
        {"name": "b", "label": 0, "files": "b.root"},
    ]
    files = resolve_files(Config.from_mapping({"samples": samples}, base=folder))
    assert files == {"s": [str(folder / "a.root")], "b": [str(folder / "b.root")]}


def test_a_glob_is_sorted_and_stars_cross_folders(resolve):
    assert resolve("*.root") == ["a.root", "b.root"]
    assert resolve("[b]?root") == ["b.root"]
    assert resolve("data/**/*.root") == ["data/c.root", "data/d.root", "data/deep/e.root"]
    assert resolve("data/*") == ["data/c.root", "data/d.root"]


def test_a_file_called_like_a_pattern_is_that_file(resolve, folder):
    (folder / "x[1].root").touch()
    (folder / "x1.root").touch()
    assert resolve("x[1].root") == ["x[1].root"]


def test_a_glob_works_in_a_folder_called_like_a_pattern(folder):
    inner = folder / "run[1]"
    inner.mkdir()
    (inner / "a.root").touch()
    samples = [
        {"name": "s", "label": 1, "files": "*.root"},
        {"name": "b", "label": 0, "files": "http://h/b"},
    ]
    config = Config.from_mapping({"samples": samples}, base=inner)
    assert resolve_files(config)["s"] == [str(inner / "a.root")]
    (folder / "moved.yaml").write_text(config.to_yaml(absolute=True))
    assert resolve_files(load(folder / "moved.yaml")) == resolve_files(config)


@pytest.mark.parametrize("scheme", ["root", "roots", "xroot", "http", "https"])
def test_a_url_stays_as_it_is_written(resolve, scheme):
    url = f"{scheme}://host:1094//store/$X/*.root?a=b"
    assert resolve(url) == [url]


def test_home_and_variables_are_expanded(resolve, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("PLACE", "data")
    assert resolve("~/a.root", "$PLACE/c.root", "${PLACE}/d*.root") == [
        "a.root",
        "data/c.root",
        "data/d.root",
    ]


def test_a_list_names_one_entry_per_line_from_its_own_folder(resolve, folder):
    (folder / "data/list.txt").write_text(
        "# all of it\n\nd.root  # the second\n  c.root\n../a.root\ndeep/*.root\nroot://h//x#1.root\n"
    )
    expected = ["data/d.root", "data/c.root", "a.root", "data/deep/e.root", "root://h//x#1.root"]
    assert resolve("data/list.txt") == expected
    (folder / "data/list.txt").rename(folder / "data/list.lst")
    assert resolve("@data/list.lst") == expected


def test_a_file_named_twice_is_kept_once_with_a_warning(resolve, folder, caplog):
    (folder / "link.root").symlink_to(folder / "a.root")
    with caplog.at_level(logging.WARNING):
        assert resolve("a.root", "*.root", "link.root") == ["a.root", "b.root"]
    (record,) = caplog.records
    assert "sample 'signal' names files twice, kept once" in record.getMessage()
    assert f"{folder}/link.root" in record.getMessage()


def test_a_file_of_two_samples_is_refused(refused, folder):
    (folder / "link.root").symlink_to(folder / "a.root")
    error = refused("a.root", background="'[ab].root'")
    assert "override" in str(error)
    assert "samples[1].files[0]: sample 'signal' has the same files as 'background': " in str(error)
    assert f"{folder}/a.root" in str(error)
    assert "b.root" not in str(error)
    assert "same files" in str(refused("a.root", background="link.root"))
    assert "same files" in str(refused("root://h//a", background="root://h//a"))


def test_a_missing_file_names_the_nearest_in_its_folder(refused, folder):
    error = refused("a.root", "data/c.rot")
    assert str(error) == (
        f"dataset.yaml:6: samples[0].files[1]: no such file: {folder}/data/c.rot; "
        "did you mean 'c.root'?"
    )
    assert (error.file, error.line) == ("dataset.yaml", 6)
    assert (error.key, error.nearest) == ("samples.0.files.1", "c.root")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301


def test_all_wrong_files_are_listed(refused):
    lines = str(refused("x.root", "a.root", "htp://h/a.root")).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["dataset.yaml:5", "dataset.yaml:7"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("dta/c.root", "; there is no directory "),
        ("$NOT_SET/c.root", "; the variable $NOT_SET is not set"),
        ("a.root:Events", "; the tree is named by the key 'tree'"),
        ("data", "expected a file, found the directory 'data'; did you mean 'data/*.root'?"),
        ("data/", "; did you mean 'data/*.root'?"),
        ("data/*.rot", "pattern 'data/*.rot' matches no file from "),
        ("data/*.rot", "; did you mean 'data/*.root'?"),
        ("dat?", "pattern 'dat?' matches only directories from "),
        ("dta/*.root", "pattern 'dta/*.root' matches no file from "),
        (
            "htp://h/a.root",
            "unknown scheme 'htp://'; expected a path or root://, roots://, xroot://,",
        ),
        ("htp://h/a.root", "; did you mean 'http://'?"),
        ("ROOT://h//a.root", "; did you mean 'root://'?"),
        ("s3://b/a.root", "unknown scheme 's3://'"),
        ("file:///a.root", "without 'file://'; did you mean '/a.root'?"),
        ("root://", "expected a host and a path, found 'root://'"),
        ("missing.txt", "no such file: "),
        ("@data", "expected a list of files, found the directory "),
        ("empty.txt", "empty.txt' names no file"),
        ("latin.txt", "latin.txt' is not UTF-8 text"),
        ("outer.txt", "outer.txt:2: a list cannot name another list, found 'inner.txt'"),
        ("typo.txt", "typo.txt:3: no such file: "),
        ("typo.txt", "; did you mean 'a.root'?"),
        ("e*.t?t", "pattern 'e*.t?t' matches the text file 'empty.txt'; name lists one by one"),
        ("[e]*.txt", "pattern '[e]*.txt' matches the text file 'empty.txt'"),
    ],
)
def test_what_is_no_file_is_refused_at_its_line(refused, folder, entry, message):
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "latin.txt").write_bytes(b"\xe9.root\n")
    (folder / "outer.txt").write_text("a.root\ninner.txt\n")
    (folder / "typo.txt").write_text("\nb.root\na.rooot\n")
    error = refused("b.root", entry)
    assert str(error).startswith("dataset.yaml:6: samples[0].files[1]: ")
    assert message in str(error)


def test_a_device_is_no_file(refused):
    assert "expected a regular file: /dev/null" in str(refused("/dev/null"))
