import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.report import model_card
from mlaas4hep_dask.report.axes import MINUS, Axis, label
from mlaas4hep_dask.report.charts import separation
from mlaas4hep_dask.report.figures import Line, bar, line_chart, roc_curves, step_histogram
from mlaas4hep_dask.report.headlines import metric_rows
from mlaas4hep_dask.report.mean_images import channel_figure
from mlaas4hep_dask.report.page import render_page
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all

DASH = "\N{EN DASH}"
SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "br", "hr", "img", "link", "input"}
NAMES = ("ttH", "QCD")


class Page(HTMLParser):
    """The elements of a page, its text outside of style and svg, and whether tags are balanced."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(html)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and "svg" not in self.open:
            self.words.append(data.strip())

    def every(self, wanted):
        return [attributes for tag, attributes in self.tags if tag == wanted]


def parse(svg):
    return ElementTree.fromstring(svg)  # noqa: S314  (our own text)


def plain(text):
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{MULTIPLICATION SIGN}", "x")


def svgs(html):
    return [parse(text) for text in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def numbers_in(value):
    if isinstance(value, dict):
        return [n for entry in value.values() for n in numbers_in(entry)]
    if isinstance(value, list):
        return [n for entry in value for n in numbers_in(entry)]
    return [value] if isinstance(value, int) else []


@pytest.fixture(scope="module")
def specs():
    rng = np.random.default_rng(5)
    parts = []
    for sample, shift in zip(NAMES, (0.0, 2.0), strict=True):
        multiplicities = rng.integers(0, 5, 300)
        offsets = np.concatenate([[0], np.cumsum(multiplicities)])
        jets = rng.exponential(40, offsets[-1]).astype(np.float32)
        jets[:3] = np.nan, np.inf, -np.inf
        contents = {
            "MET_pt": rng.normal(shift, 1, 300),
            "year": np.full(300, 2018),
            "Jet_pt": jets,
            "empty": np.full(300, np.nan),
        }
        branches = (
            Branch("MET_pt", "flat", "float64", unit="GeV"),
            Branch("year", "flat", "int64"),
            Branch("Jet_pt", "jagged", "float32", "Jet", "GeV"),
            Branch("empty", "flat", "float64"),
        )
        events = Events(300, branches, contents, {"Jet": offsets})
        own = measure(events, sample=sample)
        parts.append(replace(own, samples={sample: replace(own.samples[sample], num_read=350)}))
    return merge_all(parts).with_provenance(versions={"numpy": "2.4.6"})


@pytest.fixture
def summary():
    skipped = {
        "file": "root://data.example//c.root",
        "entry_start": 4000,
        "entry_stop": 4321,
        "sample": "QCD",
        "reason": "basket 7 does not inflate",
    }
    samples = [
        dict(
            zip(
                ("name", "label", "files", "num_read", "num_selected", "sum_weights"),
                values,
                strict=True,
            ),
            train=train,
            validation=validation,
            test=test,
        )
        for values, train, validation, test in (
            (("ttH", 1, 2, 350, 300, 299.25), 191, 48, 61),
            (("QCD", 0, 3, 351, 301, 1234567.0), 193, 47, 61),
        )
    ]
    epochs = [
        {
            "epoch": n,
            "seconds": 1.25 + n,
            "events_per_second": 9000.4 + n,
            "train": {"loss": 0.7 / n, "auc": 0.8 + n / 100},
            "validation": {"loss": 0.75 / n, "auc": 0.79 + n / 100},
            "test": {"loss": 0.76 / n, "auc": 0.78 + n / 100},
        }
        for n in (1, 2, 3)
    ]
    return {
        "name": "ttH-vs-QCD",
        "created": "2026-03-02T14:05:11+00:00",
        "package": "0.1.0",
        "seed": 1729,
        "command": "python -m mlaas4hep_dask.run dataset.yaml",
        "stages": [
            {"stage": "plan", "events": None, "seconds": 0.5, "events_per_second": None},
            {"stage": "specs", "events": 701, "seconds": 0.75, "events_per_second": 934.7},
            {"stage": "train", "events": 1152, "seconds": 5.75, "events_per_second": 200.3},
        ],
        "counts": {
            "files": 5,
            "partitions": 17,
            "events_read": 701,
            "events_selected": 601,
            "events_skipped": 321,
            "skipped": [skipped],
            "not_finite": {"Jet_pt": 6, "empty": 1600},
            "out_of_range": {"MET_pt": 4711},
            "truncated": {"Jet": 8128},
            "left_out": {"Jet_name": "holds strings", "Vertex": "holds lists of lists"},
            "excluded": ["genWeight"],
            "identifiers": ["event", "run"],
            "notes": ["a.root was retried once"],
        },
        "samples": samples,
        "encode": {
            "normalisation": {"MET_pt": "log-robust", "Jet_pt": "table of 7 points"},
            "widths": {"Jet": 3},
            "sort": {"Jet": "-Jet_pt"},
        },
        "epochs": epochs,
        "test": {
            "loss": 0.4321,
            "auc": 0.8765,
            "num_events": 122,
            "roc": {
                "false_positive_rate": [0.0, 0.1, 0.4, 1.0],
                "true_positive_rate": [0.0, 0.6, 0.9, 1.0],
            },
        },
        "model": {"callable": "nets.py:build", "num_parameters": 105217, "num_columns": 6},
        "training": {
            "ranks": 2,
            "batch_size": 128,
            "learning_rate": 0.001,
            "epochs": 3,
            "restarts": 1,
            "cache": "disk",
            "packed_bytes": 1_234_567,
        },
        "serve": "python -m mlaas4hep_dask.serve runs/ttH-vs-QCD/bundle",
        "config_yaml": "name: ttH-vs-QCD\nseed: 1729\n",
    }


@pytest.fixture
def distributions(specs):
    edges = [0.0, 1.0, 2.0, 4.0]
    histogram = {"edges": edges, "counts": {"0": [5, 3, 2], "1": [1, 2, 7]}}
    branches = {name: {"raw": histogram, "encoded": histogram} for name in specs.branches}
    return {"num_events": 600, "branches": branches}


@pytest.fixture
def images():
    """Two classes, one plane of three by two cells; a channel with a log scale and one below 0."""
    plane = {
        "x": {"name": "px: Jet_px [GeV]", "low": -3.0, "high": 3.0, "num_cells": 3},
        "y": {"name": "phi", "low": 0.0, "high": 4.0, "num_cells": 2},
    }
    means = [
        {"0": [[0.0, 1e-3, 2e-3], [1e-3, 1.0, 1e-3]], "1": [[1e-3, 1e-3, 0.0], [0.0, 0.5, 2e-3]]},
        {"0": [[0.0, -1.0, 0.5], [0.25, 0.0, 2.0]], "1": [[0.0, 0.0, 0.0], [-2.0, 0.0, 1.0]]},
    ]
    names = ("sum(Jet_pt)", "max(Jet_btag)")
    axis = {"name": "px", "branches": ["Jet_px [GeV]"], "low": -3.0, "high": 3.0}
    return {
        "num_events": {"0": 4007, "1": 4009},
        "without_mean": ["0"],
        "axes": [{**axis, "num_cells": 3, "merged": 1, "is_periodic": True}],
        "channels": [
            {"name": name, "planes": [{**plane, "means": found}]}
            for name, found in zip(names, means, strict=True)
        ],
        "flat": [{"name": "MET_pt", "means": {"0": 0.125}}],
        "granularity": [{"plane": "Jet (px, phi)", "inside": 1000, "shared": 123, "factor": 4.0}],
    }


@pytest.fixture
def html(summary, specs, distributions):
    return render_page(summary, specs, distributions)


def test_page_and_its_figures_are_well_formed(html):
    page = Page(html)
    assert page.open == []
    assert html.startswith("<!DOCTYPE html>")
    figures = [svg for svg in svgs(html) if svg.get("role") == "img"]
    # loss and AUC, ROC and rejection, one collection, four branches before and after encoding
    assert len(figures) == 2 + 2 + 1 + 2 * 4
    for figure in figures:
        assert figure.find(f"{SVG}title").text
        assert figure.find(f"{SVG}desc").text


def test_page_needs_no_network_and_no_script(html):
    page = Page(html)
    without_namespace = html.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?://|@import|url\(", without_namespace)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert all(attributes.get("src") is None for _, attributes in page.tags)
    assert all(attributes["href"].startswith("#") for attributes in page.every("a"))


def test_links_lead_to_the_sections_in_their_order(html):
    page = Page(html)
    sections = [attributes["id"] for attributes in page.every("section")]
    assert [attributes["href"] for attributes in page.every("a")] == [f"#{s}" for s in sections]
    assert sections[0] == "events"
    assert sections[-1] == "serve"


def test_images_have_a_section_of_their_own(summary, specs, distributions, images, html):
    assert "Images" not in Page(html).text
    summary["counts"]["off_image"] = {"Jet (px, phi)": 77}
    summary["counts"]["shared_cell"] = {}
    found = render_page(summary, specs, distributions, images)
    page = Page(found)
    assert page.open == []
    sections = [attributes["id"] for attributes in page.every("section")]
    assert [attributes["href"] for attributes in page.every("a")] == [f"#{s}" for s in sections]
    assert "images" in sections
    assert "4,007 of 0: QCD; 4,009 of 1: ttH." in page.text
    assert "sum(Jet_pt) , logarithmic colour scale" in page.text
    assert "max(Jet_btag) , linear colour scale" in page.text
    assert f"MET_pt 0.125 {DASH}" in page.text
    assert f"px Jet_px [GeV] {MINUS}3 3 3 2 periodic 1" in page.text
    assert "Jet (px, phi) 77 0 12.30 4 times as many" in page.text
    for svg in svgs(found):
        texts = [text.text for text in svg.iter(f"{SVG}text")]
        if svg.find(f"{SVG}title") is not None and "in every cell" in svg[0].text:
            assert {"0: QCD", "1: ttH", "px: Jet_px [GeV]", "phi"} <= set(texts)
    assert Page(render_page({}, Specs(), {}, images)).open == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_cell_has_the_colour_of_its_mean_and_stands_where_the_axes_say(images, number):
    channel = images["channels"][number]
    svg = parse(channel_figure(channel, {}))
    frames = [p.get("d") for p in svg.iter(f"{SVG}path") if p.get("class") == "axis"][:2]
    heat = [p for p in svg.iter(f"{SVG}path") if p.get("class").startswith("heat")]
    drawn = {}  # by class, row and column: the mean that the colour stands for, relative
    for path in heat:
        sign = -1 if "negative" in path.get("class") else 1
        for box in re.findall(r"M([^z]*)z", path.get("d")):
            if "h" in box:  # the colour scale
                continue
            a, top, b, low = (float(n) for n in re.findall(r"[\d.]+", box)[:4])
            for place, frame in enumerate(frames):
                left, upper = (float(n) for n in re.findall(r"[\d.]+", frame)[:2])
                if left <= a < left + 190:
                    row = round((upper + 190 - low) / 95)
                    assert low - top == pytest.approx(95, abs=0.11)
                    for column in range(round((a - left) * 3 / 190), round((b - left) * 3 / 190)):
                        drawn[place, row, column] = sign * float(path.get("fill-opacity"))
    means = np.array([channel["planes"][0]["means"][key] for key in "01"])
    assert drawn.keys() == {tuple(place) for place in np.argwhere(means).tolist()}
    largest = np.abs(means).max()
    for place, opacity in drawn.items():
        share = abs(means[place]) / largest
        if number == 0:  # three powers of ten
            share = 1 + math.log10(share) / 3
        assert (abs(opacity) - 0.08) / 0.92 == pytest.approx(share, abs=1.01 / 23)
        assert (opacity < 0) == (means[place] < 0)


def test_an_image_without_objects_says_so(images):
    plane = {**images["channels"][0]["planes"][0], "means": {"0": [[0.0] * 3] * 2}}
    figure = channel_figure({"name": "a", "planes": [plane]}, {})
    assert "no object in any cell" in figure
    assert "no object in any cell" in channel_figure({"name": "a", "planes": []}, {})


def test_every_table_header_says_what_it_heads(html):
    headers = Page(html).every("th")
    assert headers
    assert {attributes["scope"] for attributes in headers} == {"col", "row", "colgroup"}


def test_every_count_of_the_summary_is_on_the_page(html, summary):
    text = Page(html).text
    words = {word.strip(",.;:") for word in text.split()}
    assert f"seed {summary.pop('seed')} " in text
    missing = [n for n in numbers_in(summary) if f"{n:,}" not in words]
    assert missing == []


def test_seeds_apart_are_said_in_words(summary, specs, distributions):
    summary["seed"] = {"split": 1, "order": 0, "weights": 2}
    text = Page(render_page(summary, specs, distributions)).text
    assert "seed split 1, order 0, weights 2" in text
    assert "seed split 1, order 0, weights 2." in card_of(summary)


def card_of(summary, **training):
    """The model card after a training of these keys."""
    samples = [
        {"name": each["name"], "label": each["label"], "files": "a.root"}
        for each in summary["samples"]
    ]
    keys = {"name": "t", "samples": samples, "training": training}
    config = Config.from_mapping(keys)
    return model_card(
        summary
        | {
            "config_yaml": config.to_yaml(),
            "kept_epoch": 2,
            "training": config.training.model_dump() | {"loss": "cross_entropy"},
        }
    )


def test_chunks_and_accumulated_batches_are_said_as_what_they_are(summary, specs, distributions):
    usual = card_of(summary)
    assert "Trained for 3 epochs, of which number 2 is kept, with a global batch of 256 on" in usual
    keys = {"strategy": "chunked", "chunk_events": 1000, "epochs": 4, "accumulate": 8}
    card = card_of(summary, **keys)
    assert (
        "Trained for 4 passes over each of 3 chunks of events; the network after number 2" in card
    )
    assert "with a global batch of at most 2048 on" in card
    summary["training"] |= {"strategy": "chunked"}
    summary["kept_epoch"] = 2
    assert "3 chunks done, number 2 kept" in " ".join(
        Page(render_page(summary, specs, distributions)).text.split()
    )


def test_every_name_reason_and_note_is_on_the_page(html, summary):
    text = Page(html).text
    counts = summary["counts"]
    expected = [
        *counts["left_out"],
        *counts["left_out"].values(),
        *counts["excluded"],
        *counts["identifiers"],
        *counts["notes"],
        counts["skipped"][0]["file"],
        counts["skipped"][0]["reason"],
        *(summary[key] for key in ("name", "created", "package", "command", "serve")),
        summary["model"]["callable"],
        *(stage["stage"] for stage in summary["stages"]),
    ]
    assert [word for word in expected if word not in text] == []
    assert summary["config_yaml"] in html


def test_branches_that_tell_of_target_and_weight_are_on_the_page(summary, specs, distributions):
    told = {"targets": ["Muon_charge", "charge"], "weights": ["genWeight"]}
    summary["counts"] |= {key: [] for key in told}
    assert "Read by" not in Page(render_page(summary, specs, distributions)).text
    summary["counts"] |= told
    text = Page(render_page(summary, specs, distributions)).text
    assert "Read by the target Muon_charge, charge" in text
    assert "Read by the weight genWeight" in text


def test_rate_of_the_run_is_events_read_over_the_seconds_of_all_stages(html):
    assert f"{701 / (0.5 + 0.75 + 5.75):.3g}" == "100"
    assert "events/s, whole run 100 7.0 s in 3 stages" in Page(html).text


def test_events_that_the_selection_removed_are_counted(html):
    text = Page(html).text
    assert f"planned {701 + 321:,} 100.00" in text
    assert f"not selected {701 - 601}" in text


def test_selected_events_that_no_split_holds_are_shown(summary, specs, distributions, html):
    assert (
        "Every selected event is in exactly one of train, validation and test." in Page(html).text
    )
    summary["samples"][0]["train"] -= 3
    page = Page(render_page(summary, specs, distributions))
    assert "Selected events and the sum of the splits differ by 3." in page.text


def test_skipped_ranges_of_unknown_length_are_said_to_be_in_no_number(
    summary, specs, distributions, html
):
    sentence = "entry ranges hold is unknown; they are in no number above."
    assert sentence not in Page(html).text
    summary["counts"]["skipped"].append({"file": "d.root", "entry_start": 0, "entry_stop": None})
    text = Page(render_page(summary, specs, distributions)).text
    assert f"How many events 1 of these {sentence}" in text


def test_nothing_lost_is_said_in_words(summary, specs, distributions):
    for key in ("not_finite", "out_of_range", "truncated", "left_out"):
        summary["counts"][key] = {}
    for key in ("skipped", "excluded", "identifiers"):
        summary["counts"][key] = []
    text = Page(render_page(summary, specs, distributions)).text
    assert "None: every planned event was read." in text
    assert "None: every branch asked for can be an input." in text
    assert text.count("None.") == 5
    assert "Not recorded." not in text


def test_unknown_is_told_apart_from_none(summary, specs, distributions):
    summary["counts"]["truncated"] = None
    del summary["counts"]["skipped"]
    text = Page(render_page(summary, specs, distributions)).text
    assert text.count("Not recorded.") == 2


def test_page_of_a_run_that_did_nothing_renders():
    page = Page(render_page({}, Specs(), {}))
    assert page.open == []
    assert f"AUC of the test set {DASH} not reached" in page.text


@pytest.mark.parametrize("value", [None, {}])
def test_any_key_of_the_summary_may_be_missing(summary, specs, distributions, value):
    for key in summary:
        assert Page(render_page({**summary, key: value}, specs, distributions)).open == []
        without = {name: entry for name, entry in summary.items() if name != key}
        assert Page(render_page(without, specs, distributions)).open == []
    for key in summary["counts"]:
        part = {**summary, "counts": {**summary["counts"], key: value}}
        assert Page(render_page(part, specs, distributions)).open == []


def test_a_missing_area_names_the_class_without_a_test_event(summary, specs, distributions):
    outputs = {"kind": "binary", "classes": ["QCD", "ttH"]}
    test = summary["test"] | {"auc": None, "confusion": [[9.0, 3.0], [0.0, 0.0]]}
    changed = summary | {"outputs": outputs, "test": test}
    assert dict(metric_rows(changed))["AUC"] == "none (no test event of ttH)"
    text = Page(render_page(changed, specs, distributions)).text
    assert f"AUC {DASH} (no test event of ttH)" in text
    test["confusion"][1] = [0.0, 1.0]
    assert dict(metric_rows(changed))["AUC"] == "none"


def test_unknown_numbers_are_an_en_dash(summary, specs, distributions):
    summary["test"] |= {"auc": math.nan, "loss": None}
    summary["epochs"][1]["validation"] = {}
    text = Page(render_page(summary, specs, distributions)).text
    assert f"AUC of the test set {DASH} " in text
    assert f"loss {DASH} AUC {DASH} accuracy {DASH} events 122" in text
    assert "nan" not in text
    assert "None" not in text


@pytest.mark.parametrize(
    "evil",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "]]>&amp;'", "\x00\ud800"],
)
def test_names_from_users_files_are_inert(summary, specs, distributions, images, evil):
    html = render_page(summary, specs, distributions, images)

    def poison(value):
        if isinstance(value, dict):
            return {key: poison(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [poison(entry) for entry in value]
        return evil if isinstance(value, str) else value

    poisoned = poison(summary)
    for key in ("not_finite", "out_of_range", "truncated", "left_out"):
        poisoned["counts"][key] = {evil: 1}
    branch = Branch(evil, "jagged", "float64", evil, evil)
    offsets = {evil: np.array([0, 1, 2])}
    events = Events(2, (branch,), {evil: np.array([1.0, 2.0])}, offsets)
    histogram = {"edges": [0, 1], "counts": {evil: [3]}}
    branches = {evil: {"raw": histogram, "encoded": histogram}}
    shown = poison(images)
    shown["num_events"] = {evil: 1}
    for channel in shown["channels"]:
        channel["planes"][0]["means"] = {evil: channel["planes"][0]["means"]["0"]}
    found = render_page(poisoned, measure(events, sample=evil), {"branches": branches}, shown)
    page = Page(found)
    assert page.open == []
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Page(html).tags}
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert svgs(found)
    found.encode("utf-8")


def test_specs_of_every_branch_are_listed(html, specs):
    text = Page(html).text
    for name, entry in specs.branches.items():
        assert re.search(rf"{name} (constant |no finite value )?{entry.branch.kind} ", text)
    jets = specs.branches["Jet_pt"]
    num_values = f"{jets.moments.num_values:,}"
    assert f"Jet_pt jagged float32 GeV table of 7 points 4 {num_values} 2 2 2 " in text
    assert f"year constant flat int64 {DASH} {DASH} {DASH} 600 0 0 0 2,018 2,018 2,018 0" in text
    assert (
        f"empty no finite value flat float64 {DASH} {DASH} {DASH} 600 600 0 0" + 4 * f" {DASH}"
        in text
    )


def test_branch_that_separates_best_comes_first_and_the_rest_are_folded(summary, specs):
    def branch(overlap):
        counts = {"0": [100 - overlap, overlap], "1": [overlap, 100 - overlap]}
        return {"raw": {"edges": [0, 1, 2], "counts": counts}, "encoded": {}}

    branches = {f"b{overlap}": branch(overlap) for overlap in range(50, 30, -1)}
    html = render_page(summary, specs, {"num_events": 9, "branches": branches})
    order = re.findall(r"<figcaption><b>(b\d+)</b>", html)
    assert order == [f"b{overlap}" for overlap in range(31, 51)]
    shown, folded = html.split("8 more branches")
    assert shown.count('class="card"') == 12
    assert folded.count('class="card"') == 8


def test_separation_is_0_for_equal_and_1_for_disjoint_histograms():
    assert separation([1, 2, 3], [10, 20, 30]) == pytest.approx(0)
    assert separation([1, 2, 0, 0], [0, 0, 7, 9]) == pytest.approx(1)
    # half of (0.5 - 1)^2 / 1.5 + (0.5 - 0)^2 / 0.5
    assert separation([1, 1], [4, 0]) == pytest.approx((0.25 / 1.5 + 0.25 / 0.5) / 2)
    assert separation([0, 0], [1, 2]) is None


def test_normalisation_widths_and_order_are_shown(html):
    text = Page(html).text
    assert "MET_pt flat float64 GeV log-robust" in text
    assert "Jet_pt jagged float32 GeV table of 7 points" in text
    assert "width 3, sorted by -Jet_pt; 8,128 objects left out" in text


def test_background_efficiency_at_a_working_point_lies_on_the_curve(html):
    # the curve is straight between (0.1, 0.6) and (0.4, 0.9)
    background = 0.1 + 0.3 * (0.7 - 0.6) / (0.9 - 0.6)
    assert f"70 {100 * background:.3g} {1 / background:.3g}" in Page(html).text


@pytest.mark.slow
def test_report_is_made_without_matplotlib_dask_or_torch():
    code = "import mlaas4hep_dask.report.records, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "dask", "torch"} & set(done.stdout.split())


def scale_of(svg, axis):
    """Function from pixels to values, from the ticks that a reader sees."""
    anchor, key = ("middle", "x") if axis == "x" else ("end", "y")
    ticks = [t for t in svg.iter(f"{SVG}text") if t.get("text-anchor") == anchor and t.get(key)]
    ticks = [t for t in ticks if re.fullmatch(r"[-\d.]+", plain(t.text))]
    at = [float(tick.get(key)) for tick in ticks]
    values = [float(plain(tick.text)) for tick in ticks]
    if axis == "y":  # labels stand 0.35 of the font size below their grid line
        at = [position - 0.35 * float(svg.get("font-size")) for position in at]
    slope, origin = np.polyfit(at, values, 1)
    return lambda position: slope * position + origin


def corners(path):
    """Positions along a path of M, H, V and L commands."""
    x = y = 0.0
    for command, arguments in re.findall(r"([MHVL])([^MHVL]*)", path):
        values = [float(n) for n in arguments.split()]
        x = values[0] if command in "MHL" else x
        y = values[-1] if command in "MVL" else y
        yield x, y


def test_histogram_has_the_density_of_each_bin_as_its_height():
    edges, counts = [0.0, 1.0, 3.0, 4.0], {"a": [2, 12, 6], "b": [5, 0, 5]}
    svg = parse(step_histogram(edges, counts, title="t", log=False))
    to_x, to_y = scale_of(svg, "x"), scale_of(svg, "y")
    outlines = [p.get("d") for p in svg.iter(f"{SVG}path") if p.get("class") in ("c0 fill", "c1")]
    for values, outline in zip(counts.values(), outlines, strict=True):
        drawn = [(to_x(x), to_y(y)) for x, y in corners(outline)]
        density = np.array(values) / sum(values) / np.diff(edges)
        for (low, high), expected in zip(pairwise(edges), density, strict=True):
            tops = [
                y
                for (x_a, y_a), (x_b, y) in pairwise(drawn)
                if y_a == y and x_a <= (low + high) / 2 <= x_b
            ]
            assert tops == [pytest.approx(expected, abs=0.003)]


def test_logarithmic_histogram_is_linear_in_the_powers_of_ten():
    figure = step_histogram([0, 1, 2, 3], {"a": [1, 100, 0]}, title="t", density=False, log=True)
    outline = re.search(r'class="c0 fill" d="([^"]+)"', figure).group(1)
    (_, base), (_, one), _, (_, hundred), *_, (_, empty), _ = corners(outline)
    assert 2 * (base - one) == pytest.approx(one - hundred, abs=0.3)  # the base line is at 0.1
    assert empty == base


def test_line_chart_draws_its_points_where_the_axes_say():
    x, y = [1, 2, 3, 4], [0.5, 0.25, 0.75, 0.3]
    figure = line_chart([Line("a", x, y)], title="t", x_label="x", y_label="y")
    svg = parse(figure)
    to_x, to_y = scale_of(svg, "x"), scale_of(svg, "y")
    path = [p.get("d") for p in svg.iter(f"{SVG}path") if p.get("class") == "c0 line"][-1]
    drawn = [(to_x(a), to_y(b)) for a, b in corners(path)]
    np.testing.assert_allclose(drawn, list(zip(x, y, strict=True)), atol=0.01)


def test_missing_values_interrupt_a_curve():
    y = [1.0, 2.0, None, 3.0, math.nan, 4.0, 5.0]
    figure = line_chart([Line("a", range(7), y)], title="t", x_label="x", y_label="y")
    path = re.findall(r'class="c0 line" d="([^"]+)"', figure)[-1]
    assert path.count("M") == 3
    assert figure.count("marker") == 5


def test_axis_of_epochs_has_whole_ticks_only():
    for last in (1, 2, 3, 7, 40):
        axis = Axis.around([1, last], whole=True)
        values = [value for value, _ in axis.ticks()]
        assert values == [round(value) for value in values]
        assert len(values) >= min(last, 3)


def test_ticks_have_the_digits_that_tell_them_apart():
    assert [text for _, text in Axis(0, 1).ticks()] == ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [plain(text) for _, text in Axis(-20, 20).ticks()] == ["-20", "-10", "0", "10", "20"]
    assert [text for _, text in Axis(1e-3, 10, log=True).ticks()] == [
        "10⁻³",
        "10⁻²",
        "10⁻¹",
        "1",
        "10",
    ]
    assert [plain(label(x)) for x in (0.0, 1234.5, -1e-7, 2.5e9)] == [
        "0",
        "1234",
        "-10⁻⁷",
        "2.5x10⁹",
    ]


def test_figure_without_data_says_why():
    assert "no entries" in step_histogram([], {}, title="t")
    assert "no entries" in step_histogram([0, 1], {"a": [0]}, title="t")
    assert "all values are 7" in step_histogram([7, 7], {"a": [100]}, title="t")
    assert "no values" in line_chart([], title="t", x_label="x", y_label="y")
    assert "no values" in roc_curves(
        [Line("test", [math.nan], [0.5])], title="t", x_label="x", y_label="y"
    )
    assert bar(None) == ""


weird = (
    st.none() | st.floats() | st.integers(-10, 10) | st.sampled_from([5e-324, 1.7e308, -1.7e308])
)
numbers = st.floats() | st.sampled_from([0.0, 1.0, 5e-324, 1e-300, 1.7e308, -1.7e308])
names = st.text(max_size=60)


def require_inside(svg):
    root = parse(svg)
    _, _, width, height = map(float, root.get("viewBox").split())
    for path in root.iter(f"{SVG}path"):
        assert "nan" not in path.get("d")
        assert "inf" not in path.get("d")
        if path.get("class", "").endswith("marker"):
            continue
        for x, y in corners(path.get("d").split("h")[0].split("v")[0]):
            assert -0.1 <= x <= width + 0.1
            assert -0.1 <= y <= height + 0.1


@given(
    edges=st.lists(numbers, max_size=8) | st.lists(numbers, max_size=8).map(sorted),
    counts=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.lists(numbers, max_size=8)),
    title=names,
    density=st.booleans(),
    log=st.sampled_from([None, True, False]),
)
def test_histogram_of_any_numbers_stays_inside_its_figure(edges, counts, title, density, log):
    require_inside(step_histogram(edges, counts, title=title, density=density, log=log))


@given(
    curves=st.lists(st.tuples(names, st.lists(st.tuples(weird, weird), max_size=25)), max_size=8),
    log=st.booleans(),
    whole=st.booleans(),
)
def test_line_chart_of_any_numbers_stays_inside_its_figure(curves, log, whole):
    lines = [Line(name, [x for x, _ in points], [y for _, y in points]) for name, points in curves]
    svg = line_chart(lines, title="t", x_label="<x>", y_label="&", log_y=log, whole_x=whole)
    require_inside(svg)


@given(points=st.lists(st.tuples(weird, weird), max_size=20), name=names)
def test_roc_curve_of_any_numbers_stays_inside_its_figure(points, name):
    curve = Line(name, [x for x, _ in points], [y for _, y in points])
    require_inside(roc_curves([curve], title="t", x_label="x", y_label="y"))


@given(fraction=weird)
def test_bar_is_never_longer_than_its_track(fraction):
    svg = bar(fraction)
    widths = [float(rect.get("width")) for rect in parse(svg)] if svg else []
    assert all(0 <= width <= 100 for width in widths)


@given(values=st.lists(st.floats(-1e300, 1e300), min_size=1), whole=st.booleans())
def test_axis_holds_its_values_and_a_few_ascending_ticks(values, whole):
    axis = Axis.around(values, whole=whole)
    assert axis.low <= min(values) <= max(values) <= axis.high
    ticks = [value for value, _ in axis.ticks()]
    assert len(ticks) <= 9
    assert ticks == sorted(ticks)
