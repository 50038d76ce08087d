from textwrap import dedent

import awkward as ak
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import num_examples
from test_method import OWN, piece

from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.encode.examples import Examples
from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.export.call import takes_missing
from mlaas4hep_dask.objective import BINARY, Classes, Reconstruction, Regression
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.bounds import bounds
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import find_model
from mlaas4hep_dask.train.network import mlp
from mlaas4hep_dask.train.trial import Training, try_model

COLUMNS = 4
HEAD = """
    import torch
    from torch.nn import functional

    class Base(torch.nn.Module):
        def __init__(self, num_columns, num_outputs=1):
            super().__init__()
            self.linear = torch.nn.Linear(num_columns, num_outputs)

"""


def network(forward, *, more="", signature="self, x"):
    """The text of a network with this forward; `more` stands at the end of its __init__."""
    lines = [
        "    class build(Base):",
        "        def __init__(self, num_columns, num_outputs=1):",
        "            super().__init__(num_columns, num_outputs)",
        *(f"            {line}" for line in more.splitlines()),
        "",
        f"        def forward({signature}):",
        *(f"            {line}" for line in dedent(forward).strip().splitlines()),
    ]
    return HEAD + "\n".join(lines) + "\n"


def encoding_of(num_columns=COLUMNS):
    columns = {f"x{i}": np.arange(3.0) for i in range(num_columns)}
    specs = measure(Events.from_awkward(ak.Array(columns)), sample="s")
    return Encoding.from_specs(specs, normalisation="minmax")


def examples(objective=BINARY, *, size=300):
    rng = np.random.default_rng(1)
    missing = rng.random((size, COLUMNS)) < 0.1
    x = np.where(missing, 0, rng.random((size, COLUMNS))).astype(np.float32)
    y = (np.arange(size) % 2).astype(np.float32)
    if objective.kind == "regression":
        y = rng.normal(size=(size, len(objective.names))).astype(np.float32)
    raw = np.where(missing, np.nan, x * 2.0)  # of branches from 0 to 2, brought to 0 to 1
    return Examples(x, missing, y, np.ones(size, np.float32), raw)


def tried(tmp_path, text, *, objective=BINARY, **facts):
    """The trial of a file's network."""
    (tmp_path / "network.py").write_text(dedent(text), encoding="utf-8")
    source = find_model(
        "network.py:build", {}, resolve=lambda path: tmp_path / path, where="dataset.yaml, line 9"
    )
    return try_model(source, examples(objective), Training(objective, encoding_of(), **facts))


def refused(tmp_path, text, **facts):
    with pytest.raises(ModelError) as caught:
        tried(tmp_path, text, **facts)
    assert "network.py:build" in str(caught.value)
    assert caught.value.callable.endswith("network.py:build")
    return str(caught.value)


FAULTS = {
    "one number per batch": (
        network("return self.linear(x).mean()"),
        "gives () for 3 events, expected one number per event",
    ),
    "seven columns": (
        network("return self.linear(x).repeat(1, 7)"),
        "gives (3, 7) for 3 events, expected one number per event",
    ),
    "a list": (network("return [1.0, 2.0, 3.0]"), "gives list for 3 events"),
    "the end of the process": (network("raise SystemExit(3)"), "network.py (SystemExit: 3)"),
    "a tuple": (network("return self.linear(x), x"), "gives tuple for 3 events"),
    "a dict": (network("return {'logits': self.linear(x)}"), "gives dict for 3 events"),
    "integers": (network("return (self.linear(x) > 0).long()"), "gives int64, expected floating"),
    "NaN": (network("return self.linear(x) / 0"), "not finite"),
    "NaN for some": (
        network("return self.linear(x) + torch.where(x[:, :1] > 0.9, torch.nan, 0.0)"),
        "not finite for",
    ),
    "other columns": (
        network("return self.linear(x[:, 1:])"), "does not accept rows of 4 columns in line 15 of"
    ),
    "its batch": (
        network("return self.linear(x - x.mean(0))"),
        "gives an event another score alone than among 300",
    ),
    "its batch, by BatchNorm": (
        network("return self.linear(self.norm(x))",
                more="self.norm = torch.nn.BatchNorm1d(num_columns, track_running_stats=False)"),
        "has BatchNorm1d(track_running_stats=False) as its norm, which averages over",
    ),
    "its place in the batch": (
        network("return self.linear(x) + torch.arange(len(x)).reshape(-1, 1) * 0.01"),
        "gives an event another score alone",
    ),
    "dropout at rest": (
        network("return self.linear(functional.dropout(x))"), "random in eval mode"
    ),
    "a memory": (
        network("self.calls += 1\nreturn self.linear(x) + 0.1 * (self.calls > 20)",
                more="self.calls = 0"),
        "gives other scores when it is asked again",
    ),
    "a buffer that changes": (
        network("self.calls += 1\nreturn self.linear(x)",
                more="self.register_buffer('calls', torch.zeros(()))"),
        "changes its calls in eval mode",
    ),
    "what it learned outside of its state": (
        network("if self.scale is None:\n    self.scale = x.std()\n"
                "return self.linear(x / self.scale)", more="self.scale = None"),
        "takes up its state_dict",
    ),
    "random numbers of its own": (
        network("return self.linear(x * self.signs)",
                more="self.signs = torch.randn(num_columns)"),
        "takes up its state_dict",
    ),
    "its input": (network("return self.linear(x.mul_(0.5))"), "changes its input in place"),
    "its mask": (
        network("missing.logical_not_()\nreturn self.linear(x)", signature="self, x, missing"),
        "changes its input in place",
    ),
    "nothing to train": (
        network("return self.linear(x)", more="self.requires_grad_(False)"),
        "all its parameters have requires_grad False",
    ),
    "parameters without use": (
        network("return x.sum(1) + torch.zeros(1, requires_grad=True)"),
        "do not depend on any of its parameters",
    ),
    "late parameters": (
        network("if self.head is None:\n    self.head = torch.nn.Linear(x.shape[1], 1)\n"
                "return self.head(x)", more="self.head = None"),
        "makes its parameters head.bias, head.weight when it is first called",
    ),
    "another device": (
        network("return self.linear(x)", more="self.other = torch.nn.Linear(2, 2, device='meta')"),
        "on meta; leave it on the CPU, from which training brings it",
    ),
    "the dtype of all": (
        network("torch.set_default_dtype(torch.float64)\nreturn self.linear(x)"),
        "changes torch.set_default_dtype of the whole process",
    ),
    "gradients of all": (
        network("torch.set_grad_enabled(False)\nreturn self.linear(x)"), "changes torch.set_grad_en"
    ),
    "doubles": (network("return self.linear(x)", more="self.double()"), "Double"),
    "neither scripts nor traces": (
        network("""
            h = self.linear(x).mul(**{"other": 1.0})
            return torch.stack([v * 2 if v > 0 else v for v in h[:, 0]])
        """),
        "its code decides by the values of events, in line 16 of network.py",
    ),
    "a rare branch that scripts not": (
        network("""
            h = self.linear(x).mul(**{"other": 1.0})
            if (x > 50).any():
                h = torch.where(x[:, :1] > 50, h * 2, h)
            return h
        """),
        "its code decides by the values of events, in line 16 of network.py",
    ),
}  # fmt: skip


def test_a_forward_that_never_ends_is_refused_with_its_line(tmp_path):
    text = network("while True:\n    x = x + 1.0")
    assert "of network.py (TimeoutError: it has not come back for 0.5 s)" in refused(
        tmp_path, text, seconds=0.5
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_network_that_breaks_its_contract_is_refused(fault, tmp_path):
    text, message = FAULTS[fault]
    assert message in refused(tmp_path, text)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


GOOD = {
    "one axis": network("return self.linear(x)[:, 0]"),
    "squeezed": network("return self.linear(x).squeeze()"),
    "a branch of each event": network("return torch.where(x[:, :1] > 0.5, self.linear(x), -1.0)"),
    "a loop that scripts": network("""
        h = self.linear(x)
        for _ in range(2):
            h = torch.tanh(h)
        return 5 * h
    """),
    "traced": network("return self.linear(x).mul(**{'other': 2.0})"),
    "traced, with a look that changes nothing": network("""
        assert torch.isfinite(x).all()
        return self.linear(x).mul(**{"other": 2.0}).view(x.shape[0], 1)
    """),
    "normed": network(
        "return self.linear(self.norm(x))", more="self.norm = torch.nn.BatchNorm1d(num_columns)"
    ),
    "dropped out": network("return self.linear(functional.dropout(x, training=self.training))"),
    "an initial value of the first events": network("""
        if self.training and not self.is_set:
            self.mean.copy_(x.mean(0))
            self.is_set.fill_(True)
        return self.linear(x - self.mean)
    """, more="self.register_buffer('mean', torch.zeros(num_columns))\n"
        "self.register_buffer('is_set', torch.tensor(False))"),
    "lazy": HEAD + "    build = lambda n: torch.nn.Sequential(torch.nn.LazyLinear(3), "
    "torch.nn.LazyBatchNorm1d(), torch.nn.ReLU(), torch.nn.LazyLinear(1))\n",
    "a weight that is not the mask": network(
        "h = self.linear(x)\nreturn h if weight is None else h * weight",
        signature="self, x, weight=None",
    ),
    "scripted by its author": network("return self.linear(x)")
    + "    build_eager = build\n    build = lambda n: torch.jit.script(build_eager(n))\n",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # of the network's author
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")  # of torch
@pytest.mark.parametrize("name", GOOD)
def test_a_network_that_keeps_its_contract_passes_without_a_word(name, tmp_path):
    made = tried(tmp_path, GOOD[name], batches=(100, 7))
    assert made.warnings == ()
    assert len(made.content) > 1_000


def test_several_outputs_are_rows(tmp_path):
    classes = Classes(("a", "b", "c"))
    assert tried(tmp_path, network("return self.linear(x)"), objective=classes).content
    text = network("return self.linear(x).sum(1)")
    assert "gives (3,) for 3 events, expected (3, 3)" in refused(tmp_path, text, objective=classes)


REGRESSION = Regression(("mass",), (91.0,), (0.2,))
ROWS = Reconstruction(tuple(f"x{i}" for i in range(COLUMNS)))


@pytest.mark.parametrize("objective", [REGRESSION, ROWS, Classes(("a", "b", "c"))])
def test_every_kind_of_output_keeps_the_contract(objective, tmp_path):
    assert tried(tmp_path, network("return self.linear(x)"), objective=objective).warnings == ()
    text = network("return self.linear(x - x.mean(0))")
    assert "another score alone" in refused(tmp_path, text, objective=objective)
    text = network("return self.linear(x.mul_(0))")
    assert "changes its input in place" in refused(tmp_path, text, objective=objective)


@pytest.mark.parametrize(
    ("last", "objective", "layer"),
    [
        ("torch.sigmoid(self.linear(x))", BINARY, "a Sigmoid or Softmax"),
        ("torch.softmax(self.linear(x), 1)", Classes(("a", "b", "c")), "a Sigmoid"),
        ("torch.sigmoid(self.linear(x))", REGRESSION, "a Sigmoid"),
        ("torch.relu(self.linear(x) + 0.1)", BINARY, "a ReLU"),
        ("self.linear(x).abs()", BINARY, "abs(), a square or a Softplus"),
        ("self.linear(x) ** 2", REGRESSION, "abs(), a square or a Softplus"),
        ("torch.nn.functional.softplus(self.linear(x)) + 1", BINARY, "abs(), a square"),
        ("self.linear(x).exp()", REGRESSION, "a ReLU"),  # which is 0 for -1,000 too
    ],
)
def test_a_last_layer_with_a_bound_at_0_is_warned_of(last, objective, layer, tmp_path):
    (warning,) = tried(tmp_path, network(f"return {last}"), objective=objective).warnings
    assert warning.startswith("model ")
    assert "network.py:build' gives no number below 0" in warning
    assert f"is its last layer {layer}" in warning


@pytest.mark.parametrize(
    ("last", "objective", "beyond"),
    [
        ("torch.tanh(self.linear(x))", REGRESSION, "below -1 or above 1"),
        ("torch.nn.functional.softsign(self.linear(x))", BINARY, "below -1 or above 1"),
        ("torch.tanh(self.linear(x))", Classes(("a", "b", "c")), "below -1 or above 1"),
        ("-(self.linear(x) ** 2)", BINARY, "above 0"),
    ],
)
def test_a_last_layer_that_reaches_no_further_is_warned_of(last, objective, beyond, tmp_path):
    (warning,) = tried(tmp_path, network(f"return {last}"), objective=objective).warnings
    assert f"gives no number {beyond} for any of" in warning


@pytest.mark.parametrize("columns", [1, 2, 5])
@pytest.mark.parametrize("seed", range(20))
def test_outputs_of_one_sign_by_chance_are_no_bound(columns, seed):
    torch.manual_seed(seed)
    made = mlp(columns).eval()
    rows = torch.randn(100, columns), torch.zeros(100, columns, dtype=torch.bool)
    before = [each.detach().clone() for each in made.parameters()]
    with torch.no_grad():
        outputs = made(rows[0]).reshape(100, -1)

    def call(x, missing):
        del missing
        return made(x).reshape(len(x), -1)

    assert bounds(made, call, rows, outputs, BINARY) == []
    assert all(map(torch.equal, made.parameters(), before))


def test_rows_between_0_and_1_may_be_made_by_a_sigmoid(tmp_path):
    text = network("return torch.sigmoid(self.linear(x))")
    assert tried(tmp_path, text, objective=ROWS).warnings == ()


def test_a_forward_that_sets_the_seed_is_warned_of(tmp_path):
    text = network("torch.manual_seed(3)\nreturn self.linear(x)")
    (warning,) = tried(tmp_path, text).warnings
    assert "sets the seed" in warning


@pytest.mark.parametrize(("last", "says"), [("half", "float16"), ("bfloat16", "bfloat16")])
def test_outputs_of_half_precision_are_refused(last, says, tmp_path):
    words = rf"gives {says}, which tells numbers near 1 apart by .* end its forward with"
    with pytest.raises(ModelError, match=words):
        tried(tmp_path, network(f"return self.linear(x).{last}()"))
    for finer in ("float", "double"):
        assert not tried(tmp_path, network(f"return self.linear(x).{finer}()")).warnings


def test_numbers_that_categories_do_not_tell_apart_are_warned_of(tmp_path):
    more = (
        "from mlaas4hep_dask.encode.input_layout import InputBranch\n"
        "from mlaas4hep_dask.train.views import Categories\n"
        "branch = InputBranch('id', None, 0, 1, True, (5,), ((4.5, 5.5),), (7, 8))\n"
        "self.category = Categories(branch)"
    )
    text = network("return self.linear(x)", more=more)
    (warning,) = tried(tmp_path, text).warnings
    assert "'network.py:build' has no categories for 7, 8 of branch 'id', which it" in warning


def test_the_random_numbers_of_others_are_left_alone(tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    tried(tmp_path, network("return self.linear(x)"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_schedule_is_tried_with_the_steps_that_it_will_have(tmp_path):
    text = network("return self.linear(x)")
    half = Method(scheduler=piece("OneCycleLR", "scheduler", pct_start=0.5))
    assert tried(tmp_path, text, method=half).warnings == ()
    with pytest.raises(ModelError, match=r"OneCycleLR' failed .*ZeroDivisionError"):
        tried(tmp_path, text, method=half, steps=1, epochs=2)
    by_epoch = Method(scheduler=piece("OneCycleLR", "scheduler"), every="epoch")
    assert tried(tmp_path, text, method=by_epoch, batches=(100, 9), epochs=1).warnings == ()


def test_a_network_that_cannot_be_copied_has_no_moving_average(tmp_path):
    text = network(
        "return self.linear(x)",
        more="import warnings\n"
        "with warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore')\n"
        "    torch.nn.utils.weight_norm(self.linear)",
    )
    assert tried(tmp_path, text).warnings == ()
    message = refused(tmp_path, text, method=Method(ema=0.9))
    assert "cannot be copied, as training.ema needs (RuntimeError: Only Tensors created" in message
    assert "\n" not in message
    other = text.replace("utils.weight_norm", "utils.parametrizations.weight_norm")
    assert tried(tmp_path, other, method=Method(ema=0.9)).warnings == ()


def test_a_state_that_checkpoints_cannot_hold_is_found_before_training(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    method = Method(scheduler=piece("own.py:Curve", "scheduler", tmp_path))
    with pytest.raises(ModelError, match=r"scheduler 'own.py:Curve' has a state_dict that check"):
        tried(tmp_path, network("return self.linear(x)"), method=method)


def test_a_smallest_batch_that_a_network_cannot_take_is_found_before_training(tmp_path):
    text = GOOD["normed"]
    message = refused(tmp_path, text, batches=(100, 1))
    assert "fails in training on a batch of 1 event, the smallest of an epoch" in message
    assert "Expected more than 1 value per channel" in message


def test_what_several_ranks_cannot_train_is_refused_for_them_alone(tmp_path):
    unused = network("return self.linear(x)", more="self.other = torch.nn.Linear(2, 2)")
    by_data = network("""
        with torch.no_grad():
            if not self.is_set:
                self.linear.bias.copy_(-self.linear(x).mean(0))
                self.is_set.fill_(True)
        return self.linear(x)
    """, more="self.register_buffer('is_set', torch.tensor(False))")  # fmt: skip
    messages = {
        unused: "does not use its parameters other.weight, other.bias",
        by_data: "sets its parameters linear.bias by the first events",
    }
    for text, message in messages.items():
        assert tried(tmp_path, text).content
        assert message in refused(tmp_path, text, num_ranks=2)


def test_an_error_names_the_innermost_line_of_the_user_s_own(tmp_path):
    (tmp_path / "helpers.py").write_text("def half(x):\n    return x.view(len(x), -1, 3)\n")
    text = "from helpers import half\n" + dedent(network("return self.linear(half(x))"))
    message = refused(tmp_path, text)
    assert (
        "does not accept rows of 4 columns in line 2 of helpers.py (RuntimeError: shape" in message
    )


@pytest.mark.slow
def test_a_format_that_the_network_cannot_have_is_refused_before_training(tmp_path):
    """TorchScript follows code that decides by values; a program cannot."""
    text = network("return self.linear(x) * (2.0 if bool(x[0, 0] > 5.0) else 1.0)")
    assert tried(tmp_path, text).files == {}
    message = refused(tmp_path, text, formats=["torchscript", "torch_export"])
    assert "cannot be exported as torch_export" in message


def test_building_does_not_call_the_network(tmp_path):
    (tmp_path / "network.py").write_text(
        dedent(network("self.calls += 1\nreturn self.linear(x)", more="self.calls = 0"))
    )
    source = find_model(
        "network.py:build", {}, resolve=lambda path: tmp_path / path, where="dataset.yaml"
    )
    assert source.build(COLUMNS).calls == 0


def forward_of(signature):
    space = {"torch": torch}
    text = f"class N(torch.nn.Module):\n    def forward({signature}): ...\n"
    exec(text, space)  # noqa: S102  # our own text
    return space["N"]()


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("self, x", False),
        ("self, x, missing", True),
        ("self, x, mask=None", True),
        ("self, x, missing_mask=None", True),
        ("self, x, m", True),  # there is nothing else to be given
        ("self, x, weight=None", False),
        ("self, x, return_mask=False", False),
        ("self, x, temperature=1.0", False),
        ("self, *inputs", False),
        ("self, x, *more, **others", False),
        ("self, x, *, scale=1.0", False),
    ],
)
def test_the_missing_mask_is_given_to_a_parameter_that_asks_for_it(signature, expected):
    assert takes_missing(forward_of(signature)) is expected


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("self, x, weight", "needs 'weight'"),
        ("self, x, valid_mask", "True where a value is padding"),
        ("self, x, missing, weight", "needs 'weight'"),
        ("self, x, weight=None, missing=None", "takes 'missing' .* not as the second"),
        ("self, x, *, missing=None", "takes 'missing' .* not as the second"),
    ],
)
def test_a_forward_that_cannot_be_given_what_it_asks_for_is_refused(signature, message):
    with pytest.raises(ModelError, match=message):
        takes_missing(forward_of(signature))


@given(st.floats(0.01, 100), st.integers(0, 2**16), st.sampled_from([BINARY, REGRESSION, ROWS]))
@num_examples(25)
def test_no_plain_network_is_refused_for_its_rounding(size, seed, objective):
    from mlaas4hep_dask.export.contract import outputs_of

    torch.manual_seed(seed)
    x = torch.randn(100, COLUMNS) * size
    network = torch.nn.Sequential(
        torch.nn.Linear(COLUMNS, 64), torch.nn.ReLU(), torch.nn.Linear(64, objective.num_outputs)
    )
    with torch.no_grad():
        found = outputs_of(lambda rows, _: network(rows), x, x > 1e9, objective)
        assert torch.equal(found, network(x))
