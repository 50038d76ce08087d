"""The command `mlaas4hep`, as a user and as a shell call it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import jsonschema
import pytest
import uproot
import yaml
from paths import REPOSITORY, TUTORIAL

from mlaas4hep_dask import __version__

pytestmark = pytest.mark.slow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]
VERBS = (
    *("run", "check", "status", "attach", "logs", "stop", "specs", "predict", "serve", "models"),
    *("cluster", "schema", "version", "completion"),
)
HEAVY = {"numpy", "numba", "dask", "distributed", "torch", "uproot", "awkward", "pydantic", "rich"}


def mlaas4hep(*arguments, folder=REPOSITORY, module="mlaas4hep_dask"):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def succeeded(*arguments, **options):
    done = mlaas4hep(*arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def imported(*arguments, **environment):
    """Modules that a command has imported, also when it fails."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('modules', *sys.modules, file=sys.stderr))\n"
        "from mlaas4hep_dask.__main__ import command\n"
        "sys.exit(command())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    _, *modules = done.stderr.splitlines()[-1].split()
    return set(modules)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run of one epoch, through the door."""
    folder = tmp_path_factory.mktemp("door") / "run"
    out = succeeded(
        *("run", TUTORIAL / "dataset.yaml", "--output", folder, "--set", "training.epochs=1")
    )
    assert out.startswith(f"running {TUTORIAL / 'dataset.yaml'}\n")
    assert f"report: {folder / 'report.html'}" in out
    return folder


def test_the_door_names_all_verbs_and_each_has_help_of_one_style():
    page = succeeded("--help")
    listed = page.split("Commands:\n")[1].split("\n\n")[0]
    assert tuple(re.findall(r"^  (\w+) ", listed, re.MULTILINE)) == VERBS
    for verb in VERBS:
        page = succeeded(verb, "-h")
        assert page.startswith(f"Usage: mlaas4hep {verb} [OPTIONS]")
        assert "-h, --help" in page
        assert ("Exit status: 0 success" in page) != (verb in ("specs", "attach", "cluster"))
    assert "Exit status: 0 the specs are the same" in succeeded("specs", "diff", "--help")


def test_a_module_has_the_same_options_and_its_own_name():
    for verb in ("run", "predict", "serve", "specs"):
        page = succeeded("--help", module=f"mlaas4hep_dask.{verb}")
        name = f"python -m mlaas4hep_dask.{verb}"
        assert page.startswith(f"Usage: {name} [OPTIONS]")
        options = re.findall(r"^  (-.*?)  ", page, re.MULTILINE)
        assert options == re.findall(r"^  (-.*?)  ", succeeded(verb, "--help"), re.MULTILINE)


def test_a_door_without_a_verb_prints_the_help_and_fails():
    done = mlaas4hep()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: mlaas4hep [OPTIONS] COMMAND")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rn", "there is no command 'rn'; did you mean 'run'?"),
        ("zzz", "there is no command 'zzz'; see mlaas4hep --help"),
        ("specs shw", "there is no command 'shw'; did you mean 'show'?"),
        ("--versoin", "there is no option '--versoin'; did you mean '--version'?"),
        ("run a.yaml --chek", "there is no option '--chek'; did you mean '--check'?"),
        ("run", "give a dataset.yaml, or --schema; see mlaas4hep run --help"),
        ("check", "missing argument 'dataset.yaml'; see mlaas4hep check --help"),
        ("predict b a.root", "missing option '--output'; see mlaas4hep predict --help"),
        ("predict b a.root --output", "option '--output' requires an argument"),
        ("serve b --port 65536", "invalid value for '--port': 65536 is not in the range"),
        ("serve b --log-level loud", "'loud' is not one of 'debug', 'info', 'warning', 'error'"),
        ("completion csh", "'csh' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_a_mistake_on_the_line_is_one_line_that_names_the_nearest(arguments, message):
    done = mlaas4hep(*arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message}") or message in line


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("run none.yaml", "none.yaml"),
        ("check none.yaml", "none.yaml"),
        ("specs show none", "none: cannot be read"),
        ("specs diff none none", "none: cannot be read"),
        ("predict none a.root --output b.root", "none: no such bundle"),
        ("serve none --port 0", "none: no such bundle"),
        ("models none", "none: no such bundle"),
        ("status none", "none: there is no such folder, expected the output of a run"),
        ("attach none", "none: there is no such folder, expected the output of a run"),
        ("logs none", "none: there is no such folder, expected the output of a run"),
        ("stop none", "none: there is no such folder, expected the output of a run"),
    ],
)
def test_what_a_user_can_mend_is_an_error_with_status_two(arguments, error, tmp_path):
    done = mlaas4hep(*arguments.split(), folder=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert error in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_help_imports_nothing_heavy():
    modules = imported("--help")  # which looks at every verb
    rooms = ("run", "predict", "serve", "specs", "bundle")
    assert {f"mlaas4hep_dask.{room}.cli" for room in rooms} <= modules
    assert not modules & HEAVY


@pytest.mark.parametrize(
    "words", ["mlaas4hep ", "mlaas4hep run --", "mlaas4hep serve --log-level "]
)
def test_completion_imports_nothing_heavy(words):
    place = str(len(words.split(" ")) - 1)
    asked = {"_MLAAS4HEP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": place}
    modules = imported(**asked)
    assert "click" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize("verb", ["status", "attach", "logs", "stop"])
def test_a_run_is_followed_without_heavy_libraries(trained, verb):
    modules = imported(verb, trained)
    assert "mlaas4hep_dask.follow.standing" in modules
    assert not modules & (HEAVY - ({"rich"} if verb == "attach" else set()))


def test_serving_through_the_door_loads_neither_dask_nor_readers_nor_training(tmp_path):
    modules = imported("serve", tmp_path / "none")
    assert {"mlaas4hep_dask.serve.app", "torch"} <= modules
    assert not modules & {"dask", "distributed", "uproot", "coffea"}
    rooms = ("train", "dataset", "reader", "cluster", "run")
    assert not modules & {f"mlaas4hep_dask.{room}" for room in rooms}


def test_a_check_finds_what_is_wrong_and_what_is_right(tmp_path):
    out = succeeded("check", TUTORIAL / "dataset.yaml", "--output", tmp_path / "run")
    assert out.startswith("checking ")
    assert "16,052 events" in out
    assert out.endswith("no error found\n")
    done = mlaas4hep("check", TUTORIAL / "dataset.yaml", "--set", "tree=Event")
    assert done.returncode == 2
    assert "did you mean 'events'?" in done.stderr


def test_the_schema_accepts_the_tutorial():
    schema = json.loads(succeeded("schema"))
    jsonschema.validate(yaml.safe_load((TUTORIAL / "dataset.yaml").read_text()), schema)
    assert succeeded("--schema", module="mlaas4hep_dask.run") == succeeded("schema")


def test_version_names_what_a_report_needs():
    lines = succeeded("version").splitlines()
    assert lines[0] == f"mlaas4hep_dask {__version__}"
    assert lines[1].startswith("Python 3.")
    assert any(re.fullmatch(r"torch \d+\.\d+.*", line) for line in lines)
    assert succeeded("--version") == f"{__version__}\n"


def test_a_run_keeps_the_line_that_does_it_again(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert len(metrics["epochs"]) == 1
    report = (trained / "report.html").read_text()
    assert "mlaas4hep run" in report


def test_models_lists_what_is_in_a_bundle_and_verifies_it(trained, tmp_path):
    (found,) = json.loads(succeeded("models", trained / "bundle", "--json"))
    manifest = json.loads((trained / "bundle" / "manifest.json").read_text())
    assert found["name"] == "single-top"
    assert found["version"] == manifest["version"]
    assert [branch["name"] for branch in found["inputs"]] == [
        branch["name"] for branch in manifest["input"]["branches"]
    ]
    assert found["output"] == manifest["output"]
    assert found["metrics"] == manifest["metrics"]
    assert found["versions"]["torch"] == manifest["libraries"]["torch"]
    assert {name: file["sha256"] for name, file in found["files"].items()} == {
        name: file["sha256"] for name, file in manifest["files"].items()
    }
    table = succeeded("models", trained / "bundle")
    assert table.startswith("model single-top")
    assert f"sha256 {manifest['files']['model.pt']['sha256']} verified" in table
    assert f"auc {manifest['metrics']['test']['auc']:.6g}" in table
    archive = shutil.make_archive(str(tmp_path / "model"), "gztar", trained, "bundle")
    (packed,) = json.loads(succeeded("models", archive, "--json"))
    assert packed | {"bundle": ""} == found | {"bundle": ""}

    altered = shutil.copytree(trained / "bundle", tmp_path / "altered")
    with (altered / "golden.json").open("a") as file:
        file.write(" ")
    done = mlaas4hep("models", trained / "bundle", altered)
    assert done.returncode == 2
    assert "golden.json was altered" in done.stderr
    assert done.stdout == ""


def test_predict_copies_all_branches_after_one_option(trained, tmp_path):
    files = [TUTORIAL / "data" / f"cms_heptutorial_{name}.root" for name in ("wz", "zz")]
    output = tmp_path / "scores.root"
    out = succeeded(
        *("predict", trained / "bundle", *files, "--workers", 1),
        *("--branches", "MC*", "NJet", "--output", output),
    )
    assert out.startswith(f"scoring with {trained / 'bundle'} into {output}\n")
    with uproot.open(output) as file:
        tree = file["events"]
        assert {"MClepton_px", "NJet", "score"} <= set(tree.keys())
        assert tree.num_entries == 3367 + 2421


def test_specs_are_shown_merged_and_compared(trained, tmp_path):
    shown = json.loads(succeeded("specs", "show", trained, "NJet", "--json"))
    assert list(shown["branches"]) == ["NJet"]
    assert succeeded("specs", "diff", trained, trained / "bundle") == ""
    merged = tmp_path / "merged.json"
    succeeded("specs", "merge", trained, trained, "--allow-overlap", "--output", merged)
    done = mlaas4hep("specs", "diff", trained, merged, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["same"] is False


def test_specs_may_be_read_in_part(trained):
    line = f"{sys.executable} -m mlaas4hep_dask specs show {trained} --json | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_a_server_starts_and_ends_through_the_door(trained):
    process = subprocess.Popen(
        [sys.executable, "-m", "mlaas4hep_dask", "serve", trained / "bundle", "--port", "0"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr.readline() == f"serve: {trained / 'bundle'} --port 0\n"
        assert process.stdout.readline().startswith("serving model 'single-top' at http://127")
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


# --- Completion ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """What a bash, which has read the script, completes in a folder."""
    folder = tmp_path_factory.mktemp("bash")
    script = folder / "completion.bash"
    script.write_text(succeeded("completion", "bash"))
    command = folder / "bin" / "mlaas4hep"  # whether or not the package is installed
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m mlaas4hep_dask "$@"\n')
    command.chmod(0o755)

    def completed(*words):
        code = (
            f"source {script}; complete -p mlaas4hep >&2; COMP_WORDS=(mlaas4hep "
            f"{' '.join(map(repr, words))}); COMP_CWORD={len(words)}; "
            "_mlaas4hep_completion mlaas4hep; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        path = f"{command.parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "--norc", "-c", code],
            env=os.environ | {"PATH": path, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "complete -o nosort -F _mlaas4hep_completion mlaas4hep" in done.stderr
        return done.stdout.split()

    return completed


def test_a_bash_completes_verbs_options_and_values(bash):
    assert tuple(bash("")) == VERBS
    assert bash("s") == ["status", "stop", "specs", "serve", "schema"]
    assert bash("specs", "") == ["show", "merge", "diff"]
    assert bash("run", "--c") == ["--cluster", "--check"]
    assert bash("predict", "b", "a.root", "--on-bad-file", "") == ["error", "skip"]
    assert bash("completion", "") == ["bash", "zsh", "fish"]
    assert bash("nothing", "--") == []


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("bash", ["complete ", "bash_complete", "mlaas4hep"]),
        ("zsh", ["#compdef mlaas4hep", "zsh_complete", "compdef "]),
        ("fish", ["function _mlaas4hep_completion", "fish_complete", "complete --no-files"]),
    ],
)
def test_a_completion_script_is_one_of_its_shell(shell, words, tmp_path):
    script = tmp_path / "script"
    script.write_text(succeeded("completion", shell))
    assert all(word in script.read_text() for word in words)
    if shutil.which(shell):
        subprocess.run([shell, "-n", script], check=True)


@pytest.mark.parametrize("verb", ["version", "schema", "--help"])
def test_whoever_reads_the_output_may_stop_to(verb):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "mlaas4hep_dask", verb]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode in (0, 128 + signal.SIGPIPE)
