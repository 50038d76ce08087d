"""Every real file at hand: what we offer of it, compared bit by bit with plain uproot."""

import importlib.util
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from paths import TESTS

from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.reader import plan_file, read
from mlaas4hep_dask.reader.objects import is_object
from mlaas4hep_dask.reader.opened import open_data
from mlaas4hep_dask.reader.rootfile import is_tree
from mlaas4hep_dask.specs.measure import measure

pytestmark = pytest.mark.slow

HEPTUTORIAL = TESTS.parent / "workflows" / "heptutorial" / "data"
FOLDERS = (TESTS / "data", TESTS / "data" / "faults", HEPTUTORIAL)


def files():
    """The files, by a short name."""
    found = {file.name: file for folder in FOLDERS for file in sorted(folder.glob("*.root"))}
    spec = importlib.util.find_spec("skhep_testdata")  # its files, as far as they were fetched
    if spec is not None and spec.submodule_search_locations:
        for place in spec.submodule_search_locations:
            found |= {f"skhep/{file.name}": file for file in sorted(Path(place).rglob("*.root"))}
        cache = Path.home() / ".local" / "skhepdata"
        found |= {f"skhep/{file.name}": file for file in sorted(cache.rglob("*.root"))}
    return found


def trees_of(file):
    with uproot.open({str(file): None}) as opened:
        kinds = opened.classnames(cycle=False).items()
        return [name for name, kind in kinds if is_tree(opened.file, kind)]


def by_uproot(tree, source):
    """Values, and the multiplicities of a jagged one, as uproot and awkward alone give them."""
    holder = tree[source.holder.path] if hasattr(tree, "fields") else source.holder
    array = holder.array(library="ak")
    for step in source.steps:
        if isinstance(step, str):
            array = array[step]
        else:
            at = (slice(None),) * (array.ndim - _inner(array)) + (step,)
            array = array[at]
    if source.branch.kind == "flat":
        return _filled(array, source), None
    return _filled(ak.flatten(array, axis=1), source), ak.to_numpy(ak.num(array, axis=1))


def _inner(array):
    """Axes of fixed length at the end of an array's shape, of which a step takes the first."""
    axes = 0
    kind = ak.type(array).content
    while isinstance(kind, ak.types.RegularType | ak.types.ListType):
        axes = axes + 1 if isinstance(kind, ak.types.RegularType) else 0
        kind = kind.content
    return axes


def _filled(array, source):
    if isinstance(ak.type(array).content, ak.types.OptionType):
        array = ak.fill_none(array, np.nan)
    return np.ascontiguousarray(ak.to_numpy(array), dtype=source.branch.dtype)


@pytest.mark.parametrize("name", files())
def test_all_that_is_offered_of_a_file_is_what_uproot_reads(name):
    file = files()[name]
    try:
        trees = trees_of(file)
    except Exception as error:  # uproot cannot open all files of its own tests
        pytest.skip(f"uproot: {error}")
    for tree in trees:
        try:
            plan = plan_file(str(file), tree, "s")
        except (DataError, UnreadableFileError) as error:
            assert name.startswith("skhep/"), error  # noqa: PT017  # a word must have been said
            continue
        part = plan.planned([]).partition(0, plan.num_entries)
        branches = list(plan.branches.values())
        events = read(part, branches)
        assert len(events) == plan.num_entries
        opened = open_data(str(file), str(file), tree, plan.access)
        specs = measure(events, sample="s").branches if branches else {}
        for branch in branches:
            source = opened.catalogue.sources[branch.name]
            values = events.contents[branch.name]
            assert values.dtype == np.dtype(branch.dtype), branch
            if not (is_object(getattr(source.holder, "interpretation", None)) and source.steps):
                expected, counts = by_uproot(opened.tree, source)
                assert values.tobytes() == expected.tobytes(), (tree, branch)
                if counts is not None:
                    own = events.offsets[branch.collection]
                    np.testing.assert_array_equal(np.diff(own), counts, err_msg=str(branch))
            finite = values[np.isfinite(values)].astype(np.float64)
            found = specs[branch.name].moments
            assert (found.num_values, found.num_finite) == (values.size, finite.size), branch
            if finite.size:
                assert (found.min, found.max) == (finite.min(), finite.max()), branch
                mean = float(np.mean(finite.astype(np.longdouble)))
                assert found.mean == pytest.approx(mean, 1e-12, abs(found.max) * 1e-12), branch
        half = read(plan.planned([]).partition(0, plan.num_entries // 2), branches)
        for branch in branches:
            start = events.contents[branch.name][: half.contents[branch.name].size]
            assert half.contents[branch.name].tobytes() == start.tobytes(), branch
