"""Rows as objects, for the networks of users: eager, scripted, traced and exported."""

import io
import warnings
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
import torch

from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.encode.input_layout import input_layout
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.stepping import Stepper
from mlaas4hep_dask.train.views import Categories, CollectionViews, cautions_of

ARRAY = ak.Array(
    {
        "MET": [10.5, np.nan, 30.0, 5.0],
        "nPV": [3, 1, 2, 3],
        "Jet_pt": [[50.0, 40.0], [], [np.nan], [20.0, 10.0, 5.0]],
        "Jet_charge": [[1, -1], [], [0], [1, 1, -1]],
        # Of another multiplicity: it sorts between those of the jets, whose columns it parts.
        "Jet_near": [[0.5], [1.5, -1.5], [], []],
        "Muon_eta": [[0.5], [1.5, -1.5], [], [np.nan]],
        "Muon_pt": [[5.0], [7.0, np.nan], [], [np.nan]],
    }
)


def made(array=ARRAY, **options):
    """The layout, and rows with their mask."""
    events = Events.from_awkward(array)
    specs = measure(events, sample="s")
    encoding = Encoding.from_specs(specs, **options)
    encoded = encode(events, encoding)
    x, missing = torch.from_numpy(encoded.dense()), torch.from_numpy(encoded.missing())
    return input_layout(encoding, specs), x, missing


class Objects(torch.nn.Module):
    """Sums over objects and embeds a charge; what users' networks do with views."""

    def __init__(self, layout):
        super().__init__()
        self.views = CollectionViews(layout)
        self.charge = Categories(layout.branch("Jet_charge"))
        self.embedding = torch.nn.Embedding(layout.branch("Jet_charge").num_categories, 2)
        self.encoders = torch.nn.ModuleDict(
            {each.name: torch.nn.Linear(len(each.branches), 2) for each in layout.collections}
        )

    def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        views = self.views(x, missing)
        total = views.flat.masked_fill(views.flat_missing, 7.0).sum(dim=1)
        for name, encode_objects in self.encoders.items():
            there = ~views.missing[name].unsqueeze(2)
            total = total + (encode_objects(views.objects[name]) * there).sum(dim=(1, 2))
        return total + self.embedding(self.charge(x, missing)).sum(dim=(1, 2))


def by_awkward(name, width):
    values = ak.values_astype(ARRAY[name], np.float32)
    padded = ak.fill_none(ak.pad_none(values, width, clip=True), np.nan)
    return torch.from_numpy(ak.to_numpy(padded).astype(np.float32).copy())


def test_views_hold_the_values_of_objects_and_which_are_there():
    layout, x, missing = made(normalisation="none")
    views = CollectionViews(layout)(x, missing)
    assert list(views.objects) == ["Jet", "Jet_near", "Muon"]
    for collection in layout.collections:
        objects, absent = views.objects[collection.name], views.missing[collection.name]
        columns = [by_awkward(each.name, collection.width) for each in collection.branches]
        expected = torch.stack(columns, dim=2)
        assert torch.equal(objects, expected.nan_to_num())
        # An object of which no value is known is none.
        assert torch.equal(absent, expected.isnan().all(dim=2))
    assert views.missing["Jet"].tolist()[2] == [False, True, True]  # its charge is known
    assert views.missing["Muon"].tolist()[3] == [True, True]
    assert torch.equal(views.flat, torch.tensor([[10.5, 3], [0, 1], [30, 2], [5, 3]]))
    assert views.flat_missing.tolist() == [[False, False], [True, False]] + [[False, False]] * 2


def test_nothing_is_copied_where_the_columns_lie_side_by_side():
    layout, x, missing = made()
    views = CollectionViews(layout)(x, missing)
    storage = {name: objects.data_ptr() for name, objects in views.objects.items()}
    begin, end = x.data_ptr(), x.data_ptr() + x.numel() * x.element_size()
    assert {name for name, place in storage.items() if begin <= place < end} == {"Jet_near", "Muon"}
    assert views.flat.data_ptr() == begin


def test_the_mask_is_what_attention_takes():
    layout, x, missing = made(normalisation="none", width=2)
    views = CollectionViews(layout)(x, missing)
    attention = torch.nn.MultiheadAttention(2, 1, batch_first=True).eval()
    some = slice(0, 2)  # events with muons: without any, attention has nothing to attend to
    muons, absent = views.objects["Muon"][some], views.missing["Muon"][some]
    with torch.no_grad():
        together, _ = attention(muons, muons, muons, key_padding_mask=absent)
        alone, _ = attention(*[muons[:1, :1]] * 3)
    assert torch.allclose(together[:1, :1], alone)


@pytest.mark.parametrize("normalisation", ["none", "auto", "standard"])
def test_categories_are_found_back_however_they_are_normalised(normalisation):
    layout, x, missing = made(normalisation=normalisation)
    charge = Categories(layout.branch("Jet_charge"))
    assert layout.branch("Jet_charge").values == (-1, 0, 1)
    assert charge(x, missing).tolist() == [[3, 1, 0], [0, 0, 0], [2, 0, 0], [3, 3, 1]]
    vertices = Categories(layout.branch("nPV"))
    assert vertices(x, missing).tolist() == [[3], [1], [2], [3]]


def test_a_value_that_no_event_had_is_of_no_category():
    layout, x, missing = made(normalisation="none")
    vertices = Categories(layout.branch("nPV"))
    column = layout.branch("nPV").first
    for value, expected in ((0.0, 0), (4.0, 0), (1.5, 0), (2.0, 2)):
        x[:, column] = value
        assert vertices(x, missing).tolist() == [[expected]] * 4


def test_numbers_that_rows_do_not_tell_apart_are_of_no_category():
    numbers = np.array([-211, -13, -11, 11, 13, 211, 1_000_010_020, 1_000_020_040])
    array = ak.Array({"id": np.tile(numbers, 50), "MET": np.arange(400.0)})
    for normalisation in ("none", "auto", "minmax", "standard", "robust"):
        layout, x, missing = made(array, normalisation=normalisation)
        branch = layout.branch("id")
        categories = Categories(branch)
        expected = [branch.values.index(n) + 1 if n in branch.values else 0 for n in numbers]
        assert categories(x, missing).flatten().tolist() == expected * 50
        (*caution,) = cautions_of(torch.nn.Sequential(categories, Categories(branch)))
        assert bool(caution) == bool(branch.alike) == (0 in expected)
    layout, _, _ = made(ak.Array({"id": 10**9 + np.tile([1, 2, 10**6], 9)}), normalisation="none")
    with pytest.raises(ValueError, match="'id' has values that single precision does not tell"):
        Categories(replace(layout.branch("id"), values=()))


def test_branches_that_are_no_categories_are_refused():
    layout, _, _ = made()
    with pytest.raises(ValueError, match="'MET' has values that are not whole"):
        Categories(layout.branch("MET"))


@pytest.mark.parametrize(
    "form", ["scripted", "traced", pytest.param("exported", marks=pytest.mark.slow)]
)
def test_views_and_categories_leave_python(form):
    layout, x, missing = made()
    torch.manual_seed(1)
    network = Objects(layout).eval()
    few = (x[:3].clone(), missing[:3].clone())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch.jit, that it is deprecated
        if form == "exported":
            batch = {0: torch.export.Dim.DYNAMIC}
            other = torch.export.export(network, few, dynamic_shapes=(batch, batch)).module()
        else:
            made_by = {"scripted": torch.jit.script, "traced": torch.jit.trace}[form]
            arguments = (network,) if form == "scripted" else (network, few)
            buffer = io.BytesIO()
            torch.jit.save(made_by(*arguments), buffer)
            buffer.seek(0)
            other = torch.jit.load(buffer)
        expected = network(x, missing)
        torch.testing.assert_close(other(x, missing), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(other(x[:1], missing[:1]), expected[:1], rtol=0, atol=1e-6)
    assert expected.std() > 0


def test_views_learn_nothing_and_are_in_no_checkpoint():
    layout, _, _ = made()
    assert CollectionViews(layout).state_dict() == {}
    assert Categories(layout.branch("Jet_charge")).state_dict() == {}


def test_the_moving_average_finds_the_same_objects_and_categories():
    layout, x, missing = made()
    network = Objects(layout)
    stepper = Stepper(network, Method(ema=0.9995), learning_rate=0.0)
    expected = network(x, missing)
    assert network.charge.numbers.numel()
    for _ in range(2000):
        stepper.step()
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, stepper.measured.get_buffer(name)), name
    assert torch.equal(stepper.measured(x, missing), expected)
