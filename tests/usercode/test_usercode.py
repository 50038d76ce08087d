import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import elsewhere
import pytest
from paths import REPOSITORY

from mlaas4hep_dask.errors import CodeError
from mlaas4hep_dask.usercode import find_code, limited


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/').replace('//init/', '/__init__')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")


def found(folder, reference="analysis.py:select", **more):
    return find_code(reference, resolve=lambda path: Path(os.path.abspath(folder / path)), **more)  # noqa: PTH100


def test_a_helper_beside_the_file_counts_and_travels(tmp_path):
    write(tmp_path, analysis="from cuts import LIMIT\ndef select(): return LIMIT\n")
    write(tmp_path, cuts="LIMIT = 3\n", unused="LIMIT = 4\n")
    first = found(tmp_path)
    assert [source.name for source in first.sources] == ["analysis", "cuts"]
    assert first.load()() == 3
    write(tmp_path, cuts="LIMIT = 5\n")
    second = found(tmp_path)
    assert second.digest != first.digest
    assert second.load()() == 5
    assert first.load()() == 3  # each is what it was when it was found
    assert "cuts" not in sys.modules


@pytest.mark.parametrize(
    "analysis",
    [
        "def select():\n    import cuts\n    return cuts.LIMIT\n",
        "import cuts as c\ndef select(): return c.LIMIT\n",
        "try: import nowhere\nexcept ImportError: from cuts import *\ndef select(): return LIMIT\n",
        "import tools.deep.inner\ndef select(): return tools.deep.inner.LIMIT\n",
        "from tools.deep import inner\ndef select(): return inner.LIMIT\n",
        "from tools import deep\ndef select(): return deep.inner.LIMIT\n",
        "from . import cuts\ndef select(): return cuts.LIMIT\n",
    ],
    ids=["in a function", "as", "star", "dotted", "from", "by a package", "relative"],
)
def test_modules_are_found_however_they_are_imported(analysis, tmp_path):
    write(tmp_path, analysis=analysis, cuts="from tools.deep.inner import LIMIT\n")
    write(tmp_path, tools____init__="", tools__deep____init__="from . import inner\n")
    for limit in (3, 7):
        write(tmp_path, tools__deep__inner=f"from ..base import ADD\nLIMIT = {limit} + ADD\n")
        write(tmp_path, tools__base="ADD = 1\n")
        code = found(tmp_path)
        assert code.load()() == limit + 1
        assert {"tools", "tools.deep", "tools.deep.inner", "tools.base"} <= {
            source.name for source in code.sources
        }


def test_two_files_of_one_name_in_two_folders_do_not_meet(tmp_path):
    for name, limit in (("a", 1), ("b", 2)):
        write(tmp_path / name, analysis="import cuts\ndef select(): return cuts.LIMIT\n")
        write(tmp_path / name, cuts=f"LIMIT = {limit}\n")
    codes = [found(tmp_path, f"{name}/analysis.py:select") for name in "ab"]
    assert [code.load()() for code in codes] == [1, 2]


def test_a_module_that_this_process_has_imported_makes_no_difference(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere", cuts_seen_before="LIMIT = 99\n")
    write(tmp_path, cuts_seen_before="LIMIT = 3\n")
    write(tmp_path, analysis="from cuts_seen_before import LIMIT\ndef select(): return LIMIT\n")
    expected = found(tmp_path).digest
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    __import__("cuts_seen_before")
    monkeypatch.delitem(sys.modules, "cuts_seen_before", raising=False)
    __import__("cuts_seen_before")
    code = found(tmp_path)
    assert code.digest == expected
    assert code.load()() == 3


@pytest.mark.slow
def test_another_process_has_the_same_digest_without_the_folder(tmp_path):
    write(tmp_path, analysis="import cuts\ndef select(): return cuts.LIMIT\n", cuts="LIMIT = 3\n")
    code = found(tmp_path)
    script = (
        "import pickle, sys\n"
        "code = pickle.load(sys.stdin.buffer)\n"
        "print(code.load()(), code.digest)\n"
    )
    import pickle

    sent = pickle.dumps(code)
    for path in tmp_path.glob("*.py"):
        path.unlink()
    done = subprocess.run(
        [sys.executable, "-c", script], input=sent, capture_output=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout.decode().split() == ["3", code.digest]


def test_a_package_in_editable_form_is_the_users_own(tmp_path, monkeypatch):
    write(tmp_path / "clone", framework____init__="", framework__cuts="LIMIT = 3\nshow = print\n")
    write(tmp_path, analysis="from framework.cuts import LIMIT\ndef select(): return LIMIT\n")
    monkeypatch.syspath_prepend(tmp_path / "clone")
    by_file, by_name = found(tmp_path), found(tmp_path, "framework.cuts:show")
    assert by_file.load()() == 3
    write(tmp_path / "clone", framework__cuts="LIMIT = 4\nshow = print\n")
    assert found(tmp_path).load()() == 4
    assert found(tmp_path).digest != by_file.digest
    assert found(tmp_path, "framework.cuts:show").digest != by_name.digest


def test_installed_packages_count_by_their_version(tmp_path):
    import numpy

    write(tmp_path, analysis="import os.path, numpy.linalg\ndef select(): ...\n")
    code = found(tmp_path)
    assert code.facts["package numpy"] == numpy.__version__
    assert code.facts["package os"].startswith("Python 3.")
    assert [source.name for source in code.sources] == ["analysis"]


def test_a_file_that_the_code_names_counts_by_its_content(tmp_path):
    write(
        tmp_path,
        analysis="from pathlib import Path\ndef select():\n"
        "    return (Path(__file__).parent / 'scale.json').read_text()\n",
    )
    (tmp_path / "scale.json").write_text("1.0")
    (tmp_path / "other.json").write_text("1.0")
    first = found(tmp_path, values={"files": ["other.json"]})
    assert first.load()() == "1.0"
    (tmp_path / "scale.json").write_text("2.0")
    second = found(tmp_path, values={"files": ["other.json"]})
    assert second.digest != first.digest
    (tmp_path / "other.json").write_text("2.0")
    assert found(tmp_path, values={"files": ["other.json"]}).digest != second.digest


def test_computed_imports_make_all_files_of_the_folder_count(tmp_path):
    write(
        tmp_path,
        analysis="import importlib\ndef select(name):\n"
        "    return importlib.import_module(name).LIMIT\n",
        cuts="LIMIT = 3\n",
    )
    first = found(tmp_path)
    write(tmp_path, cuts="LIMIT = 4\n")
    assert found(tmp_path).digest != first.digest


@pytest.mark.parametrize(
    "line",
    ["import importlib", "from importlib import util\nimport importlib.machinery, importlib"],
)
def test_a_computed_import_gives_no_earlier_version(line, tmp_path, monkeypatch):
    """As on a worker of a long-living cluster that has the folder on its path."""
    monkeypatch.syspath_prepend(tmp_path)
    body = f"{line}\nNUMBER = 7\ndef select():\n    return importlib.import_module"
    for number in (3, 4, 5):
        write(
            tmp_path,
            analysis=body + "('computed_%d' % NUMBER).limit()\n",
            computed_7=f"def limit():\n    return {number}\n",
        )
        assert found(tmp_path).load()() == number
    assert "computed_7" not in sys.modules


COMPUTED = "import importlib\nNUMBER = 7\ndef select():\n    return "


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("importlib.import_module('spaced.y%d' % NUMBER).LIMIT", {"spaced__y7": "LIMIT = {}"}),
        ("__import__('called_%d' % NUMBER).LIMIT", {"called_7": "LIMIT = {}"}),
        (
            "importlib.import_module('.y%d' % NUMBER, 'sent').LIMIT",
            {"sent____init__": "", "sent__y7": "LIMIT = {}"},
        ),
        (
            "importlib.import_module('pq.y%d' % NUMBER).LIMIT",
            {
                "pq____init__": "",
                "pq__y7": "from pq.base import LIMIT",
                "pq__base": "from .deep import LIMIT",
                "pq__deep": "LIMIT = {}",
            },
        ),
    ],
    ids=["no package", "__import__", "relative", "a package's own"],
)
def test_what_computed_imports_lead_to_is_no_earlier_version(line, files, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for number in (3, 4444):
        write(tmp_path, analysis=COMPUTED + line + "\n")
        write(tmp_path, **{name: text.format(number) + "\n" for name, text in files.items()})
        assert found(tmp_path).load()() == number


@pytest.mark.parametrize("start", [b"# -*- coding: latin-1 -*-\n# f\xfcr\n", b"\xef\xbb\xbf"])
def test_computed_imports_read_files_as_python_does(start, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path, analysis=COMPUTED + "importlib.import_module('read_%d' % NUMBER).LIMIT\n")
    (tmp_path / "read_7.py").write_bytes(start + b"LIMIT = 5\n")
    assert found(tmp_path).load()() == 5


def test_importlib_finds_modules_that_were_sent(tmp_path):
    write(
        tmp_path,
        analysis="from importlib import import_module\ndef select():\n"
        "    return import_module('sent_' + 'cuts').LIMIT, import_module('math').pi\n",
        sent_cuts="LIMIT = 3\n",
    )
    assert found(tmp_path).load()() == (3, math.pi)


def test_a_module_that_values_name_counts(tmp_path):
    write(
        tmp_path,
        analysis="import importlib\ndef select(cuts):\n"
        "    return importlib.import_module(cuts).LIMIT\n",
        cuts__tight="LIMIT = 3\n",
    )
    values = {"cuts": "cuts.tight", "other": "numpy.linalg", "title": "some words"}
    first = found(tmp_path, values=values)
    assert "cuts.tight" in [source.name for source in first.sources]
    write(tmp_path, cuts__tight="LIMIT = 4\n")
    assert found(tmp_path, values=values).digest != first.digest


@pytest.mark.parametrize(
    ("expression", "file"),
    [
        ("open('cuts/a.json')", "cuts/a.json"),
        ("open(b'a.json')", "a.json"),
        ("(Path(__file__).parent / 'cuts' / 'a.json').read_text()", "cuts/a.json"),
        ("(Path(__file__).resolve().parents[1] / 'cuts' / 'a.json').read_text()", "../cuts/a.json"),
        ("open(os.path.join(os.path.dirname(__file__), 'cuts', 'a.json'))", "cuts/a.json"),
        ("open(os.path.dirname(__file__) + '/a.json')", "a.json"),
        ("open(HERE / FOLDER / 'a.json')", "cuts/a.json"),
        ("open(f'cuts/{name}.json')", "cuts/a.json"),
        ("open('cuts_{}.json'.format(name))", "cuts_a.json"),
        ("open('cuts_%d.json' % name)", "cuts_3.json"),
        ("open(name + '.json')", "a.json"),
        ("open(name / 'a.json')", "anywhere/a.json"),
        ("Path(__file__).with_suffix('.json').read_text()", "analysis.json"),
        ("Path(__file__).with_name('a.json').read_text()", "a.json"),
        ("[each.read_text() for each in HERE.joinpath('cuts').glob('*.json')]", "cuts/a.json"),
        ("glob.glob('cuts/**/*.json', recursive=True)", "cuts/deep/a.json"),
        ("list((HERE / FOLDER).iterdir())", "cuts/a.json"),
        ("os.listdir('cuts')", "cuts/a.json"),
        ("importlib.resources.files('tools').joinpath('a.json')", "tools/a.json"),
        ("runpy.run_path('other.py')", "other.py"),
        ("exec((HERE / 'lib' / 'other.py').read_text())", "lib/other.py"),
        ("importlib.util.spec_from_file_location('other', 'other.py')", "other.py"),
        ("importlib.util.spec_from_file_location(name, name)", "other.py"),
        ("SourceFileLoader('other', str(HERE / 'lib/other.py')).load_module()", "lib/other.py"),
        ("importlib.import_module('.inner', __package__)", "inner.py"),
        ("importlib.import_module('.inner', 'tools')", "tools/inner.py"),
        ("importlib.import_module(f'tools.{name}')", "tools/inner.py"),
        ("load('tools.' + name)", "tools/inner.py"),
        ("load('inner')", "inner.py"),
        ("open('/'.join(['cuts', 'a.json']))", "cuts/a.json"),
        ("open(os.sep.join(('cuts', name, 'a.json')))", "cuts/x/a.json"),
        ("open(os.path.join(*['cuts', 'a.json']))", "cuts/a.json"),
        ("open(os.path.join(HERE, *PARTS))", "cuts/a.json"),
        ("open(GROWN)", "cuts/deep/a.json"),
        ("open(GROWN.parent / 'b.json')", "cuts/deep/b.json"),
        ("inside(HERE / 'data' / 'cuts')", "data/cuts/in.json"),
        ("os.walk('cuts')", "cuts/deep/deeper/a.json"),
        ("HERE.joinpath('cuts').walk()", "cuts/deep/a.json"),
        ("pandas.read_parquet('cuts')", "cuts/year=2018/0.parquet"),
        ("pyarrow.dataset.dataset(HERE / FOLDER)", "cuts/deep/0.parquet"),
        ("ROOT.gInterpreter.Declare('#include \"cuts/a.h\"')", "cuts/a.h"),
        ("ROOT.gROOT.ProcessLine('.L cuts.C+')", "cuts.C"),
    ],
)
def test_what_a_part_of_a_file_s_name_tells_of_makes_it_count(expression, file, tmp_path):
    write(
        tmp_path,
        run__analysis="FOLDER = 'cuts'\nHERE = Path(__file__).parent\n"
        "PARTS = ('cuts', 'a.json')\nGROWN = HERE\nGROWN /= FOLDER\nGROWN /= 'deep'\n"
        "GROWN /= 'a.json'\ndef inside(folder):\n    return open(folder / 'in.json')\n"
        "from importlib import import_module as load\n"
        f"def select(name):\n    return {expression}\n",
        run__tools____init__="",
    )
    path = tmp_path / "run" / file
    path.parent.mkdir(exist_ok=True, parents=True)
    digests = set()
    for content in ("LIMIT = 3\n", "LIMIT = 4\n"):
        path.write_text(content)
        digests.add(found(tmp_path / "run").digest)
        digests.add(found(tmp_path / "run").digest)
    assert len(digests) == 2


def test_what_a_python_file_imports_counts_when_the_file_is_named(tmp_path):
    write(
        tmp_path,
        analysis="import runpy\ndef select():\n    return runpy.run_path('steps.py')['LIMIT']\n",
        steps="from cuts import LIMIT\n",
        cuts="LIMIT = 3\n",
    )
    first = found(tmp_path)
    write(tmp_path, cuts="LIMIT = 4\n")
    assert found(tmp_path).digest != first.digest


def test_modules_that_a_star_brings_count_and_travel(tmp_path):
    write(tmp_path, analysis="from tools import *\ndef select():\n    return cuts.LIMIT\n")
    write(tmp_path, tools____init__="__all__ = ['cuts', 'absent']\n", tools__cuts="LIMIT = 3\n")
    assert [source.name for source in found(tmp_path).sources] == [
        *("analysis", "tools", "tools.cuts")
    ]


@pytest.mark.parametrize("text", ["f'{a} and {b}'", "f'{a}'", "a + b", "'%s' % a", "f'x {a}/b'"])
def test_texts_that_name_no_file_in_particular_count_none(text, tmp_path):
    write(tmp_path, analysis=f"def select(a, b):\n    return {text}\n", other="")
    (tmp_path / "a.json").write_text("1")
    assert not found(tmp_path).facts


def test_folders_that_the_code_adds_to_the_path_are_looked_into(tmp_path):
    write(tmp_path, lib__cuts_of_lib="LIMIT = 3\n")
    write(
        tmp_path,
        run__analysis="import os, sys\n"
        "sys.path.append(os.path.join(os.path.dirname(__file__), '../lib'))\n"
        "import cuts_of_lib\ndef select(): return cuts_of_lib.LIMIT\n",
    )
    code = found(tmp_path, "run/analysis.py:select")
    assert [source.name for source in code.sources] == ["analysis", "cuts_of_lib"]


def test_an_error_tells_the_innermost_line_of_the_users_own(tmp_path):
    write(tmp_path, analysis="import cuts\ndef select():\n    return cuts.limit()\n")
    write(tmp_path, cuts="\n\ndef limit():\n    return sorted([1, 'a'])\n")
    code = found(tmp_path)
    with pytest.raises(TypeError) as caught:
        code.load()()
    assert code.where(caught.value) == " in line 4 of cuts.py"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("anlysis.py:select", r"cannot be read .*did you mean 'analysis\.py'\?"),
        ("analysis.py:selct", r"has no 'selct'; did you mean 'select'\?"),
        ("nowhere.at_all:select", r"module 'nowhere\.at_all' cannot be found"),
        ("wrong.py:select", r"'wrong\.py:select': line 2: "),
        (
            "failing.py:select",
            r"cannot be imported \(ModuleNotFoundError in line 1 of failing.py: .*absent_one",
        ),
        ("ending.py:select", r"cannot be imported \(SystemExit in line 4 of ending.py: usage"),
    ],
)
def test_what_is_wrong_is_told(reference, message, tmp_path):
    write(tmp_path, analysis="def select(): ...\n", wrong="\ndef (:\n")
    write(tmp_path, failing="import absent_one\ndef select(): ...\n")
    write(tmp_path, ending="import sys\n\ndef select(): ...\nsys.exit('usage: ending.py')\n")
    with pytest.raises(CodeError, match=message):
        found(tmp_path, reference).load()


def test_a_library_that_somebody_works_on_is_not_copied_but_its_content_counts(
    tmp_path, monkeypatch
):
    write(tmp_path / "clone", coffea____init__="VALUE = 3\n", coffea__inner="")
    write(tmp_path, analysis="import coffea\ndef select(): return coffea.__name__\n")
    monkeypatch.syspath_prepend(tmp_path / "clone")
    first = found(tmp_path)
    assert [source.name for source in first.sources] == ["analysis"]
    write(tmp_path / "clone", coffea__inner="changed = True\n")
    assert found(tmp_path).digest != first.digest


def test_a_broken_helper_names_the_reference_and_the_reason(tmp_path):
    write(tmp_path, analysis="from cuts import MISSING\ndef select(): ...\n", cuts="LIMIT = 3\n")
    with pytest.raises(
        CodeError, match=r"cannot be imported \(ImportError in line 1 of analysis.py"
    ):
        found(tmp_path).load()
    write(tmp_path, cuts="MISSING = 1\n")
    assert found(tmp_path).load()() is None


def test_modules_may_import_each_other(tmp_path):
    write(tmp_path, analysis="import cuts\nLIMIT = 5\ndef select(): return cuts.limit()\n")
    write(tmp_path, cuts="import analysis\ndef limit(): return analysis.LIMIT\n")
    assert found(tmp_path).load()() == 5


@pytest.mark.parametrize(
    "asked",
    [
        "os.environ['CUT_OF_TEST']",
        "os.environ.get('CUT_OF_TEST')",
        "os.getenv('CUT_OF_TEST')",
        "os.environ[KEY]",
        "os.getenv(KEY)",
        "VARIABLES['CUT_OF_TEST']",
        "VARIABLES.get(KEY)",
        "'CUT_OF_TEST' in os.environ",
        "KEY not in VARIABLES",
    ],
)
def test_variables_of_the_environment_that_the_code_asks_for_count(asked, tmp_path, monkeypatch):
    head = "import os\nKEY = 'CUT_OF_TEST'\nVARIABLES = os.environ\n"
    write(tmp_path, analysis=f"{head}def select(): return {asked}\n")
    monkeypatch.delenv("CUT_OF_TEST", raising=False)
    digests = {found(tmp_path).digest}
    assert found(tmp_path).facts["environment's CUT_OF_TEST"] == "not set"
    for value in ("1", "2"):
        monkeypatch.setenv("CUT_OF_TEST", value)
        digests.add(found(tmp_path).digest)
        monkeypatch.setenv("ANOTHER_OF_TEST", value)
        digests.add(found(tmp_path).digest)
    assert len(digests) == 3


def test_code_that_does_not_come_back_is_ended():
    def forever():
        while True:
            pass

    with pytest.raises(TimeoutError, match=r"it has not come back for 0\.2 s"), limited(0.2):
        forever()


def test_who_asked_for_a_module_that_is_not_there_is_known(tmp_path, monkeypatch):
    site = elsewhere.package(tmp_path, "optional", "1", "def go():\n    import engine_of_others\n")
    monkeypatch.syspath_prepend(site)
    text = (
        "import optional\ndef select(own):\n    if own:\n        import mine\n    optional.go()\n"
    )
    write(tmp_path, analysis=text)
    code = found(tmp_path)
    for own in (True, False):
        with pytest.raises(ModuleNotFoundError) as caught:
            code.load()(own)
        assert code.asked_for(caught.value) == own
