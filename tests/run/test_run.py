import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings

import awkward as ak
import httpx
import jsonschema
import numpy as np
import pytest
import torch
import yaml
from distributed import LocalCluster
from paths import TUTORIAL

from mlaas4hep_dask import journal
from mlaas4hep_dask.bundle import open_bundle, write_bundle
from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.cluster.reach import Bounds
from mlaas4hep_dask.config import Cluster, load
from mlaas4hep_dask.console import is_said
from mlaas4hep_dask.encode import encode
from mlaas4hep_dask.errors import ClusterError, ConfigError, RecordError, WriteError
from mlaas4hep_dask.places import BLOCKS
from mlaas4hep_dask.reader import plan_file, read
from mlaas4hep_dask.report import model_card, render
from mlaas4hep_dask.run.cli import main
from mlaas4hep_dask.run.directory import RunDirectory
from mlaas4hep_dask.train.network import dense

pytestmark = pytest.mark.cluster

DATASET = TUTORIAL / "dataset.yaml"


def run(*arguments, **options):
    command = [sys.executable, "-m", "mlaas4hep_dask.run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tutorial's run as a newcomer does it, in a folder of its own."""
    folder = tmp_path_factory.mktemp("tutorial")
    done = run(DATASET, "--output", "runs/first", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "runs" / "first", done.stdout


def test_the_tutorial_reaches_its_auc_with_every_event_accounted_for(finished):
    path, printed = finished
    metrics = json.loads((path / "metrics.json").read_text())
    counts = metrics["counts"]
    assert metrics["test"]["auc"] >= 0.87
    assert counts["events_read"] == counts["events_selected"] == 16_052
    assert counts["events_skipped"] == 0
    samples = metrics["samples"]
    assert sum(s["train"] + s["validation"] + s["test"] for s in samples) == 16_052
    assert f"{metrics['test']['auc']:.4f}" in printed
    assert "16,052" in printed
    assert re.search(r"dashboard: http://127\.0\.0\.1:\d+/status", printed)
    assert re.search(r"serve it: \S*python\S* -m mlaas4hep_dask\.serve runs/first/bundle", printed)


def test_generator_truth_and_weights_are_not_inputs(finished):
    path, _ = finished
    inputs = {branch["name"] for branch in json.loads((path / "plan.json").read_text())["inputs"]}
    assert not [name for name in inputs if name.startswith("MC")]
    assert "EventWeight" not in inputs
    assert {"Jet_btag", "Jet_ID", "Muon_Iso", "MET_px"} <= inputs


def test_the_run_directory_holds_everything_and_no_half_written_file(finished):
    path, _ = finished
    names = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}
    kept = json.loads((path / "metrics.json").read_text())["kept_epoch"]
    assert names == {
        ".lock",
        "bundle/golden.json",
        "bundle/manifest.json",
        "bundle/model.pt",
        "bundle/model_card.md",
        "bundle/specs.json",
        "checkpoints/epoch-15.pt",
        f"checkpoints/epoch-{kept}.pt",
        "checkpoints/epochs.json",
        "config.yaml",
        "distributions.json",
        "journal.jsonl",
        "metrics.json",
        "plan.json",
        "report.html",
        "run.json",
        "specs.json",
    }
    assert json.loads((path / "run.json").read_text())["status"] == "complete"
    assert load(path / "config.yaml").training == load(DATASET).training


def test_the_report_is_made_again_from_the_run_directory_alone(finished, tmp_path):
    path, _ = finished
    code = """
import sys
from pathlib import Path
from mlaas4hep_dask.report import model_card, render
Path(sys.argv[2]).write_text(render(sys.argv[1]), encoding="utf-8")
rooms = {f"mlaas4hep_dask.{room}" for room in ("run", "dataset", "reader", "train", "inputs")}
loaded = {"dask", "distributed", "torch", "uproot", "matplotlib", *rooms} & sys.modules.keys()
assert not loaded, loaded
"""
    again = tmp_path / "again.html"
    subprocess.run([sys.executable, "-c", code, str(path), str(again)], check=True, timeout=120)
    assert again.read_text(encoding="utf-8") == (path / "report.html").read_text(encoding="utf-8")


def test_the_model_card_is_made_again_from_the_numbers_of_the_run(finished):
    path, _ = finished
    metrics = json.loads((path / "metrics.json").read_text())
    card = model_card(metrics)
    assert card == (path / "bundle/model_card.md").read_text()
    losses = [epoch["validation"]["loss"] for epoch in metrics["epochs"]]
    best = losses.index(min(losses)) + 1
    said = f"Trained for 15 epochs, of which number {best} is kept, with a global batch of 256"
    assert said in card
    assert "on 2 ranks, learning rate 0.003, seed 0." in card


def test_the_journal_tells_what_the_console_said_and_metrics_hold(finished):
    path, printed = finished
    records = journal.read(path)
    metrics = json.loads((path / "metrics.json").read_text())
    assert (records.status, records.cut) == ("complete", ())
    stages = [end.as_json() for end in records.of(journal.StageEnd)]
    assert stages == metrics["stages"]
    assert [each.stage for each in records.of(journal.Stage)] == [s["stage"] for s in stages]
    assert [each.metrics for each in records.epochs] == metrics["epochs"]
    notes = [each.text for each in records.of(journal.Note)]
    assert notes == metrics["counts"]["notes"]
    lines = [journal.text(record) for record in records if is_said(record)]
    said = printed.splitlines()
    begin = said.index(lines[0])
    assert said[begin : begin + len(lines)] == lines
    (first,) = records.of(journal.Run)
    assert first.name == metrics["name"]
    assert first.command == metrics["command"]


def test_a_report_of_a_folder_without_records_names_the_file(finished, tmp_path):
    with pytest.raises(RecordError, match=r"metrics.json cannot be read \(No such file"):
        render(tmp_path)
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run/distributions.json").write_text('{"num_events": 1')
    with pytest.raises(RecordError, match=r"distributions.json is no JSON: "):
        render(tmp_path / "run")


def serve(bundle):
    """A real server process and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlaas4hep_dask.serve", str(bundle), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found:
            return process, found.group(0)
    raise AssertionError(f"the server ended with {process.wait()}")


def test_the_served_score_is_the_score_of_the_trained_network(finished, cms_files):
    path, _ = finished
    bundle = open_bundle(path / "bundle")
    names = [branch.name for branch in bundle.encoding.branches]
    network = dense(bundle.encoding.layout.num_columns)
    kept = json.loads((path / "metrics.json").read_text())["kept_epoch"]
    state = torch.load(path / "checkpoints" / f"epoch-{kept}.pt", weights_only=True)
    network.load_state_dict(state["network"])
    network.eval()
    for file in cms_files:
        plan = plan_file(str(file), "events", "any")
        planned = plan.planned(names).partitions(
            target_bytes=1 << 40, max_events=300, num_entries=plan.num_entries
        )
        events = read(planned[1], [plan.branches[name] for name in names])
        with torch.no_grad():
            rows = torch.from_numpy(encode(events, bundle.encoding).dense())
            trained = torch.sigmoid(network(rows)).reshape(-1).numpy()
        process, url = serve(path / "bundle")
        try:
            payload = {"events": ak.to_list(events.to_awkward())}
            answer = httpx.post(f"{url}/v1/models/single-top/predict", json=payload, timeout=30)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=20)
            process.stdout.close()
        assert answer.status_code == 200, answer.text
        np.testing.assert_allclose(answer.json()["scores"], trained, rtol=0, atol=1e-6)


def test_the_torchscript_file_alone_scores_raw_padded_columns(finished, cms_events):
    path, _ = finished
    bundle = open_bundle(path / "bundle")
    encoded = encode(cms_events, bundle.encoding)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is our contract
        model = torch.jit.load(bundle.model_path)
    columns = bundle.manifest["input"]["columns"]
    records = cms_events.to_awkward()[:50]
    raw = np.full((50, len(columns)), np.nan)
    for place, column in enumerate(columns):
        name, _, index = column.partition("[")
        if index:
            padded = ak.pad_none(records[name], int(index[:-1]) + 1)[:, int(index[:-1])]
            raw[:, place] = ak.to_numpy(ak.fill_none(ak.values_astype(padded, float), np.nan))
        else:
            raw[:, place] = ak.to_numpy(records[name])
    with torch.no_grad():
        scores = model(torch.from_numpy(raw))
        rows, missing = encoded.dense()[:50], encoded.missing()[:50]
        expected = model.score_encoded(torch.from_numpy(rows), torch.from_numpy(missing))
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


def test_a_second_run_moves_the_first_aside(finished, tmp_path):
    folder = tmp_path / "run"
    with RunDirectory(folder) as first:
        first.begin({"letter": "a"})
        first.write("note", "kept")
        blocks = first.write(f"{BLOCKS}-0123/0123-0", b"").parent
        first.complete()
        assert not blocks.exists()  # a run that goes on would take them
    with RunDirectory(folder) as second:
        second.begin({"letter": "b"})
        assert second.moved_to == tmp_path / "run.1"
        assert not second.resumed
    assert (tmp_path / "run.1" / "note").read_text() == "kept"


def test_a_folder_that_is_not_a_run_is_never_touched(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main([str(DATASET), "--output", str(tmp_path)]) == 2
    assert "holds 'thesis.txt' and no run" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no run"), RunDirectory(tmp_path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.timeout(200)
def test_a_run_killed_before_its_report_is_taken_up(finished, tmp_path):
    path, _ = finished
    shutil.copytree(path, tmp_path / "run")
    state = json.loads((path / "run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps({**state, "status": "running"}))
    (tmp_path / "run/report.html").unlink()
    done = run(DATASET, "--output", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "after epoch 15" in done.stdout
    assert (tmp_path / "run/report.html").exists()
    assert measured(tmp_path / "run") == measured(path)


def test_a_full_disk_names_the_file_and_leaves_none(finished, tmp_path):
    bundle = open_bundle(finished[0] / "bundle")
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, kept[1]))
    try:
        folder = RunDirectory(tmp_path)
        with pytest.raises(WriteError, match=r"specs.json cannot be written \(File too large"):
            folder.write("specs.json", bundle.specs.to_json())
        with pytest.raises(WriteError, match=r"bundle cannot be written \(File too large"):
            write_bundle(
                tmp_path / "bundle",
                name="any",
                model=b"",
                specs=bundle.specs,
                encode=bundle.manifest["encode"],
                metrics={},
                data={},
                card="",
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_cannot_write_to_one_folder(tmp_path):
    with (
        RunDirectory(tmp_path / "run"),
        pytest.raises(ConfigError, match="another run is writing"),
        RunDirectory(tmp_path / "run"),
    ):
        pass


def measured(path):
    epochs = json.loads((path / "metrics.json").read_text())["epochs"]
    splits = ("train", "validation", "test")
    return [{name: epoch[name] for name in splits if name in epoch} for epoch in epochs]


@pytest.mark.timeout(280)
def test_a_killed_run_is_taken_up_after_its_last_epoch(tmp_path):
    settings = ["--set", "training.epochs=8"]
    command = [sys.executable, "-m", "mlaas4hep_dask.run", DATASET, "--output", "killed"]
    killed = tmp_path / "killed"
    process = subprocess.Popen([*map(str, command), *settings], cwd=tmp_path, process_group=0)
    deadline = time.monotonic() + 120
    num_records, has_epoch = 0, False
    while not has_epoch:
        assert process.poll() is None
        assert time.monotonic() < deadline
        if (killed / "journal.jsonl").exists():
            records = journal.read(killed)  # while the other process writes to it
            assert len(records) >= num_records
            num_records, has_epoch = len(records), bool(records.of(journal.Epoch))
        time.sleep(0.01)  # polls for the first epoch of the other process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done_before = len(json.loads((killed / "checkpoints/epochs.json").read_text())["epochs"])
    assert done_before < 8
    before = journal.read(killed)
    assert num_records <= len(before)
    assert (before.cut, before.status) == ((), "running")
    assert [each.stage for each in before.of(journal.Stage)][-1] == "train"
    assert len(before.of(journal.Run)) == 1
    page = render(killed)  # of what there is
    assert "The run has not ended: it is at work, or was killed." in page
    assert "loss of each split after each epoch" in page
    assert "Jet_btag before encoding" in page
    assert "4 files, 4 partitions" in page
    assert page.count("16,052") >= 2  # read and selected
    with (killed / "journal.jsonl").open("ab") as file:
        file.write(b'{"version": 1, "time": "20')  # as much as an unlucky moment leaves of a line
    again = run(DATASET, "--output", "killed", *settings, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert re.search(r"taking up the run in .*killed after epoch \d", again.stdout)
    after = journal.read(killed)
    assert list(after)[: len(before)] == list(before)
    assert after.cut == (len(before) + 1,)
    assert after.status == "complete"
    assert len(after.of(journal.Run)) == 2
    assert [each.epoch for each in after.of(journal.Epoch)] == list(range(1, 9))
    assert [e.metrics for e in after.epochs] == json.loads((killed / "metrics.json").read_text())[
        "epochs"
    ]
    whole = run(DATASET, "--output", "whole", *settings, cwd=tmp_path)
    assert whole.returncode == 0
    assert measured(killed) == measured(tmp_path / "whole")


@pytest.mark.nightly
@pytest.mark.timeout(200)
def test_a_run_joins_a_scheduler_that_is_already_there(tmp_path):
    scheduler = subprocess.Popen(
        [
            *(sys.executable, "-m", "distributed.cli.dask_scheduler"),
            *("--host", "127.0.0.1", "--port", "0", "--no-dashboard"),
            *("--scheduler-file", str(tmp_path / "scheduler.json")),
        ],
        stderr=subprocess.DEVNULL,
    )
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1"),
                *("--scheduler-file", str(tmp_path / "scheduler.json"), "--no-dashboard"),
                *("--local-directory", str(tmp_path)),
            ],
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    file = tmp_path / "scheduler.json"
    try:
        while not file.exists() or not file.stat().st_size:
            assert scheduler.poll() is None
            time.sleep(0.05)  # polls for the scheduler's file
        address = json.loads(file.read_text())["address"]
        settings = ["--cluster", address, "--set", "training.epochs=1"]
        done = run(DATASET, "--output", "run", *settings, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "run/metrics.json").read_text())["test"]["auc"] > 0.7
        assert scheduler.poll() is None  # it is not ours to close
    finally:
        for process in (*workers, scheduler):
            process.terminate()
            process.wait(timeout=30)


def test_a_scheduler_without_workers_is_named():
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as empty:
        options = Cluster(address=empty.scheduler_address)
        with (
            pytest.raises(ClusterError, match="1 worker needed, and after 1 s the cluster has 0"),
            connect(options, ranks=1, bounds=Bounds(worker=1)),
        ):
            pass


def test_a_scheduler_that_does_not_answer_is_named():
    options = Cluster(address="tcp://127.0.0.1:1")
    with (
        pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"),
        connect(options, ranks=1, bounds=Bounds(listen=1)),
    ):
        pass


def test_a_run_without_a_scheduler_ends_with_status_2(tmp_path, capsys):
    address = "tcp://no-such-host.invalid:1"
    assert main([str(DATASET), "--cluster", address, "--output", str(tmp_path)]) == 2
    assert "there is no host 'no-such-host.invalid'" in capsys.readouterr().err


def test_check_prints_the_plan_and_reads_no_events(capsys):
    assert main([str(DATASET), "--check"]) == 0
    printed = capsys.readouterr().out
    assert "16,052 events" in printed
    assert "sample single_top: label 1" in printed
    assert "excluded: EventWeight" in printed
    assert "accepts rows" in printed


def test_check_and_run_name_an_old_word_once_with_its_line(tmp_path):
    text = load(DATASET, ["specs.mode=subset"]).to_yaml(absolute=True)
    line = text.splitlines().index("  mode: subset") + 1
    (tmp_path / "old.yaml").write_text(text.replace("  mode: subset", "  mode: sample"))
    words = f"WARNING: old.yaml:{line}: specs.mode: 'sample' is called 'subset' now"
    checked = run("old.yaml", "--check", cwd=tmp_path)
    assert (checked.returncode, checked.stdout.count(words)) == (0, 1), checked.stderr
    done = run("old.yaml", "--output", "runs/old", "--set", "training.epochs=1", cwd=tmp_path)
    assert (done.returncode, (done.stdout + done.stderr).count(words)) == (0, 1), done.stderr
    again = load(tmp_path / "runs/old/config.yaml")
    assert (again.specs.mode, again.cautions) == ("subset", ())


def test_schema_prints_a_schema_that_accepts_the_tutorial(capsys):
    assert main(["--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.validate(yaml.safe_load(DATASET.read_text()), schema)


def test_help_reads_like_a_page(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for word in ("--check", "--schema", "--set", "--cluster", "Examples:", "Exit status:"):
        assert word in printed


BAD = {
    "an unknown key": ({"epochs": 3}, "dataset.yaml:", "training.epochs"),
    "an unknown key in a section": ({"training": {"epoch": 3}}, "did you mean 'epochs'"),
    "a wrong type": ({"training": {"epochs": "many"}}, "training.epochs"),
    "a missing branch": ({"branches": {"include": ["Jet_Pxx"]}}, "did you mean 'Jet_Px'"),
    "a pattern that matches nothing": ({"branches": {"exclude": ["MCx*"]}}, "MCx*"),
    "an unknown tree": ({"tree": "event"}, "did you mean 'events'"),
    "an unknown model": ({"model": {"callable": "nowhere.networks:mlp"}}, "nowhere"),
    "an unknown callable": (
        {"model": {"callable": "mlaas4hep_dask.train.network:mpl"}},
        "did you mean 'mlp'",
    ),
    "fewer workers than ranks": ({"cluster": {"workers": 1}}, "cluster.workers", "ranks (2)"),
    "a seed beyond 63 bits": ({"seed": 2**64}, "seed"),
    "an empty sample": (
        {
            "samples": [
                {"name": "a", "label": 1, "files": []},
                {"name": "b", "label": 0, "files": "data/cms_heptutorial_ww.root"},
            ]
        },
        "empty",
    ),
    "a missing file": (
        {
            "samples": [
                {"name": "a", "label": 1, "files": "data/cms_heptutorial_wx.root"},
                {"name": "b", "label": 0, "files": "data/cms_heptutorial_ww.root"},
            ]
        },
        "cms_heptutorial_w",
    ),
    "two samples with one file": (
        {
            "samples": [
                {"name": "a", "label": 1, "files": "data/cms_heptutorial_ww.root"},
                {"name": "b", "label": 0, "files": "data/cms_heptutorial_ww.root"},
            ]
        },
        "'a'",
        "'b'",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_configuration_fails_early_with_its_message(fault, tmp_path, capsys):
    change, *expected = BAD[fault]
    content = {**yaml.safe_load(DATASET.read_text()), **change}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "data").symlink_to(DATASET.parent / "data")
    output = tmp_path / "run"
    assert main([str(tmp_path / "dataset.yaml"), "--output", str(output)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    for text in expected:
        assert text in message
    assert "Traceback" not in message
    assert not output.exists()  # nothing was started


def test_the_command_tells_of_a_file_that_it_left_out(tmp_path, capsys, cms_files):
    cut = tmp_path / "cut.root"
    cut.write_bytes(cms_files[1].read_bytes()[:1_000])
    content = yaml.safe_load(DATASET.read_text())
    content["samples"][0]["files"] = str(cms_files[0])
    content["samples"][1]["files"] = [str(cut), str(cms_files[3])]
    content |= {"on_bad_file": "skip", "training": {"epochs": 1}}
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(content))
    run = [str(tmp_path / "dataset.yaml"), "--output", str(tmp_path / "run")]
    assert main(run) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "│ files that did not open │ 1" in " ".join(lines)
    assert [line for line in lines if line.startswith(f"skipped: {cut}:events (")]
    # The specs of fewer events, used for all: what lies outside is counted in the table too.
    first = json.loads((tmp_path / "run" / "metrics.json").read_text())["counts"]
    assert first["out_of_range"] == {}
    content["samples"][1]["files"] = [str(file) for file in cms_files[1:]]
    content["specs"] = "run"
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(content))
    run[-1] = str(tmp_path / "more")
    assert main(run) == 0
    counts = json.loads((tmp_path / "more" / "metrics.json").read_text())["counts"]
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "out of range" in line]
    assert f"│ {sum(counts['out_of_range'].values()):,} " in row


def test_a_set_option_overrides_the_file(tmp_path, capsys):
    assert main([str(DATASET), "--check", "--set", "tree=Event"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: override 'tree=Event': tree: tree 'Event' is not in ")
    assert "did you mean 'events'" in told
    assert main([str(DATASET), "--check", "--set", "trainin.epochs=1"]) == 2
    assert "training" in capsys.readouterr().err


def interrupted(folder, facts, more):
    """A run directory that is taken up and left again before the run is complete."""
    with RunDirectory(folder) as made:
        made.begin(facts)
        made.settle(more)
        made.write_json("checkpoints/epochs.json", {})
    return made


def test_a_run_under_other_facts_is_not_taken_up_and_the_change_is_named(tmp_path):
    folder = tmp_path / "run"
    facts = {"model": {"module layers": "a" * 64}, "keys": {"seed": 3}}
    encoding = {"normalisation": {"x": {"scale": 2.0}}}
    first = interrupted(folder, facts, encoding)
    assert not first.resumed
    blocks = first.write(f"{BLOCKS}-0123/0123-0", b"")
    assert interrupted(folder, facts, encoding).resumed
    assert blocks.exists()
    encoded = interrupted(folder, facts, {"normalisation": {"x": {"scale": 3.0}}})
    assert not encoded.resumed
    assert encoded.changed == "normalisation: x: scale is 3.0, was 2.0"
    assert encoded.moved_to == tmp_path / "run.1"
    assert not [*tmp_path.glob(f"*/{BLOCKS}-*")]
    other = {"model": {"module layers": "b" * 64}, "keys": {"seed": 4}}
    changed = interrupted(folder, other, encoding)
    assert not changed.resumed
    assert changed.changed == "model: module layers changed; keys: seed is 4, was 3"
    assert changed.moved_to == tmp_path / "run.2"
