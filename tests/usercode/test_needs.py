from pathlib import Path

import elsewhere
import numpy as np
import pytest

from mlaas4hep_dask.usercode import Lack, Need, find_code, try_imports


def need_of(folder, text, **modules):
    for name, content in {"analysis": text, **modules}.items():
        (folder / f"{name}.py").write_text(content)
    code = find_code("analysis.py:select", resolve=lambda path: Path(folder, path))
    return Need.of_code("function", code)


SELECT = "def select(events):\n    return events\n"
WHAT = "function 'analysis.py:select'"


def test_all_that_is_there_is_no_lack_and_own_modules_are_none(tmp_path):
    need = need_of(tmp_path, f"import numpy, json, own\n{SELECT}", own="")
    assert need.packages["numpy"] == np.__version__
    tried = try_imports([need, Need.of("reading", ["numpy", "uproot"])])
    assert tried.lacks == ()
    assert tried.versions == {}


def test_what_is_tried_and_missing_here_too_is_no_need(tmp_path):
    text = f"try:\n    import absent_one\nexcept ImportError:\n    pass\n{SELECT}"
    assert try_imports([need_of(tmp_path, text)]).lacks == ()


def test_a_package_that_only_the_other_process_has_is_a_lack_though_a_function_imports_it(
    tmp_path, monkeypatch
):
    with monkeypatch.context() as there:
        there.syspath_prepend(elsewhere.package(tmp_path, "only_there", "1.2"))
        need = need_of(tmp_path, "def select(events):\n    import only_there\n")
    assert try_imports([need]).lacks == (Lack(WHAT, "only_there", "1.2"),)


def test_another_version_is_told_and_is_no_lack():
    tried = try_imports([Need("reading", {"numpy": "0.1"})])
    assert (tried.lacks, tried.versions) == ((), {"numpy": np.__version__})


def test_a_variable_with_another_value_is_told_once_and_one_with_the_same_is_not(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("LEAST", "3")
    monkeypatch.setenv("MOST", "9")
    text = "import os\nLIMITS = os.environ['LEAST'], os.getenv('MOST'), os.getenv('NONE_YET')\n"
    need = need_of(tmp_path, text + SELECT)
    assert try_imports([need]).variables == {}
    monkeypatch.setenv("LEAST", "4")
    monkeypatch.delenv("MOST")
    monkeypatch.setenv("NONE_YET", "1")
    assert try_imports([need]).variables == dict.fromkeys(["LEAST", "MOST", "NONE_YET"], WHAT)


@pytest.mark.parametrize(
    ("text", "module", "reason"),
    [
        ("import importlib\nimportlib.import_module('gone' + 'by')\n", "goneby", "No module named"),
        ("raise OSError('no licence')\n", "", "OSError in line 1 of analysis.py: no licence"),
    ],
)
def test_code_that_cannot_be_imported_tells_the_module_or_why(text, module, reason, tmp_path):
    (lack,) = try_imports([need_of(tmp_path, text + SELECT)]).lacks
    assert (lack.what, lack.module) == (WHAT, module)
    assert reason in lack.reason
