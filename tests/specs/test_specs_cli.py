import json
import subprocess
import sys
from dataclasses import replace

import awkward as ak
import pytest

from mlaas4hep_dask.encode.split import event_ids
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.patterns import matches
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.specs.cli import main
from mlaas4hep_dask.specs.compare import differences
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge


@pytest.fixture(scope="module")
def parts(cms_parts, tmp_path_factory):
    """Paths of two specs.json, of the events of two files; the second in the folder of a run."""
    folder = tmp_path_factory.mktemp("specs")
    (folder / "run").mkdir()
    paths = []
    for name, events, target in zip(
        ("ww", "zz"),
        (cms_parts["cms_heptutorial_ww"][0], cms_parts["cms_heptutorial_zz"][0]),
        ("ww.json", "run/specs.json"),
        strict=True,
    ):
        ids = event_ids(name, 0, len(events))
        specs = measure(events, sample=name, ids=ids).with_provenance(
            files={f"{name}.root": name}, config=name, versions={"numpy": "2"}
        )
        (folder / target).write_text(specs.to_json())
        paths.append(folder / target)
    return paths[0], paths[1].parent


def run(capsys, *arguments):
    status = main(list(map(str, arguments)))
    out, error = capsys.readouterr()
    first, _, rest = error.partition("\n")
    assert first == f"specs: {' '.join(map(str, arguments))}"
    return status, out, rest


def test_show_prints_the_chosen_branches_and_the_samples(parts, capsys):
    status, out, _ = run(capsys, "show", parts[0], "Jet_P*", "NJet")
    assert status == 0
    assert all(name in out for name in ("Jet_Px", "Jet_Py", "Jet_Pz", "NJet", "ww"))
    assert "Muon_Px" not in out
    specs = Specs.read(parts[0])
    assert f"{specs.branches['NJet'].mean:.6g}" in out
    status, out, _ = run(capsys, "show", parts[1], "NJet", "--json")
    found = json.loads(out)
    specs = Specs.read(parts[1] / "specs.json")
    assert list(found["branches"]) == ["NJet"]
    assert found["branches"]["NJet"]["q50"] == specs.branches["NJet"].quantile(0.5)
    assert found["num_events"] == specs.num_events


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("branches", "NJet", "num_values"), -5, "moments of branch 'NJet' are negative"),
        (("samples", "ww", "num_read"), -1, "numbers of events are negative"),
        (("provenance", "files"), ["a.root"], "'files' of the provenance is no mapping"),
        (("provenance", "events"), None, "'events' of the provenance is no mapping"),
    ],
)
@pytest.mark.parametrize("command", ["show", "diff", "merge"])
def test_what_no_specs_can_hold_is_an_error_that_names_the_file(
    parts, capsys, tmp_path, keys, value, message, command
):
    document = json.loads(parts[0].read_text())
    *outer, last = keys
    place = document
    for key in outer:
        place = place[key]
    place[last] = value
    (tmp_path / "odd.json").write_text(json.dumps(document))
    others = [] if command == "show" else [parts[1]]
    status, out, error = run(capsys, command, tmp_path / "odd.json", *others)
    assert (status, out) == (2, "")
    assert "odd.json: not a specs file" in error
    assert message in error


@pytest.mark.parametrize("tolerance", ["-1", "nan", "a"])
def test_a_tolerance_that_is_none_is_refused(parts, capsys, tolerance):
    assert main(["diff", *map(str, parts), f"--tolerance={tolerance}"]) == 2
    assert "invalid value for '--tolerance'" in capsys.readouterr().err


def test_show_finds_an_element_of_an_array_by_its_name(capsys, tmp_path):
    assert matches("vertex[3]", "vertex[3]")
    assert not matches("vertex[3]", "vertex[4]")
    events = Events.from_awkward(ak.Array({"vertex[3]": [1.0, 2.0], "vertex3": [3.0, 4.0]}))
    (tmp_path / "specs.json").write_text(measure(events, sample="a").to_json())
    status, out, _ = run(capsys, "show", tmp_path, "vertex[3]", "--json")
    assert status == 0
    assert sorted(json.loads(out)["branches"]) == ["vertex3", "vertex[3]"]  # the first fits it


def test_show_names_the_nearest_branch(parts, capsys):
    status, out, error = run(capsys, "show", parts[0], "jet_px")
    assert (status, out) == (2, "")
    assert "did you mean 'Jet_Px'?" in error


def test_merge_gives_the_specs_of_both(parts, capsys, tmp_path):
    target = tmp_path / "merged.json"
    assert run(capsys, "merge", *parts, "-o", target)[0] == 0
    merged, (a, b) = Specs.read(target), (Specs.read(parts[0]), Specs.read(parts[1] / "specs.json"))
    expected = merge(*(replace(part, provenance={}) for part in (b, a)))
    assert not differences(merged, expected)
    assert merged.in_order().draws == expected.in_order().draws
    assert merged.provenance == {
        "files": {"ww.root": "ww", "zz.root": "zz"},
        "versions": {"numpy": "2"},  # the digests of the configurations differ
    }
    _, out, _ = run(capsys, "merge", *parts)
    assert Specs.from_json(out) == merged
    assert [path.name for path in tmp_path.iterdir()] == ["merged.json"]


def test_merge_refuses_what_does_not_belong_together(parts, capsys, tmp_path):
    status, out, error = run(capsys, "merge", parts[0], parts[1], parts[0])
    assert (status, out) == (2, "")
    assert "ww.root" in error
    assert "would count twice" in error
    assert run(capsys, "merge", parts[0], parts[0], "--allow-overlap")[0] == 0

    cut = Specs.read(parts[0]).with_provenance(events={"select": "NJet > 1"}, files={})
    (tmp_path / "cut.json").write_text(cut.to_json())
    status, _, error = run(capsys, "merge", parts[1], tmp_path / "cut.json")
    assert status == 2
    assert "different events" in error
    document = json.loads((parts[1] / "specs.json").read_text())
    document["branches"]["Jet_Px"]["collection"] = "Jets"
    document["multiplicities"]["Jets"] = document["multiplicities"]["Jet"]
    (tmp_path / "other.json").write_text(json.dumps(document))
    error = run(capsys, "merge", parts[0], tmp_path / "other.json")[2]
    assert "jagged float32 (collection 'Jet') in one part and jagged float32 (coll" in error
    assert run(capsys, "merge", parts[0], parts[1], "-o", tmp_path / "no" / "x.json")[0] == 2


def test_diff_tells_by_its_exit_status(parts, capsys, tmp_path):
    assert run(capsys, "diff", parts[0], parts[0]) == (0, "", "")
    status, out, _ = run(capsys, "diff", *parts)
    assert status == 1
    assert "branch MET_px" in out
    status, _, error = run(capsys, "diff", parts[0], tmp_path / "none.json")
    assert status == 2
    assert "none.json: cannot be read" in error


def test_diff_counts_in_standard_deviations_and_lets_rounding_pass(parts, capsys, tmp_path):
    specs = Specs.read(parts[0])
    entry = specs.branches["MET_px"]
    std = entry.variance**0.5

    def with_mean(mean):
        changed = replace(entry, moments=entry.moments._replace(mean=mean))
        path = tmp_path / "changed.json"
        branches = {**specs.branches, "MET_px": changed}
        path.write_text(replace(specs, branches=branches).to_json())
        return path

    assert run(capsys, "diff", parts[0], with_mean(entry.mean + 1e-12 * std))[0] == 0
    shifted = with_mean(entry.mean + 0.01 * std)
    status, out, _ = run(capsys, "diff", parts[0], shifted, "--json")
    found = json.loads(out)
    assert (status, found["same"]) == (1, False)
    (difference,) = found["differences"]
    assert (difference["place"], difference["what"]) == ("branch MET_px", "mean")
    assert difference["shift"] == pytest.approx(0.01)
    assert run(capsys, "diff", parts[0], shifted, "--tolerance", "0.02")[0] == 0


def test_diff_lists_branches_types_collections_samples_and_selection(parts):
    specs = Specs.read(parts[0])
    branches = dict(specs.branches)
    branches.pop("NMuon")
    met = branches["MET_px"]
    branches["MET_px"] = replace(met, branch=replace(met.branch, unit="GeV"))
    other = replace(
        specs,
        branches=branches,
        multiplicities={**specs.multiplicities, "Jet": (1, 2)},
        samples={"renamed": specs.samples["ww"]},
    ).with_provenance(events={"select": "NJet > 1"})
    found = {(entry.place, entry.what): (entry.a, entry.b) for entry in differences(specs, other)}
    num_events = specs.num_events
    assert found == {
        ("branch MET_px", "unit"): (None, "GeV"),
        ("branch NMuon", "type"): ("flat int32", None),
        ("collection Jet", "multiplicities"): (list(specs.multiplicities["Jet"]), [1, 2]),
        ("configuration", "select"): (None, "NJet > 1"),
        ("sample renamed", "num_selected"): (None, num_events),
        ("sample ww", "num_selected"): (num_events, None),
    }


def test_diff_shows_conditions_as_text(parts, capsys, tmp_path):
    selections = (["NJet > 1", "MET_px > 0"], [])
    files = [tmp_path / f"{number}.json" for number in range(len(selections))]
    for select, file in zip(selections, files, strict=True):
        events = {"derive": {}, "objects": {}, "select": select}
        file.write_text(Specs.read(parts[0]).with_provenance(events=events).to_json())
    status, out, _ = run(capsys, "diff", *files)
    assert status == 1
    row = next(line for line in out.splitlines() if "select" in line)
    assert [cell.strip() for cell in row.split("│")[2:5]] == [
        "select",
        "NJet > 1; MET_px > 0",
        "-",
    ]


@pytest.mark.slow
def test_the_command_is_a_process_that_imports_neither_dask_nor_uproot(parts):
    code = (
        "import runpy, sys\n"
        "sys.argv = ['specs', 'diff', *sys.argv[1:]]\n"
        "try:\n    runpy.run_module('mlaas4hep_dask.specs', run_name='__main__')\n"
        "except SystemExit as end:\n    print(end.code)\n"
        "print(sorted({'dask', 'uproot', 'torch', 'awkward'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, parts)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    first = " ".join(["specs:", "diff", *map(str, parts)])
    assert done.stderr == f"{first}\n"  # printed before anything that takes time
    assert done.stdout.splitlines()[-2:] == ["1", "[]"]
