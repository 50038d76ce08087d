import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_origin

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from paths import REPOSITORY
from pydantic import BaseModel
from strategies import num_examples

from mlaas4hep_dask.config import (
    Branches,
    Cluster,
    Config,
    Places,
    json_schema,
    load,
    problems,
    select_branches,
    synonyms,
)
from mlaas4hep_dask.config.fields import bare
from mlaas4hep_dask.config.sections import Sample
from mlaas4hep_dask.errors import ConfigError

PAGE = REPOSITORY / "docs" / "reference" / "dataset-yaml.md"

MINIMAL = """\
samples:
  - name: ttH
    label: 1
    files: ttH.root
  - name: QCD
    label: 0
    files: [QCD_1.root, QCD_2.root]
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def _write(text, name="dataset.yaml"):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(data)
        return name

    return _write


@pytest.fixture
def refused(write):
    def _refused(text, *overrides):
        with pytest.raises(ConfigError) as caught:
            load(write(text), overrides)
        return caught.value

    return _refused


def test_only_samples_are_required(write):
    config = load(write(MINIMAL, "ttH-v1.yaml"))
    assert config.name == "ttH-v1"
    assert config.output == "runs/ttH-v1"
    assert config.samples[0].files == ["ttH.root"]
    assert config.branches.include == ["*"]
    assert config.partition.target_bytes == 64 * 1024 * 1024
    assert config.source == Path("ttH-v1.yaml").absolute()
    assert config.base == Path.cwd()


def test_a_mapping_makes_the_same_config_as_the_file(write):
    mapping = yaml.safe_load(MINIMAL)
    assert Config.from_mapping(mapping) == load(write(MINIMAL))
    assert Config.from_mapping(mapping).source is None
    assert hash(Config.from_mapping(mapping)) == hash(load(write(MINIMAL)))


def test_relative_files_of_a_mapping_start_from_its_base(tmp_path):
    config = Config.from_mapping(yaml.safe_load(MINIMAL), base=tmp_path)
    assert config.resolve("models/../net.py") == tmp_path / "net.py"


@pytest.mark.slow
def test_importing_the_config_loads_nothing_heavy():
    code = "import sys, mlaas4hep_dask.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"dask", "uproot", "torch", "awkward", "numpy"} & set(done.stdout.split())


def test_a_config_cannot_be_changed(write):
    config = load(write(MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_a_config_survives_pickling_with_its_lines(write):
    config = load(write(MINIMAL))
    copy = pickle.loads(pickle.dumps(config))  # noqa: S301
    assert copy == config
    assert copy.where("samples.1.label") == "dataset.yaml:6"
    assert copy.base == config.base


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-03", "0.001", ".001", "+1e-3"])
def test_every_spelling_of_a_number_in_yaml_12_is_a_number(write, text):
    config = load(write(MINIMAL + f"training: {{learning_rate: {text}}}\n"))
    assert config.training.learning_rate == 0.001


def test_yaml_12_has_no_dates_and_no_yes(write):
    text = "model: {kwargs: {a: 2024-01-01, b: no, c: 0o17, d: 010, e: 0x1F, f: 1_0, on: 1}}\n"
    kwargs = load(write(MINIMAL + text)).model.kwargs
    assert kwargs == {"a": "2024-01-01", "b": "no", "c": 15, "d": 10, "e": 31, "f": "1_0", "on": 1}


def test_a_whole_number_is_accepted_for_a_number(write):
    config = load(write(MINIMAL), ["samples.0.weight=2"])
    assert config.samples[0].weight == 2.0
    assert isinstance(config.samples[0].weight, float)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("64 MB", 64 * 10**6),
        ("64MiB", 64 * 2**20),
        ("1.5 GB", 1_500_000_000),
        ("10k", 10_000),
        ("0.1 TiB", round(2**40 / 10)),
        ("512 B", 512),
        (4096, 4096),
    ],
)
def test_sizes_have_decimal_and_binary_units(text, expected):
    mapping = yaml.safe_load(MINIMAL) | {"partition": {"target_bytes": text}}
    assert Config.from_mapping(mapping).partition.target_bytes == expected


@pytest.mark.parametrize(
    "text", ["64", "64 XB", "-1 MB", "MB", "1e3 MB", "", "0 MB", "1 iB", "1 MB"]
)
def test_a_wrong_size_is_refused(text):
    mapping = yaml.safe_load(MINIMAL) | {"cluster": {"memory_limit": text}}
    with pytest.raises(ConfigError, match=r"config: cluster\.memory_limit: expected "):
        Config.from_mapping(mapping)


def test_anchors_and_merge_keys_are_expanded(write):
    config = load(
        write(
            "samples:\n"
            "  - &first {name: a, label: 1, files: &f [a.root], weight: 3}\n"
            "  - <<: *first\n"
            "    name: b\n"
            "    label: 0\n"
            "  - {name: c, label: 0, files: *f}\n"
        )
    )
    assert [sample.weight for sample in config.samples] == [3, 3, 1]
    assert config.samples[2].files == ["a.root"]
    assert config.where("samples.1.name") == "dataset.yaml:4"


def test_where_falls_back_to_the_section_around(write):
    config = load(write(MINIMAL + "branches:\n  include: ['*']\n"), ["seed=3"])
    assert config.line_of("branches.include.0") == 9
    assert config.line_of("branches.exclude.0") == 8
    assert config.line_of("samples.0.files.0") == 4
    assert config.line_of("training.epochs") is None
    assert config.where("training.epochs") == "dataset.yaml"
    assert config.line_of("seed") is None
    assert config.where("seed") == "override 'seed=3'"


def test_the_output_can_name_the_model(write):
    assert load(write(MINIMAL), ["output=out/{name}", "name=x"]).output == "out/x"
    assert load(write(MINIMAL), ["output=null"]).output == "runs/dataset"


def test_the_digest_ignores_where_work_runs_and_output_goes(write):
    config = load(write(MINIMAL))
    assert re.fullmatch("[0-9a-f]{64}", config.digest())
    same = load("dataset.yaml", ["cluster.workers=3", "output=elsewhere"])
    assert same != config
    assert same.digest() == config.digest()
    for change in ("seed=1", "samples.0.weight=2", "model.kwargs.a=1", "on_bad_file=skip"):
        assert load("dataset.yaml", [change]).digest() != config.digest()


def test_yaml_with_absolute_paths_means_the_same_in_another_folder(write, tmp_path):
    text = MINIMAL.replace("ttH.root", "['*.root', '@l.lst', 'root://h//a.root']")
    config = load(write(text), ["model.callable=net.py:build", "cache=./blocks"])
    moved = Config.from_mapping(yaml.safe_load(config.to_yaml(absolute=True)), base="/")
    assert moved.samples[0].files == [
        f"{tmp_path}/*.root",
        f"@{tmp_path}/l.lst",
        "root://h//a.root",
    ]
    assert moved.model.callable == f"{tmp_path}/net.py:build"
    assert moved.cache == f"{tmp_path}/blocks"


_text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
_slug = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,8}\Z")
_positive = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(["1e5", "no", "0o7", "08", "<<", "=", "~", "2024-01-01", "1:30", ".inf"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_seed = st.integers(0, 2**63 - 1)
_documents = st.fixed_dictionaries(
    {
        "samples": st.tuples(_slug, _slug, st.lists(_text, min_size=1, max_size=3), _positive)
        .filter(lambda parts: parts[0] != parts[1])
        .map(
            lambda parts: [
                {"name": parts[0], "label": 0, "files": parts[2], "weight": parts[3]},
                {"name": parts[1], "label": 1, "files": parts[2][0]},
            ]
        )
    },
    optional={
        "name": _slug,
        "tree": _text.filter(bare),
        "branches": st.fixed_dictionaries(
            {}, optional={"include": st.lists(_text, min_size=1), "exclude": st.lists(_text)}
        ),
        "max_events": st.none() | st.integers(1, 10**12),
        "partition": st.fixed_dictionaries(
            {}, optional={"target_bytes": st.integers(1) | st.sampled_from(["64 MB", "1.5GiB"])}
        ),
        "seed": _seed
        | st.fixed_dictionaries({}, optional={"split": _seed, "order": _seed, "weights": _seed}),
        "model": st.fixed_dictionaries({"kwargs": st.dictionaries(_text, _json, max_size=4)}),
        "training": st.fixed_dictionaries({}, optional={"learning_rate": _positive}),
        "output": st.none() | _text,
        "on_bad_file": st.sampled_from(["error", "skip"]),
    },
)


@num_examples(60)
@given(document=_documents)
def test_the_yaml_of_a_config_loads_back_to_it(tmp_path_factory, document):
    config = Config.from_mapping(document)
    path = tmp_path_factory.mktemp("round") / "other.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8", newline="")
    assert load(path) == config
    assert load(path).digest() == config.digest()


@num_examples(60)
@given(document=_documents)
def test_the_schema_accepts_what_the_models_accept(document):
    config = Config.from_mapping(document)
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(document)
    validator.validate(json.loads(config.model_dump_json()))


@num_examples(60)
@given(
    change=st.sampled_from(
        [
            ("seed", "7"),
            ("seed.weights", "7"),
            ("training.epochs", "3"),
            ("training.learning_rate", "1e-2"),
            ("samples.0.weight", "2"),
            ("samples.1.files.0", "x.root"),
            ("samples.0.files", "[a.root, b.root]"),
            ("branches.exclude", "['*_gen', b]"),
            ("model.kwargs.hidden", "[1, {a: 2}]"),
            ("model.kwargs", "{x: ~}"),
            ("output", "null"),
            ("cluster.memory_limit", "4 GB"),
        ]
    ),
    name=st.booleans(),
)
def test_an_override_equals_editing_the_file(tmp_path_factory, change, name):
    folder = tmp_path_factory.mktemp("override")
    (folder / "dataset.yaml").write_text(MINIMAL)
    key, value = change
    document = yaml.safe_load(MINIMAL)
    container = document
    *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in parents:
        container = (
            container[part] if isinstance(container, list) else container.setdefault(part, {})
        )
    container[last] = yaml.safe_load(value.replace("1e-2", "0.01"))
    overrides = [f"{key}={value}"]
    if name:
        document["name"] = "other"
        overrides.append("name=other")
    (folder / "edited").mkdir()
    (folder / "edited" / "dataset.yaml").write_text(yaml.safe_dump(document))
    assert load(folder / "dataset.yaml", overrides) == load(folder / "edited" / "dataset.yaml")


def test_the_last_of_two_overrides_wins(write):
    assert load(write(MINIMAL), ["seed=1", "seed=2"]).seed.order == 2


@pytest.mark.parametrize(
    ("text", "change", "expected"),
    [
        ("seed: 3", [], 3),
        ("seed: {split: 3, order: 3, weights: 3}", [], 3),
        ("seed: {weights: 3}", [], {"split": 0, "order": 0, "weights": 3}),
        ("seed: 3", ["seed.order=4"], {"split": 3, "order": 4, "weights": 3}),
        ("seed: 3", ["seed.order=4", "seed=5"], 5),
        ("", ["seed.split=4"], {"split": 4, "order": 0, "weights": 0}),
    ],
)
def test_a_seed_is_one_number_or_one_for_each_use(write, text, change, expected):
    config = load(write(f"{MINIMAL}{text}\n"), change)
    assert config.influential()["seed"] == expected
    names = ("split", "order", "weights")
    numbers = dict.fromkeys(names, expected) if isinstance(expected, int) else expected
    assert {name: getattr(config.seed, name) for name in names} == numbers


def test_seeds_of_order_and_weights_do_not_change_events(write):
    config = load(write(MINIMAL))
    for change in ("seed.order=1", "seed.weights=1", "training.ranks=1"):
        other = load("dataset.yaml", [change])
        assert other.digest() != config.digest()
        assert other.events_digest() == config.events_digest()
    for change in ("seed.split=1", "seed=1", "max_events=9", "encode.width=3"):
        assert load("dataset.yaml", [change]).events_digest() != config.events_digest()


def test_an_override_of_a_section_takes_its_lines_away(refused):
    error = refused(MINIMAL + "training:\n  epochs: 3\n", "training={epochs: 0}")
    expected = "override 'training={epochs: 0}': training.epochs: expected at least 1, found 0"
    assert str(error) == expected
    assert error.line is None


def test_a_missing_file_names_the_nearest(write):
    write(MINIMAL)
    with pytest.raises(ConfigError) as caught:
        load("datsaet.yaml")
    assert str(caught.value) == "datsaet.yaml: no such file; did you mean 'dataset.yaml'?"
    assert caught.value.nearest == "dataset.yaml"
    with pytest.raises(ConfigError, match=r"no such file$"):
        load("nowhere/dataset.yaml")


def test_a_directory_is_no_yaml_file(tmp_path):
    with pytest.raises(ConfigError, match="expected a YAML file, found a directory"):
        load(tmp_path)


def test_a_path_with_a_null_byte_cannot_be_read():
    with pytest.raises(ConfigError, match="cannot be read"):
        load("a\0.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "dataset.yaml:1: expected a mapping with the key 'samples', but it is empty"),
        ("# only\n", "dataset.yaml:1: expected a mapping with the key 'samples', but it is empty"),
        ("- a\n", "dataset.yaml:1: expected a mapping with the key 'samples', but found a list"),
        ("{}", "dataset.yaml: samples: required, but missing"),
        (
            b"name: a\ntree: \xff\n",
            "dataset.yaml:2: not UTF-8 text: invalid start byte (byte 0xff)",
        ),
        ("name: a\n\ttree: b\n", "; indent with spaces, not tabs"),
        ("a:\n  - b: 1\n   c: 2\n", "; keys of one mapping begin in one column"),
        ("a: b: c\n", "; text that holds ': ' needs quotes"),
        ("name: a\nb: [1\nc: 2\n", "dataset.yaml:3: not valid YAML: "),
        ("name: a\ntree: \x01\n", "dataset.yaml:2: not valid YAML: "),
        ("name: a\nb: [*]\n", "; a pattern that begins with '*' needs quotes"),
        ("name: a\nb: [*_pt]\n", "dataset.yaml:2: not valid YAML: found undefined alias"),
        ("a: 1\n---\nb: 1\n", "dataset.yaml:2: not valid YAML: "),
        ("seed: 1\ntree: t\nseed: 2\n", "dataset.yaml:3: seed: given twice; first on line 1"),
        ("1: a\n", "dataset.yaml:1: a key must be text, found 1; put it in quotes"),
        ("[a]: b\n", "a key must be text, found a list or mapping"),
        ("seed: !!python/object:os.system {}\n", "python/object:os.system' is not allowed"),
        ("seed: !!timestamp 2024-01-01\n", "dataset.yaml:1: seed: tag "),
        ("seed: !!int x\n", "dataset.yaml:1: seed: 'x' is no int"),
        ("a: {<<: 3}\n", "dataset.yaml:1: a: expected a mapping after '<<:'"),
        ("a: &a [*a]\n", "nested more than 100 levels deep"),
        ("a: " + "[" * 300 + "]" * 300, "nested more than 100 levels deep"),
        ("a: " + "[" * 9000, "nested more than 100 levels deep"),
    ],
)
def test_what_is_no_configuration_is_refused(refused, text, message):
    error = refused(text)
    assert message in str(error)
    assert error.file == "dataset.yaml"


def test_a_billion_laughs_are_not_expanded(refused):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    error = refused("\n".join(lines))
    assert "more than 100000 values after its aliases are expanded" in str(error)


@pytest.mark.parametrize(
    ("extra", "message", "key", "near"),
    [
        ("sed: 1", "dataset.yaml:8: sed: unknown key; did you mean 'seed'?", "sed", "seed"),
        (
            "epochs: 3",
            "dataset.yaml:8: epochs: unknown key; did you mean 'training.epochs'?",
            "epochs",
            "training.epochs",
        ),
        (
            "training:\n  seed: 3",
            "dataset.yaml:9: training.seed: unknown key here; 'seed' belongs at the top level",
            "training.seed",
            None,
        ),
        ("zzzzzz: 1", "dataset.yaml:8: zzzzzz: unknown key", "zzzzzz", None),
        ("seed: true", "expected a whole number, found true (true or false)", "seed", None),
        (
            "seed: '1'",
            "dataset.yaml:8: seed: expected a whole number, found '1' (text)",
            "seed",
            None,
        ),
        ("seed: 1.0", "expected a whole number, found 1.0", "seed", None),
        ("seed: -1", "seed: expected at least 0, found -1", "seed", None),
        ("seed: {order: -1}", "seed.order: expected at least 0, found -1", "seed.order", None),
        ("seed: {split: x}", "seed.split: expected a whole number, found 'x'", "seed.split", None),
        (
            "seed: {weight: 1}",
            "dataset.yaml:8: seed.weight: unknown key; did you mean 'weights'?",
            "seed.weight",
            "weights",
        ),
        ("tree:", "tree: expected text, found nothing", "tree", None),
        ("tree: ''", "tree: expected text that is not empty, found '' (text)", "tree", None),
        ("name: a/b", "expected a name of letters, digits", "name", None),
        ("max_events: 0", "max_events: expected at least 1, found 0", "max_events", None),
        (
            "branches: Jet",
            "branches: expected a mapping with keys such as 'include', 'exclude',",
            "branches",
            None,
        ),
        ("model: n.py:build", "with keys such as 'callable', 'kwargs', found", "model", None),
        (
            "branches: {include: []}",
            "branches.include: expected at least one entry, found an empty list",
            "branches.include",
            None,
        ),
        (
            "branches:\n  exclude:\n    - a\n    - 3",
            "dataset.yaml:11: branches.exclude[1]: expected text, found 3",
            "branches.exclude.1",
            None,
        ),
        (
            "branches: {include: Jet}",
            "branches.include: expected a list, found 'Jet' (text)",
            "branches.include",
            None,
        ),
        (
            "encode: {normalisation: MinMx}",
            "or x and y, found 'MinMx' (text); did you mean 'minmax'?",
            "encode.normalisation",
            "minmax",
        ),
        (
            "encode:\n  normalisation:\n    Jet_*: log-standart\n    MET_*: minmax",
            "dataset.yaml:10: encode.normalisation.Jet_*: expected 'auto', 'minmax', 'standard'",
            "encode.normalisation.Jet_*",
            "log-standard",
        ),
        (
            "encode: {normalisation: {a: {x: [0, 1], y: [0, true]}}}",
            "encode.normalisation.a: expected finite numbers",
            "encode.normalisation.a",
            None,
        ),
        (
            "encode: {normalisation: {a: {shift: 0, scale: 1, missing: true}}}",
            "encode.normalisation.a: expected finite numbers",
            "encode.normalisation.a",
            None,
        ),
        (
            "encode: {normalisation: [minmax]}",
            "encode.normalisation[0]: expected a mapping from patterns, found 'minmax' (text)",
            "encode.normalisation.0",
            None,
        ),
        (
            "encode: {normalisation: []}",
            "encode.normalisation: expected at least one entry, found an empty list",
            "encode.normalisation",
            None,
        ),
        (
            "encode: {width: {Jet: 0}}",
            "encode.width.Jet: expected 'max', a number of objects, or a mapping with the key",
            "encode.width.Jet",
            None,
        ),
        (
            "encode: {width: {quantile: 1.5}}",
            "encode.width.quantile: expected more than 0 and at most 1, found 1.5",
            "encode.width.quantile",
            None,
        ),
        (
            "encode: {max_width: 3}",
            "encode.max_width: unknown key",
            "encode.max_width",
            "width",
        ),
        (
            "encode: {sort: {Jet: 3}}",
            "encode.sort.Jet: expected text, found 3",
            "encode.sort.Jet",
            None,
        ),
        (
            "encode: {out_of_range: 1}",
            "expected 'pass' or 'clip', found 1",
            "encode.out_of_range",
            None,
        ),
        (
            "encode: {out_of_range: {Jet_*: clap}}",
            "encode.out_of_range.Jet_*: expected 'pass' or 'clip', found 'clap' (text)",
            "encode.out_of_range.Jet_*",
            "clip",
        ),
        (
            "split: {train: 0.5}",
            "dataset.yaml:8: split: train + validation + test must be 1, found 0.86",
            "split",
            None,
        ),
        ("split: {test: 0}", "split.test: expected more than 0, found 0", "split.test", None),
        (
            "training: {batch_size: 2, ranks: 3}",
            "training.batch_size: expected at least one event per rank (3), found 2",
            "training.batch_size",
            None,
        ),
        (
            "training: {learning_rate: .inf}",
            "training.learning_rate: expected a finite number, found inf",
            "training.learning_rate",
            None,
        ),
        ("training: {learning_rate: true}", "expected a number", "training.learning_rate", None),
        (
            "model: {callable: mlp}",
            "expected 'module:callable' or 'path/to/file.py:callable', found 'mlp' (text)",
            "model.callable",
            None,
        ),
        (
            "model:\n  kwargs:\n    a:\n      - {b: 1}\n      - {b: .nan}",
            "dataset.yaml:12: model.kwargs.a[1].b: expected a finite number, found nan",
            "model.kwargs.a.1.b",
            None,
        ),
        (
            "cluster: {address: locla}",
            "found 'locla' (text); did you mean 'local'?",
            "cluster.address",
            "local",
        ),
        ("cluster: {address: 'tcp://host'}", "'tcp://host:port'", "cluster.address", None),
        ("on_bad_file: skipp", "did you mean 'skip'?", "on_bad_file", "skip"),
        ("output: 3", "output: expected text, found 3", "output", None),
    ],
)
def test_a_wrong_value_names_line_key_and_expectation(refused, extra, message, key, near):
    error = refused(MINIMAL + extra + "\n")
    assert message in str(error)
    assert "\n" not in str(error)
    assert (error.key, error.nearest) == (key, near)
    assert error.line >= 8


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "    label: 1",
            "    lable: 1",
            "dataset.yaml:3: samples[0].lable: unknown key; did you mean",
        ),
        ("    label: 1\n", "", "dataset.yaml:2: samples[0].label: required, but missing"),
        ("label: 1", "label: 2", "dataset.yaml:1: samples: expected labels 0 to 2, but no sample"),
        ("label: 1", "label: 256", "samples[0].label: expected less than 256, found 256"),
        ("label: 1", "label: true", "dataset.yaml:3: samples[0].label: expected a whole number"),
        (
            "label: 1",
            "label: 0",
            "expected samples of both labels, 0 and 1, found only label 0; add a sample, or",
        ),
        ("QCD\n", "ttH\n", "dataset.yaml:5: samples[1].name: samples[0] is called 'ttH' too"),
        ("ttH\n", "t H\n", "dataset.yaml:2: samples[0].name: expected a name of letters"),
        (
            "ttH.root",
            "",
            "dataset.yaml:4: samples[0].files: the sample is empty: expected at least",
        ),
        (
            "ttH.root",
            "[]",
            "dataset.yaml:4: samples[0].files: the sample is empty: expected at least",
        ),
        (
            "ttH.root",
            "['']",
            "dataset.yaml:4: samples[0].files[0]: expected text that is not empty",
        ),
        ("ttH.root", "3", "dataset.yaml:4: samples[0].files: expected a list, found 3"),
        ("ttH.root", "a\n    weight: 0", "samples[0].weight: expected more than 0, found 0"),
        (
            "ttH.root",
            "a\n    cross_section: 0.5",
            "dataset.yaml:6: samples[1].cross_section: missing, though given for ttH",
        ),
    ],
)
def test_a_wrong_sample_names_its_line(refused, old, new, message):
    assert message in str(refused(MINIMAL.replace(old, new, 1)))


def test_no_samples_are_refused(refused):
    message = "dataset.yaml:1: samples: expected at least one entry, found an empty list"
    assert str(refused("samples: []\n")) == message


def test_all_problems_are_listed_in_the_order_of_the_file(refused):
    error = refused(MINIMAL.replace("label: 1", "lable: 1") + "seed: x\nsplt: {}\n", "tree=3")
    assert str(error).splitlines() == [
        "dataset.yaml:3: samples[0].lable: unknown key; did you mean 'label'? keys here: "
        + ", ".join(Sample.model_fields),
        "dataset.yaml:8: seed: expected a whole number, found 'x' (text)",
        "dataset.yaml:9: splt: unknown key; did you mean 'split'? keys at the top level: "
        + ", ".join(Config.model_fields),
        "override 'tree=3': tree: expected text, found 3",
    ]
    assert (error.file, error.line, error.key) == ("dataset.yaml", 3, "samples.0.lable")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("training: {lr: 1.0e-3}", "training.lr: unknown key; did you mean 'learning_rate'?"),
        ("lr: 1.0e-3", "lr: unknown key; did you mean 'training.learning_rate'?"),
        ("n_epochs: 3", "n_epochs: unknown key; did you mean 'training.epochs'?"),
        ("training: {batchSize: 3}", "training.batchSize: unknown key; did you mean 'batch_size'?"),
        ("cuts: x > 1", "cuts: unknown key; did you mean 'select'?"),
        ("training: {loss_fn: mse}", "training.loss_fn: unknown key; did you mean 'loss'?"),
        ("training: {optimizer: sgd}", "unknown key; did you mean 'optimiser'?"),
        ("device: cuda", "device: unknown key; it is training.device; keys at the top level: name"),
        ("cluster: {n_workers: 3}", "cluster.n_workers: unknown key; did you mean 'workers'?"),
        ("cluster: {zz: 3}", "unknown key; keys here: " + ", ".join(Cluster.model_fields)),
    ],
)
def test_a_key_is_known_by_the_names_that_other_tools_give_it(refused, extra, message):
    assert message in str(refused(f"{MINIMAL}{extra}\n"))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("specs: {cache: none}", "specs.cache: expected auto, a folder, or null for no cache"),
        ("cache: memroy", "cache: expected auto, memory, disk, none, or a folder, with a / in its"),
        ("cluster: {address: 'tcp://a:99999'}", "expected a port from 1 to 65535, found 99999"),
    ],
)
def test_a_value_that_would_be_taken_for_something_else_is_refused(refused, extra, message):
    assert message in str(refused(f"{MINIMAL}{extra}\n"))


def test_synonyms_name_keys_that_exist():
    assert synonyms.KEYS.keys() <= problems.keys_of(Config)


def test_a_file_name_that_is_no_name_is_refused(write):
    with pytest.raises(ConfigError, match=r"^my data\.yaml: name: expected a name of letters"):
        load(write(MINIMAL, "my data.yaml"))


def test_an_error_survives_pickling(refused):
    error = refused(MINIMAL + "sed: 1\n")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(copy) == str(error)
    assert (copy.file, copy.line, copy.key, copy.nearest) == ("dataset.yaml", 8, "sed", "seed")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainin.epochs=3", "trainin: unknown key; did you mean 'training'?"),
        ("training.epoch=3", "training.epoch: unknown key; did you mean 'epochs'?"),
        ("seed", "expected 'key.path=value', such as 'training.epochs=10'"),
        ("=3", "expected 'key.path=value'"),
        ("a..b=3", "expected 'key.path=value'"),
        ("samples.5.weight=2", "samples[5]: no such entry: samples has 2, counted from 0"),
        ("samples.x.weight=2", "samples.x: expected the position of a list entry, found 'x'"),
        (
            "samples.0.files.0=a",
            "samples[0].files[0]: cannot be set: samples.0.files is 'ttH.root'",
        ),
        (
            "branches.include.0=a",
            "branches.include[0]: not in the file; set all of branches.include",
        ),
        ("seed=[", ": not valid YAML: "),
        ("branches.include=[*]", "a pattern that begins with '*' needs quotes"),
        ("seed=", "seed: expected a whole number, found nothing"),
    ],
)
def test_a_wrong_override_is_named(refused, override, message):
    error = refused(MINIMAL, override)
    assert str(error).startswith(f"override {override!r}")
    assert message in str(error)


TREE = {
    "run": None,
    "nJet": None,
    "Jet_pt": None,
    "Jet_eta": None,
    "Jet_name": "text",
    "MET_pt": None,
    "hit[3]": None,
    "label": None,
}


def _select(available=TREE, **patterns):
    return select_branches(
        Branches(**patterns), available, Places("dataset.yaml", {"branches": 17})
    )


def test_everything_is_an_input_but_identifiers_and_what_cannot_be_one():
    selection = _select(exclude=["label"])
    assert selection.inputs == ["Jet_eta", "Jet_pt", "MET_pt", "hit[3]", "nJet"]
    assert selection.identifiers == ["run"]
    assert selection.excluded == ["label"]
    assert selection.left_out == {"Jet_name": "text"}


@given(order=st.permutations(list(TREE)))
def test_the_selection_does_not_depend_on_the_order_of_the_tree(order):
    shuffled = {name: TREE[name] for name in order}
    assert _select(shuffled, exclude=["n*"]) == _select(exclude=["n*"])


@given(data=st.data())
def test_every_branch_asked_for_is_accounted_for_once(data):
    names = st.sampled_from(sorted(TREE))
    exclude = data.draw(st.lists(names.filter(lambda name: name != "MET_pt"), unique=True))
    selection = _select(exclude=exclude)
    found = [
        *selection.inputs,
        *selection.identifiers,
        *selection.excluded,
        *selection.left_out,
    ]
    assert sorted(found) == sorted(TREE)


def test_exclude_beats_identifiers_which_beat_include():
    selection = _select(include=["run", "MET_pt", "nJet"], exclude=["nJet"], identifiers=["run"])
    assert (selection.inputs, selection.identifiers) == (["MET_pt"], ["run"])
    assert _select(exclude=["run"]).identifiers == []


def test_a_branch_called_like_a_pattern_can_be_named():
    assert _select(include=["hit[3]"]).inputs == ["hit[3]"]


def test_wildcards_mind_case():
    assert _select(include=["J*"]).inputs == ["Jet_eta", "Jet_pt"]
    with pytest.raises(ConfigError, match="matches no branch"):
        _select(include=["j*"])


@pytest.mark.parametrize(
    ("patterns", "message", "key", "near"),
    [
        (
            {"include": ["MET_pt", "Jet_Pt"]},
            "branch 'Jet_Pt' is not in the tree; did you mean 'Jet_pt'?",
            "branches.include.1",
            "Jet_pt",
        ),
        (
            {"exclude": ["lable"]},
            "branch 'lable' is not in the tree; did you mean 'label'?",
            "branches.exclude.0",
            "label",
        ),
        (
            {"exclude": ["Jte_*"]},
            "pattern 'Jte_*' matches no branch; did you mean 'Jet_*'?",
            "branches.exclude.0",
            "Jet_*",
        ),
        (
            {"include": ["Jet_name"]},
            "branch 'Jet_name' cannot be an input: text",
            "branches.include.0",
            None,
        ),
        (
            {"include": ["Jet_*"], "exclude": ["Jet_*"]},
            "no inputs are left of the 8 branches of the tree",
            "branches.include",
            None,
        ),
        (
            {"include": ["*_name"]},
            (
                "no inputs are left of the 8 branches of the tree; "
                "branch 'Jet_name' cannot be one: text"
            ),
            "branches.include",
            None,
        ),
        (
            {"include": ["run"]},
            "no inputs are left of the 8 branches of the tree; branch 'run' is an identifier",
            "branches.include",
            None,
        ),
    ],
)
def test_a_wrong_pattern_is_refused_at_its_line(patterns, message, key, near):
    with pytest.raises(ConfigError) as caught:
        _select(**patterns)
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert str(error) == f"dataset.yaml:17: {message}"
    assert (error.file, error.line, error.key, error.nearest) == ("dataset.yaml", 17, key, near)


def test_an_exclude_takes_care_of_a_named_branch_that_cannot_be_an_input():
    selection = _select(include=["Jet_name", "Jet_pt"], exclude=["Jet_name"])
    assert selection.excluded == ["Jet_name"]


def test_the_old_word_for_a_subset_means_it_and_both_are_named_with_the_line(write):
    text = MINIMAL + "specs:\n  mode: {}\n  fraction: 0.1\n"
    old, new = (load(write(text.format(word))) for word in ("sample", "subset"))
    assert old == new
    assert old.digest() == new.digest()
    assert old.specs.mode == "subset"
    assert old.encode.out_of_range == "clip"
    (caution,) = old.cautions
    assert caution.startswith("dataset.yaml:9: specs.mode: 'sample' is called 'subset' now")
    assert new.cautions == ()
    stored = load(write(old.to_yaml()))
    assert (stored, stored.cautions) == (old, ())
    (caution,) = load(write(text.format("full")), ["specs.mode=sample"]).cautions
    assert "override 'specs.mode=sample': specs.mode: 'sample' is called" in caution


@pytest.mark.parametrize("mode", ["full", "subset", "sample"])
def test_the_schema_takes_old_words_too(mode):
    document = yaml.safe_load(MINIMAL) | {"specs": {"mode": mode}}
    jsonschema.validate(document, json_schema())
    Config.from_mapping(document)


def test_the_schema_is_valid_and_its_examples_load():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for example in schema["examples"]:
        jsonschema.validate(example, schema)
        Config.from_mapping(example)


def _with_examples(schema):
    """All parts of a schema that have examples."""
    if isinstance(schema, list):
        for each in schema:
            yield from _with_examples(each)
    elif isinstance(schema, dict):
        if isinstance(schema.get("examples"), list):
            yield schema
        for each in schema.values():
            yield from _with_examples(each)


def test_the_schema_accepts_the_examples_of_its_keys():
    schema = json_schema()
    parts = list(_with_examples(schema))
    assert len(parts) > 20
    for part in parts:
        validator = jsonschema.Draft202012Validator({**part, "$defs": schema["$defs"]})
        for example in part["examples"]:
            validator.validate(example)


@pytest.mark.parametrize(
    "short",
    [
        {"training": {"optimiser": "AdamW"}},
        {"training": {"scheduler": "OneCycleLR"}},
        {"training": {"optimiser": "steps.py:lion", "scheduler": {"callable": "StepLR"}}},
        {"training": {"hooks": ["hooks.py:Norms", {"callable": "hooks.py:Until"}]}},
        {"training": {"warm_start": "runs/earlier/bundle"}},
        {"specs": "runs/ttH"},
        {"seed": 7},
        {"seed": {"split": 1}},
    ],
)
def test_the_schema_takes_short_forms(short):
    document = yaml.safe_load(MINIMAL) | short
    jsonschema.validate(document, json_schema())
    Config.from_mapping(document)


@pytest.mark.parametrize(
    "wrong",
    [
        {"training": {"optimiser": "a b"}},
        {"training": {"hooks": ["Norms"]}},
        {"training": {"warm_start": ""}},
        {"sed": 1},
        {"seed": "1"},
        {"seed": True},
        {"samples": []},
        {"partition": {"target_bytes": "64"}},
        {"cluster": {"address": "tcp://host"}},
        {"training": {"epochs": 0}},
        {"specs": {"mode": "some"}},
    ],
)
def test_the_schema_refuses_what_the_models_refuse(wrong):
    document = yaml.safe_load(MINIMAL) | wrong
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json_schema())
    with pytest.raises(ConfigError):
        Config.from_mapping(document)


def _keys(model=Config, prefix=""):
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        if prefix == "samples[]." and name in Config.model_fields:
            continue  # its keys are those of the section at the top level
        many = "[]" if get_origin(field.annotation) in (list, dict) else ""
        parts = get_args(field.annotation)
        for inner in (
            field.annotation,
            *parts,
            *(each for part in parts for each in get_args(part)),
        ):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _keys(inner, f"{prefix}{name}{many}.")


@pytest.mark.parametrize(("key", "field"), list(_keys()), ids=[key for key, _ in _keys()])
def test_every_key_stands_in_the_reference_with_its_default(key, field):
    assert field.description
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in PAGE.read_text().splitlines()
        if line.startswith(f"| `{key}` |")
    ]
    assert len(rows) == 1, f"`{key}` is not in {PAGE.name}"
    default = rows[0][2]
    if field.is_required():
        assert default == "required"
    elif not isinstance(field.default, BaseModel) and key != "name":
        assert default == f"`{json.dumps(field.default)}`"


def test_the_reference_names_no_key_that_does_not_exist():
    rows = re.findall(r"^\| `([a-z_.\[\]]+)` \|", PAGE.read_text().split("## Files")[0], re.M)
    assert set(rows) == {key for key, _ in _keys()}


def test_the_example_of_the_reference_loads(write):
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)
    config = load(write(example))
    assert config.training.ranks == 4
    jsonschema.validate(yaml.safe_load(example.replace("1e-3", "0.001")), json_schema())


def test_the_loss_of_a_target_is_that_of_the_training_with_a_warning(tmp_path):
    text = "samples: [{{name: a, files: a.root}}]\ntarget:\n  kind: regression\n  branch: x\n{}\n"
    path = tmp_path / "dataset.yaml"
    path.write_text(text.format("  loss: huber"))
    old = load(path)
    path.write_text(text.format("training: {loss: huber}"))
    new = load(path)
    assert old == new
    assert old.loss == "huber"
    (caution,) = old.cautions
    assert "dataset.yaml:5: target.loss: is called training.loss now" in caution
    assert new.cautions == ()
    path.write_text(text.format("  loss: huber\ntraining: {loss: mse}"))
    with pytest.raises(ConfigError, match=r"dataset\.yaml:5: target\.loss"):
        load(path)
