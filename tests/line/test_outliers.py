import numpy as np
import pytest
import uproot

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.console import Reporter
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.run import fit
from mlaas4hep_dask.run.one_class import one_class_notes
from mlaas4hep_dask.specs import Specs

NUM = 2_000


class Listening(Reporter):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A branch that is the label but for one value, and a momentum with one muon of 24 TeV."""
    folder = tmp_path_factory.mktemp("outliers")
    samples = []
    for label, name in enumerate(("background", "signal")):
        rng = np.random.default_rng(label)
        num = NUM // (1 + 9 * label)
        answer = np.full(num, float(label))
        answer[0] = 1e7
        pt = rng.exponential(30, num)
        pt[1] = 24_000.0
        columns = {"answer": answer, "pt": pt.astype("f4"), "big": np.full(num, 1e20, "f4")}
        with uproot.recreate(folder / f"{name}.root") as file:
            file["Events"] = columns
        samples.append({"name": name, "label": label, "files": str(folder / f"{name}.root")})
    return {
        "name": "outliers",
        "tree": "Events",
        "samples": samples,
        "training": {"epochs": 12},
        "specs": {"cache": None},
    }


def run(files, client, output, **more):
    reporter = Listening()
    result = fit(
        Dataset(Config.from_mapping({**files, **more}), client), output=output, reporter=reporter
    )
    return result, reporter.lines


def test_a_branch_that_is_the_label_is_learned_in_spite_of_outliers(files, client, tmp_path):
    result, lines = run(files, client, tmp_path / "run")
    assert result.summary["test"]["auc"] > 0.95  # 20 events of signal, drawn anew with every file
    assert not any("predicts class" in line for line in lines)
    found = result.summary["encode"]["normalisation"]
    assert found["big"] == "auto: constant"
    assert found["answer"].startswith("auto: 3 values")
    assert found["pt"].startswith("auto: normal scores, log tails")
    page = result.report.read_text()
    assert "auto: normal scores, log tails" in page
    # Of 1 / 0, as both samples have one value of 1e7.
    separation = page.split("<b>answer</b>")[1].split("</span>")[0].rpartition(">")[2]
    assert float(separation) > 0.95
    manifest = {}
    for rule in result.bundle.manifest["encode"]["normalisation"]:
        manifest |= rule
    assert manifest["pt"]["about"] == found["pt"]
    specs = Specs.read(result.path / "specs.json")
    assert specs.branches["pt"].max == 24_000


def test_one_class_for_all_and_what_outliers_fill_are_told(files, client, tmp_path):
    result, lines = run(
        files,
        client,
        tmp_path / "run",
        encode={"normalisation": "minmax"},
        branches={"exclude": ["answer"]},
    )
    fill = "minmax: 99 % of the values of pt fill"
    warning = "WARNING: the network predicts class 'background' for all test events"
    for start in (fill, warning):
        assert any(start in line for line in lines)
        assert any(note.startswith(start) for note in result.summary["counts"]["notes"])
        assert start.split(":")[1][:20] in result.report.read_text()
    (told,) = [note for note in result.summary["counts"]["notes"] if warning in note]
    assert "outliers squeeze 1 inputs that are normalised by minmax, such as pt" in told
    assert "% of the weight is of one class (training.balance: classes)" in told


@pytest.mark.parametrize(
    ("matrix", "told"),
    [
        ([[5.0, 0.0], [7.0, 0.0]], "predicts class 'a'"),
        ([[0.0, 5.0], [0.0, 7.0]], "predicts class 'b'"),
        ([[5.0, 1.0], [7.0, 0.0]], None),
        ([[5.0, 0.0], [0.0, 0.0]], None),  # there is one class
        ([[0.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 9.0, 0.0]], "predicts class 'b'"),
    ],
)
def test_one_class_is_seen_in_any_confusion_matrix(matrix, told):
    notes = one_class_notes(
        {"confusion": matrix, "auc": 0.5}, ["a", "b", "c"][: len(matrix)], [], "none"
    )
    assert bool(notes) == bool(told)
    assert all(told in note for note in notes)
