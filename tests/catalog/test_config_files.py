import gzip
import json
import logging
import pickle

import dask
import pytest

from mlaas4hep_dask.catalog import resolve_files
from mlaas4hep_dask.config import Config, load
from mlaas4hep_dask.dataset.description import description_of
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


def paths(found):
    return {sample: [file.file for file in files] for sample, files in found.items()}


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
        found = resolve_files(description_of(load("dataset.yaml", overrides)).listing)
        assert list(found) == ["signal", "background"]
        return [file.file.removeprefix(f"{folder}/") for file in found["signal"]]

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
    files = paths(resolve_files(description_of(load(folder / "dataset.yaml")).listing))
    assert files["signal"] == [str(folder / "a.root"), str(folder / "b.root")]


def test_a_mapping_finds_its_files_from_its_base(folder):
    samples = [
        {"name": "s", "label": 1, "files": "a.root"},
        {"name": "b", "label": 0, "files": "b.root"},
    ]
    files = paths(
        resolve_files(
            description_of(Config.from_mapping({"samples": samples}, base=folder)).listing
        )
    )
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
    assert paths(resolve_files(description_of(config).listing))["s"] == [str(inner / "a.root")]
    (folder / "moved.yaml").write_text(config.to_yaml(absolute=True))
    assert resolve_files(description_of(load(folder / "moved.yaml")).listing) == resolve_files(
        description_of(config).listing
    )


@pytest.mark.parametrize("scheme", ["root", "xroot", "http", "https", "s3", "gs", "memory"])
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
        ("a.root:", "expected the name of a tree behind the colon of 'a.root:'"),
        ("c.root:Events", "no such file: "),
        ("data", "expected a file, found the directory 'data'; did you mean 'data/*.root'?"),
        ("data/", "; did you mean 'data/*.root'?"),
        ("data/*.rot", "pattern 'data/*.rot' matches no file from "),
        ("data/*.rot", "; did you mean 'data/*.root'?"),
        ("dat?", "pattern 'dat?' matches only directories from "),
        ("dta/*.root", "pattern 'dta/*.root' matches no file from "),
        (
            "htp://h/a.root",
            "unknown scheme 'htp://'; expected a path, root://, http(s)://, s3://",
        ),
        ("htp://h/a.root", "; did you mean 'http://'?"),
        ("ROOT://h//a.root", "; did you mean 'root://'?"),
        ("roots://h//a.root", "; did you mean 'root://h//a.root'?"),
        ("file:///no/a.root", "no such file: /no/a.root"),
        ("/store/a.root", "a logical file name needs reading.redirector"),
        ("lfn:/store/a.root", "needs reading.redirector"),
        ("rucio://cms", "expected rucio://scope:name"),
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


def test_a_file_url_is_a_local_path(resolve, folder):
    assert resolve(f"file://{folder}/a.root", f"file://{folder}/data/%63.root") == [
        "a.root",
        "data/c.root",
    ]


def test_replicas_are_joined_by_a_bar(resolve, refused):
    both = "root://a//x.root|https://b/x.root"
    assert resolve(both) == [both]
    assert "did you mean 'http://'?" in str(refused("root://a//x.root|htp://b/x.root"))


def with_reading(folder, entry, **reading):
    samples = [
        {"name": "s", "label": 1, "files": entry},
        {"name": "b", "label": 0, "files": "http://h/b.root"},
    ]
    config = Config.from_mapping({"samples": samples, "reading": reading}, base=folder)
    assert load_again(config, folder) == resolve_files(description_of(config).listing)
    return paths(resolve_files(description_of(config).listing))["s"]


def load_again(config, folder):
    (folder / "again.yaml").write_text(config.to_yaml(absolute=True))
    return resolve_files(description_of(load(folder / "again.yaml")).listing)


def test_logical_names_are_found_by_the_redirector_and_nothing_else_is(folder):
    redirector = "root://xrootd.example.org"
    for entry in ("/store/mc/a.root", "lfn:/store/mc/a.root"):
        found = with_reading(folder, entry, redirector=redirector)
        assert found == ["root://xrootd.example.org//store/mc/a.root"]
    over_http = with_reading(folder, "lfn:/x/a.root", redirector="https://h/data")
    assert over_http == ["https://h/data/x/a.root"]
    for typo in ("store/mc/a.root", "/stre/mc/a.root", "data/x.root"):
        with pytest.raises(ConfigError, match="no such file"):
            with_reading(folder, typo, redirector=redirector)


FILESET = {
    "s": {
        "files": {
            "a.root": "Events",
            "root://h//store/x.root": {
                "object_path": "Events",
                "steps": [[0, 50], [50, 80]],
                "num_entries": 80,
                "uuid": "8a4f",
            },
        },
        "metadata": {"year": 2018},
    },
    "other": ["b.root"],
}


@pytest.mark.parametrize("name", ["fileset.json", "fileset.json.gz"])
def test_a_fileset_of_coffea_gives_the_sample_its_files(resolve, folder, name):
    text = json.dumps(FILESET).encode()
    (folder / "data" / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (folder / "data" / "a.root").touch()
    (folder / "data" / "b.root").touch()
    assert resolve(f"data/{name}#s") == ["data/a.root", "root://h//store/x.root"]
    assert resolve(f"data/{name}#other") == ["data/b.root"]
    assert with_reading(folder, f"data/{name}")[1] == "root://h//store/x.root"


@pytest.mark.parametrize(
    ("document", "entry", "message"),
    [
        (FILESET, "f.json#othr", "no data set 'othr'; choose one with '#'"),
        (FILESET, "f.json#othr", "; did you mean 'f.json#other'?"),
        (FILESET, "f.json", "no data set 'signal'; choose one with '#'"),
        ({"s": {"files": {"a.root": "Event"}}}, "f.json", "has the tree 'Event', but the key"),
        (
            {"s": {"files": {"a.root": {"steps": [[0, 5]], "num_entries": 9}}}},
            "f.json",
            "the steps of a.root cover 5 of 9 entries",
        ),
        (
            {"s": {"files": {"a.root": {"steps": [[0, 5], [0, 5]], "num_entries": 10}}}},
            "f.json",
            "the steps of a.root have gaps or overlap; files are read as a whole",
        ),
        (
            {"s": {"files": {"a.root": {"steps": [[0, 5]]}}}},
            "f.json",
            "a.root has steps and no num_entries, by which to tell",
        ),
        (
            {"s": {"files": {"a.root": {"steps": "all", "num_entries": 9}}}},
            "f.json",
            "the steps of a.root are no list of [start, stop]",
        ),
        ({"s": {"files": [1]}}, "f.json", "data set 's' of 'f.json' names 1, expected a path"),
        ({"s": {"files": {"x.root": "Events"}}}, "f.json", "f.json: no such file: "),
        ({"s": {"files": {}}}, "f.json", "names no file"),
        ([1], "f.json", "is no mapping of data sets to files"),
        (None, "f.json", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_fileset_is_named(refused, folder, document, entry, message):
    (folder / "f.json").write_text("{" if document is None else json.dumps(document))
    assert message in str(refused("b.root", entry))


def test_servers_and_time_outs_do_not_change_the_digest(folder):
    samples = [
        {"name": "s", "label": 1, "files": "a.root"},
        {"name": "b", "label": 0, "files": "b.root"},
    ]

    def digest(**reading):
        return Config.from_mapping({"samples": samples, "reading": reading}).digest()

    assert digest(timeout=3, redirector="root://h/", replicas=["http://h/"]) == digest()
    assert digest(types={"x": "float32"}) != digest()


@pytest.mark.filterwarnings("ignore")  # coffea's advice on its interfaces changes with its versions
@pytest.mark.parametrize("form", ["preprocessed", "model"])
def test_what_coffeas_dataset_tools_write_gives_the_files(folder, cms_files, form):
    from coffea.dataset_tools import DataGroupSpec, preprocess

    files = [str(file) for file in cms_files]
    fileset = {
        "s": {"files": {files[0]: "events"}},
        "other": {"files": dict.fromkeys(files[1:], "events")},
    }
    if form == "preprocessed":
        with dask.config.set(scheduler="synchronous"):
            available, _ = preprocess(fileset, step_size=1_000)
        text = json.dumps(available)
        assert '"steps": [[0, ' in text
    else:
        text = DataGroupSpec(fileset).model_dump_json()
    (folder / "f.json").write_text(text)
    samples = [
        {"name": "s", "label": 1, "files": "f.json"},
        {"name": "b", "label": 0, "files": "f.json#other"},
    ]
    config = Config.from_mapping({"samples": samples, "tree": "events"}, base=folder)
    assert paths(resolve_files(description_of(config).listing)) == {"s": files[:1], "b": files[1:]}
