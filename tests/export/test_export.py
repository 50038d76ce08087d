import io
import warnings

import awkward as ak
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import encode_options, encoding_of, events, num_examples, sorted_by_python

from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.export import to_torchscript
from mlaas4hep_dask.export.call import takes_missing
from mlaas4hep_dask.export.scorer import contradiction
from mlaas4hep_dask.objective import BINARY
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.network import mlp

TOLERANCE = 1e-6


class Masked(torch.nn.Module):
    """Scores depend on which values are missing."""

    def __init__(self, num_columns):
        super().__init__()
        self.linear = torch.nn.Linear(2 * num_columns, 1)

    def forward(self, x, missing):
        return self.linear(torch.cat([x, missing.float()], dim=1))


class OnlyTraceable(torch.nn.Module):
    """TorchScript has no call with unpacked keywords."""

    def __init__(self, num_columns):
        super().__init__()
        self.linear = torch.nn.Linear(num_columns, 1)

    def forward(self, x):
        return self.linear(x).mul(**{"other": 2.0})  # noqa: PIE804  # TorchScript knows no such call


class OneColumn(torch.nn.Module):
    """One logit per event, shape (events,)."""

    def __init__(self, num_columns):
        super().__init__()
        self.linear = torch.nn.Linear(num_columns, 1)

    def forward(self, x):
        return self.linear(x).squeeze(1)


class WithDictionary(torch.nn.Module):
    """Neither scripts nor traces: it gives up on what is not a plain tensor."""

    def forward(self, x):
        if type(x).__name__ != "Tensor" or torch.jit.is_tracing():
            raise TypeError("no tracing")
        return x.sum(dim=1, **{"keepdim": True})  # noqa: PIE804  # TorchScript knows no such call


class Random(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=1) + torch.rand(x.shape[0])


class FrozenBatch(torch.nn.Module):
    """When traced it keeps the number of events it was traced with."""

    def forward(self, x):
        mean = x.mean(**{"dim": 1})  # noqa: PIE804  # TorchScript knows no such call
        return mean + torch.tensor([1.0] * len(x))


def load(content):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(io.BytesIO(content))


def raw_columns(made, encoding):
    """Raw float64 columns by awkward: NaN for padding."""
    array = made.to_awkward()
    layout = encoding.layout
    columns = [ak.to_numpy(array[name]).astype(np.float64)[:, None] for name in layout.flat]
    for branch in layout.jagged:
        values = ak.values_astype(array[branch.name], np.float64)
        padded = ak.fill_none(ak.pad_none(values, branch.width, clip=True), np.nan)
        padded = ak.to_numpy(ak.to_regular(padded, axis=1))
        columns.append(padded.reshape(len(array), branch.width))
    return torch.from_numpy(np.concatenate(columns, axis=1))


def eager_scores(network, x, missing):
    network = network.eval()
    with torch.no_grad():
        return torch.sigmoid(network(x, missing) if takes_missing(network) else network(x))


@pytest.fixture(scope="module")
def encodings(cms_events):
    specs = measure(cms_events, sample="s")
    return {
        (normalisation, out_of_range): Encoding.from_specs(
            specs, normalisation=normalisation, out_of_range=out_of_range, width=3
        )
        for normalisation in ("minmax", "standard")
        for out_of_range in ("pass", "clip")
    }


@pytest.mark.parametrize("network", [OnlyTraceable(3), FrozenBatch(), WithDictionary()])
def test_some_networks_cannot_be_scripted(network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(torch.jit.frontend.NotSupportedError):
            torch.jit.script(network)


@pytest.mark.parametrize("options", [("minmax", "pass"), ("minmax", "clip"), ("standard", "pass")])
@pytest.mark.parametrize("build", [mlp, Masked, OneColumn, OnlyTraceable])
def test_raw_and_encoded_events_get_the_network_s_own_scores(options, build, encodings, cms_events):
    encoding = encodings[options]
    torch.manual_seed(1)
    network = build(encoding.layout.num_columns)
    exported = load(to_torchscript(network, encoding))
    encoded = encode(cms_events, encoding)
    x, missing = torch.from_numpy(encoded.dense()), torch.from_numpy(encoded.missing())
    assert missing.any()
    raw = raw_columns(cms_events, encoding)
    expected = eager_scores(network, x, missing).reshape(-1)
    with torch.no_grad():
        scores = exported(raw), exported.score_encoded(x, missing)
    for found in scores:
        assert found.shape == (len(cms_events),)
        assert found.dtype == torch.float32
        assert float((found - expected).abs().max()) <= TOLERANCE
    assert float(expected.std()) > 0


@pytest.mark.slow
@given(st.data())
@num_examples(40)
def test_any_raw_values_are_scored_as_their_encoding_is(data):
    known, other = data.draw(events(min_events=1, finite=True)), data.draw(events(min_events=1))
    options = data.draw(encode_options(known))
    encoding = encoding_of(known, **options)
    exported = load(to_torchscript(Bounded(), encoding))
    encoded = encode(other, encoding)
    x, missing = torch.from_numpy(encoded.dense()), torch.from_numpy(encoded.missing())
    ordered = sorted_by_python(other, options["sort"])
    found = exported(raw_columns(ordered, encoding))
    torch.testing.assert_close(found, exported.score_encoded(x, missing), rtol=0, atol=TOLERANCE)


class Bounded(torch.nn.Module):
    """A network that no value can overflow."""

    def forward(self, x, missing):
        return torch.tanh(x).sum(dim=1) + missing.float().sum(dim=1) * 0.1


def test_dropout_is_at_rest_in_the_exported_network(encodings):
    encoding = encodings["minmax", "pass"]
    network = mlp(encoding.layout.num_columns, dropout=0.9)
    network.train()
    exported = load(to_torchscript(network, encoding))
    raw = torch.full((20, encoding.layout.num_columns), 5.0, dtype=torch.float64)
    assert torch.equal(exported(raw), exported(raw))


@pytest.mark.parametrize("num_events", [0, 1, 1000])
def test_any_number_of_events_is_scored(num_events, encodings):
    encoding = encodings["minmax", "pass"]
    exported = load(to_torchscript(mlp(encoding.layout.num_columns), encoding))
    raw = torch.zeros(num_events, encoding.layout.num_columns, dtype=torch.float64)
    assert exported(raw).shape == (num_events,)


def test_what_cannot_be_exported_is_a_model_error_with_the_reason(encodings):
    with pytest.raises(ModelError, match=r"(?s)neither scripted .* nor traced .*no tracing"):
        to_torchscript(WithDictionary(), encodings["minmax", "pass"])


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Random(), "gives other scores when it is asked again, by up to .* on 60 of 60 events"),
        (FrozenBatch(), "nor traced .it fails: "),
    ],
)
def test_a_network_that_changes_or_whose_export_does_is_refused(network, message, encodings):
    with pytest.raises(ModelError, match=message):
        to_torchscript(network, encodings["minmax", "pass"])


class Branched(torch.nn.Module):
    """Decides for each event by its values; a trace holds one way alone, a script both."""

    def forward(self, x):
        rows = []
        for row in x:
            value = row.mean()
            if bool(value > 0.5):
                value = value * 3
            rows.append(value)
        return torch.stack(rows)


class Unscriptable(Branched):
    def forward(self, x):
        return super().forward(x).mul(**{"other": 1.0})  # noqa: PIE804  # TorchScript knows no such call


def test_a_branch_by_the_values_of_events_is_scripted_or_refused(encodings):
    encoding = encodings["minmax", "pass"]
    x = torch.rand(200, encoding.layout.num_columns)
    missing = torch.zeros_like(x, dtype=torch.bool)
    network = Branched()
    exported = load(to_torchscript(network, encoding, rows=(x, missing)))
    with torch.no_grad():
        expected = torch.sigmoid(network(x))
        assert torch.allclose(exported.score_encoded(x, missing), expected, rtol=0, atol=TOLERANCE)
        for place in range(0, 200, 7):
            one = slice(place, place + 1)
            found = exported.score_encoded(x[one], missing[one])
            assert torch.allclose(found, expected[one], rtol=0, atol=TOLERANCE)
    with pytest.raises(
        ModelError, match=r"decides by the values of events, in line \d+ of test_exp"
    ):
        to_torchscript(Unscriptable(), encoding, rows=(x, missing))


def test_a_second_parameter_of_forward_asks_for_the_mask():
    assert takes_missing(Masked(3))
    assert not takes_missing(OneColumn(3))
    assert not takes_missing(mlp(3))


@pytest.mark.parametrize("numbers", [{"shift": 1.0, "scale": 2.0}, {"x": [0, 5], "y": [0, 1]}])
def test_specs_of_other_events_contradict_a_model_though_its_numbers_stay(numbers):
    def known(values):
        events = Events.from_awkward(ak.Array({"met": values}))
        return Encoding.from_specs(measure(events, sample="s"), normalisation={"met": numbers})

    exported = load(to_torchscript(mlp(1), known([0.0, 3.0, 5.0])))
    assert contradiction(exported, known([5.0, 1.0, 0.0]), BINARY) is None
    told = contradiction(exported, known([0.0, 3.0, 4.0]), BINARY)
    assert told == "greatest of met is 5.0 in model.pt, 4.0 by specs.json and manifest.json"
