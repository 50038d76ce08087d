import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from urllib.parse import unquote

import click
import nbformat
import numpy as np
import pytest
import uproot
from nbclient import NotebookClient
from paths import REPOSITORY

from mlaas4hep_dask.__main__ import door
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.config.document import parse

pytestmark = pytest.mark.slow

PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        *(REPOSITORY / "jobqueue").rglob("*.md"),
        *(REPOSITORY / "workflows").rglob("*.md"),
    ]
)
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
DEVELOPER_PATH = re.compile(r"(?<![\w.])/(?:home|work|root|Users)/\w+")
MINIMAL = {
    "samples": [
        {"name": "signal", "label": 1, "files": "a.root"},
        {"name": "background", "label": 0, "files": "b.root"},
    ]
}

WARNINGS = ["-W", "error"]
if sys.version_info >= (3, 14):  # where PyTorch warns of every use of TorchScript, the page's too
    WARNINGS += ["-W", "ignore:`torch.jit:FutureWarning"]
# A page's blocks run in one namespace, with line numbers of the page. Workers that are started by
# them import this script again, and must find nothing to do.
RUNNER = """
import json
import sys
from pathlib import Path


def main():
    namespace = {"__name__": "page"}
    for page, line, code in json.loads(Path(sys.argv[1]).read_text()):
        exec(compile("\\n" * line + code, page, "exec"), namespace)


if __name__ == "__main__":
    main()
"""


def name_of(page):
    return str(page.relative_to(REPOSITORY))


def blocks(page, language):
    """Line number and text of the page's blocks in a language."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if found[1].strip() == language:
            yield text.count("\n", 0, found.start(2)), textwrap.dedent(found[2])


def prose(page):
    """The page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page):
    """What can stand after '#' in a link to the page."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def run_python(arguments, *, folder, timeout=240):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def tutorial_run(tmp_path_factory):
    """The folder of the tutorial, after its run."""
    folder = tmp_path_factory.mktemp("tutorial")
    copy_workflows(folder)
    dataset = "workflows/heptutorial/dataset.yaml"
    run_python(["-m", "mlaas4hep_dask.run", dataset], folder=folder)
    return folder


def copy_workflows(folder):
    ignored = shutil.ignore_patterns("runs", ".ipynb_checkpoints")
    shutil.copytree(REPOSITORY / "workflows", folder / "workflows", ignore=ignored)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(blocks(page, "python"))], ids=name_of
)
def test_the_python_of_a_page_runs_without_a_warning(page, tmp_path, tutorial_run):
    copy_workflows(tmp_path)
    shutil.copytree(tutorial_run / "runs", tmp_path / "runs")
    code = [(name_of(page), line, text) for line, text in blocks(page, "python")]
    (tmp_path / "blocks.json").write_text(json.dumps(code))
    (tmp_path / "run_page.py").write_text(RUNNER)
    run_python([*WARNINGS, "run_page.py", "blocks.json"], folder=tmp_path)


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page, "yaml"))], ids=name_of)
def test_the_yaml_of_a_page_is_a_valid_configuration(page):
    for line, text in blocks(page, "yaml"):
        document, _ = parse(text, place=f"{name_of(page)}:{line}")
        if document.keys() & Config.model_fields.keys():  # else Dask's, or a site's
            Config.from_mapping({**MINIMAL, **document})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page):
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert target.is_relative_to(REPOSITORY), f"{link}: outside the repository"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", [*PAGES, *REPOSITORY.glob("workflows/*.ipynb")], ids=name_of)
def test_no_page_names_a_path_of_a_developers_machine(page):
    assert not DEVELOPER_PATH.findall(page.read_text(encoding="utf-8"))


def test_every_page_of_the_documentation_is_in_the_index():
    index = REPOSITORY / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(prose(index))}
    assert linked == set((REPOSITORY / "docs").rglob("*.md")) - {index}


def test_the_readme_shows_the_configuration_of_the_demo():
    shown = [
        parse(text, place="README.md")[0] for _, text in blocks(REPOSITORY / "README.md", "yaml")
    ]
    file = REPOSITORY / "workflows" / "heptutorial" / "dataset.yaml"
    assert shown == [parse(file.read_text(), place=str(file))[0]]


def verbs(command, path=()):
    """All verbs with their names, and the groups of verbs."""
    context = click.Context(command)
    for name in command.list_commands(context):
        verb = command.get_command(context, name)
        yield (*path, name), verb
        if isinstance(verb, click.Group):
            yield from verbs(verb, (*path, name))


@pytest.mark.parametrize(("path", "verb"), [(path, verb) for path, verb in verbs(door)], ids=str)
def test_every_verb_and_option_is_in_the_reference_of_the_command_line(path, verb):
    page = (REPOSITORY / "docs" / "reference" / "command-line.md").read_text()
    assert f"| [`{path[0]}`](#{path[0]}) |" in page  # in the table of verbs
    section = page.split(f"\n## {path[0]}\n")[1].split("\n## ")[0]
    if len(path) > 1:
        assert f"| `{path[1]}` |" in section
    options = {name for each in verb.params for name in each.opts if name.startswith("-")}
    assert not {option for option in options if not re.search(rf"`{option}[` ]", section)}


def test_every_file_and_key_that_a_run_writes_is_in_the_reference(tutorial_run):
    reference = REPOSITORY / "docs" / "reference"
    run = tutorial_run / "runs" / "single-top"
    page = (reference / "run-directory.md").read_text()
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    last = f"epoch-{json.loads((run / 'metrics.json').read_text())['training']['epochs']}.pt"
    # Which epoch is best depends on the machine's rounding.
    files = {re.sub(r"epoch-\d+\.pt", last, file) for file in files}
    assert not {file for file in files if f"`{file.removeprefix('bundle/')}`" not in page}
    metrics = json.loads((run / "metrics.json").read_text())
    rows = [metrics["samples"][0], metrics["epochs"][0], metrics["stages"][0]]
    keys = {*metrics, *metrics["counts"], *metrics["model"], *(key for row in rows for key in row)}
    assert not {key for key in keys if f"`{key}`" not in page}
    page = (reference / "bundle.md").read_text()
    for name in ("manifest.json", "specs.json"):
        content = json.loads((run / "bundle" / name).read_text())
        assert not {key for key in content if f"`{key}`" not in page}


def test_the_request_in_the_workflow_holds_events_of_the_files():
    folder = REPOSITORY / "workflows" / "heptutorial"
    request = json.loads((folder / "events.json").read_text(), parse_float=np.float32)
    for sample, event in zip(("single_top", "ww"), request["events"], strict=True):
        with uproot.open(folder / "data" / f"cms_heptutorial_{sample}.root") as file:
            assert event == file["events"].arrays(list(event), entry_stop=1).to_list()[0]


def test_the_notebook_runs_and_its_served_score_is_that_of_the_trained_model(tmp_path):
    the_notebook_runs(tmp_path, "connect(workers=2, ranks=2)")


@pytest.mark.batch
@pytest.mark.nightly
@pytest.mark.usefixtures("slurm")
def test_the_notebook_runs_with_workers_that_are_jobs_of_slurm(tmp_path):
    the_notebook_runs(tmp_path, 'connect("slurm", workers=2, memory_limit="1 GiB")')
    jobs = (tmp_path / "workflows" / "mlaas4hep.jobs").glob("*/jobs.jsonl")
    assert "connected" in next(jobs).read_text()


def the_notebook_runs(tmp_path, start):
    copy_workflows(tmp_path)
    folder = tmp_path / "workflows"
    notebook = nbformat.read(folder / "quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # none are stored
    (first,) = [cell for cell in notebook.cells if "cluster = connect(" in cell.source]
    first.source = re.sub(r"connect\(.*\)", start, first.source)
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    printed = "".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert 0.87 < float(re.search(r"test AUC (\d\.\d+)", printed)[1]) < 0.91
    served = float(re.search(r"served score (\d\.\d+)", printed)[1])
    trained = float(re.search(r"trained score (\d\.\d+)", printed)[1])
    assert 0 < served < 1
    assert served == pytest.approx(trained, abs=2e-6)
    scored = re.search(r"16052 events scored, the first with (\d\.\d+)", printed)[1]
    assert float(scored) == pytest.approx(trained, abs=2e-6)
    assert "server stopped with status 0" in printed
    assert (folder / "runs" / "single-top" / "report.html").is_file()
