"""Every real file at hand: what we offer of it, compared bit by bit with plain uproot."""

import importlib.util
import os
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from paths import TESTS

from mlaas4hep_dask.derive.rows import only
from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.events.events import between
from mlaas4hep_dask.reader import plan_file, read
from mlaas4hep_dask.reader.cells import truths
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
    for folder in filter(None, os.environ.get("MLAAS4HEP_SWEEP", "").split(os.pathsep)):
        place = Path(folder).expanduser()
        found |= {f"{place.name}/{f.relative_to(place)}": f for f in sorted(place.rglob("*.root"))}
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
    return truths(np.ascontiguousarray(ak.to_numpy(array), dtype=source.branch.dtype))


def has_heads(source, num_values):
    """True for unsplit objects with heads that uproot does not know: it takes pieces of these."""
    kind = getattr(source.holder, "interpretation", None)
    if not source.steps or not is_object(kind):
        return False
    content, heads = kind, 0
    if isinstance(kind, uproot.AsJagged):
        content, heads = kind.content, kind.header_bytes * source.holder.num_entries
    baskets = (source.holder.basket(number) for number in range(source.holder.num_baskets))
    num_bytes = sum(basket.data.nbytes for basket in baskets)
    return num_bytes != heads + num_values * content.from_dtype.itemsize


def _trimmed(counts):
    return list(np.trim_zeros(np.array(counts, dtype=np.int64), "b"))


def require_moments(specs, values):
    """Counts, extremes, mean, squares and quantiles are those that NumPy gives of the values."""
    branch, found = specs.branch, specs.moments
    finite = values[np.isfinite(values)].astype(np.float64)
    assert (found.num_values, found.num_finite) == (values.size, finite.size), branch
    assert found.num_nan == np.count_nonzero(np.isnan(values)), branch
    if not finite.size:
        return
    assert (found.min, found.max) == (finite.min(), finite.max()), branch
    size = float(np.abs(finite).max())
    exact = finite.astype(np.longdouble)
    mean = exact.mean()
    assert found.mean == pytest.approx(float(mean), 1e-12, size * 1e-12), branch
    squares = ((exact - mean) ** 2).sum()
    limit = np.finfo(np.float64).max
    rounding = finite.size * (size * 1e-15) ** 2 if size < 1e150 else 0.0
    assert found.squares == pytest.approx(min(float(squares), limit), 1e-9, rounding), branch
    if specs.drawn.size == values.size:
        fractions = [0.01, 0.25, 0.5, 0.75, 0.99]
        expected = np.quantile(finite, fractions, method="inverted_cdf")
        np.testing.assert_array_equal(specs.quantiles(fractions), expected, err_msg=str(branch))


def require_rows(events, specs, plain, multiplicities):
    """Encoded rows are what NumPy makes of uproot's arrays: padded, with what is missing as 0."""
    low, high = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
    fit = [
        name
        for name, each in specs.branches.items()
        if each.min is None or low < each.min <= each.max < high  # else it is refused
    ]
    events = only(events, fit)
    few, specs = between(events, 0, min(len(events), 200)), measure(events, sample="s")
    expected = {}
    for branch in few.branches:
        if branch.name not in plain:
            continue
        if branch.collection is None:
            expected[branch.name] = plain[branch.name][: len(few)].astype(np.float64)
            continue
        counts = multiplicities[branch.collection]
        width = specs.max_multiplicity(branch.collection)
        padded = np.full((len(few), width), np.nan)
        inside = np.arange(width) < counts[: len(few), None]
        padded[inside] = plain[branch.name][: counts[: len(few)].sum()]
        expected |= {f"{branch.name}[{place}]": padded[:, place] for place in range(width)}
    for normalisation in ("none", "minmax"):
        encoding = Encoding.from_specs(specs, normalisation=normalisation)
        if not encoding.columns():
            return
        encoded = encode(few, encoding)
        rows, missing = encoded.dense(), encoded.missing()
        for place, column in enumerate(encoding.columns()):
            if column not in expected:
                continue
            values = expected[column]
            lacks = ~np.isfinite(values)
            np.testing.assert_array_equal(missing[:, place], lacks, err_msg=column)
            if normalisation == "minmax":
                name = next(b.name for b in few.branches if _is_column_of(column, b))
                low, high = specs.branches[name].min or 0, specs.branches[name].max or 0
                values = (values - low) / (high - low if high > low else 1.0)
                found = np.where(lacks, 0, rows[:, place])
                np.testing.assert_allclose(
                    found, np.where(lacks, 0, values), rtol=1e-5, atol=1e-6, err_msg=column
                )
            else:
                values = np.where(lacks, 0, values).astype(np.float32)
                np.testing.assert_array_equal(rows[:, place], values, err_msg=column)


def _is_column_of(column, branch):
    if branch.collection is None:
        return column == branch.name
    return column.rpartition("[")[0] == branch.name


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
            assert file.parent not in FOLDERS, error  # noqa: PT017  # a word must have been said
            continue
        part = plan.planned([]).partition(0, plan.num_entries)
        branches = list(plan.branches.values())
        events = read(part, branches)
        assert len(events) == plan.num_entries
        opened = open_data(str(file), str(file), tree, plan.access)
        specs = measure(events, sample="s")
        plain, multiplicities = {}, {}
        for branch in branches:
            source = opened.catalogue.sources[branch.name]
            values = events.contents[branch.name]
            assert values.dtype == np.dtype(branch.dtype), branch
            counts = None
            if not has_heads(source, values.size):
                try:
                    expected, counts = by_uproot(opened.tree, source)
                except ValueError as error:  # uproot's own word, which it has for others' files
                    assert file.parent not in FOLDERS, error  # noqa: PT017
                    continue
                assert values.tobytes() == expected.tobytes(), (tree, branch)
                if counts is not None:
                    own = events.offsets[branch.collection]
                    np.testing.assert_array_equal(np.diff(own), counts, err_msg=str(branch))
                    multiplicities[branch.collection] = counts
                plain[branch.name] = expected
            require_moments(specs.branches[branch.name], values)
        for collection, counts in multiplicities.items():
            expected = np.bincount(counts).tolist() if counts.size else []
            assert _trimmed(specs.multiplicities[collection]) == _trimmed(expected), collection
        if len(events):
            require_rows(events, specs, plain, multiplicities)
        half = read(plan.planned([]).partition(0, plan.num_entries // 2), branches)
        for branch in branches:
            start = events.contents[branch.name][: half.contents[branch.name].size]
            assert half.contents[branch.name].tobytes() == start.tobytes(), branch
