import ast
import subprocess
import sys
from pathlib import Path

import pytest
from paths import REPOSITORY

from mlaas4hep_dask.specs.measure import measure

pytestmark = pytest.mark.slow

HEAVY = ("dask", "distributed", "dask_awkward", "uproot", "torch", "awkward", "numba", "pandas")


def loaded_after(statement):
    """Modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_imports_go_downwards_only():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_after("import mlaas4hep_dask")
    assert "mlaas4hep_dask" in loaded
    assert not loaded & {*HEAVY, "numpy", "pydantic"}


@pytest.mark.parametrize(
    "module",
    ["serve", "serve.app", "serve.cli", "score.scorer", "bundle", "encode", "derive", "specs"],
)
def test_serving_loads_neither_dask_nor_uproot_nor_training(module):
    loaded = loaded_after(f"import mlaas4hep_dask.{module}")
    assert f"mlaas4hep_dask.{module}" in loaded
    assert not loaded & {"dask", "distributed", "dask_awkward", "uproot", "coffea"}
    rooms = ("train", "dataset", "reader", "cluster", "run")
    assert not loaded & {f"mlaas4hep_dask.{room}" for room in rooms}
    assert "lark" not in loaded or module == "derive"  # parses the recipes of bundles that have one


@pytest.mark.parametrize("module", ["config", "objective", "specs", "encode", "reader"])
def test_reading_and_encoding_load_neither_dask_nor_torch(module):
    loaded = loaded_after(f"import mlaas4hep_dask.{module}")
    assert not loaded & {"dask", "distributed", "torch"}


@pytest.mark.parametrize(
    "module",
    [f"mlaas4hep_dask.train.{name}" for name in ("assign", "session", "model", "feed")]
    + ["mlaas4hep_dask.train.calls"],
)
def test_a_client_starts_ranks_without_torch(module):
    assert "torch" not in loaded_after(f"import {module}")


@pytest.mark.parametrize("module", ["run.cli", "predict.cli"])
def test_commands_name_their_options_before_anything_heavy_is_loaded(module):
    assert not loaded_after(f"import mlaas4hep_dask.{module}") & {*HEAVY, "numpy"}


def test_workers_are_forked_from_a_process_that_has_compiled_what_measures_and_encodes():
    loaded = loaded_after(
        "import mlaas4hep_dask.dataset.preload\n"
        "from mlaas4hep_dask.encode import scatter\n"
        "from numba.core.dispatcher import Dispatcher\n"
        "kernels = [each for each in vars(scatter).values() if isinstance(each, Dispatcher)]\n"
        "assert any(kernel.signatures for kernel in kernels)"
    )
    assert {"mlaas4hep_dask.dataset.tasks", "uproot", "numba"} <= loaded
    assert "torch" not in loaded  # where only some will be ranks, these import it themselves


def test_the_nanny_of_a_worker_in_a_job_loads_nothing_that_only_the_worker_needs():
    assert not loaded_after("import mlaas4hep_dask.cluster.worker_setup") & {*HEAVY, "numpy"}


def test_a_client_that_merges_specs_does_not_start_numba(tmp_path, cms_parts):
    file = tmp_path / "specs.json"
    part = next(iter(cms_parts.values()))[0]
    file.write_text(measure(part, sample="s").to_json())
    read = f"a = Specs.from_json(open({str(file)!r}).read())"
    loaded = loaded_after(f"from mlaas4hep_dask.specs.specs import *\n{read}\nmerge(a, a)")
    assert "numba" in loaded  # what measures is compiled when it is called
    assert "awkward._connect.numba.layout" not in loaded  # which numba loads when it starts


def test_the_data_set_is_found_on_first_use():
    loaded = loaded_after("import mlaas4hep_dask; mlaas4hep_dask.Dataset")
    assert {"mlaas4hep_dask.dataset", "dask"} <= loaded
    with pytest.raises(subprocess.CalledProcessError):
        loaded_after("import mlaas4hep_dask; mlaas4hep_dask.Datset")


def test_the_configuration_ends_at_run_and_at_the_door_of_the_data_set():
    """All else gets sections and values, so that it can be called from a notebook."""
    package = REPOSITORY / "mlaas4hep_dask"
    importers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("mlaas4hep_dask.config")
        and {"Config", "root"} & {name.name for name in node.names}
    }
    elsewhere = {path for path in importers if path.split("/")[0] not in ("run", "config")}
    assert elsewhere == {"dataset/dataset.py", "dataset/description.py"}
