"""What the factory of a network is given, by the names of its parameters."""

from textwrap import dedent

import awkward as ak
import pytest

from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.objective import BINARY, Regression
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.given import NAMES, Given, arguments_of
from mlaas4hep_dask.train.model import find_model

EVENTS = Events.from_awkward(
    ak.Array({"MET_pt": [3.0, 1.0, 2.0], "Jet_pt": [[3.5, 2.0], [], [1.0]]})
)
SPECS = measure(EVENTS, sample="s")
ROWS = Given.of(Encoding.from_specs(SPECS), BINARY, SPECS)  # of 3 columns
IMAGES = Given((2, 8, 8), num_outputs=3, num_classes=3)


def asks(signature):
    """A factory with these parameters."""
    space = {}
    exec(f"def build({signature}): ...", space)  # noqa: S102  # our own text
    return space["build"]


@pytest.mark.parametrize(
    ("signature", "given", "kwargs", "positional", "keywords"),
    [
        ("n", ROWS, {}, (3,), {}),
        ("n, width=3", ROWS, {}, (3,), {}),
        ("n, /", ROWS, {}, (3,), {}),
        ("num_columns, /", ROWS, {}, (3,), {}),
        ("n=1", ROWS, {}, (3,), {}),  # nothing else tells of the inputs
        ("*sizes", ROWS, {}, (3,), {}),
        ("shape", IMAGES, {}, ((2, 8, 8),), {}),
        ("n, num_outputs=7", ROWS, {}, (3,), {"num_outputs": 1}),
        ("n, num_outputs", ROWS, {"num_outputs": 5}, (3,), {}),
        ("num_columns", ROWS, {}, (), {"num_columns": 3}),
        ("*, num_columns", ROWS, {}, (), {"num_columns": 3}),
        ("width=3, *, num_columns", ROWS, {}, (), {"num_columns": 3}),
        ("width, num_columns", ROWS, {"width": 8}, (), {"num_columns": 3}),
        ("n, /, num_columns", ROWS, {}, (3,), {"num_columns": 3}),
        ("image_shape, num_classes", IMAGES, {}, (), {"image_shape": (2, 8, 8), "num_classes": 3}),
        ("image_shape=None, num_columns=0", ROWS, {}, (), {"num_columns": 3}),
        ("num_columns", ROWS, {"num_columns": 9}, (), {}),
        ("num_classes, n", ROWS, {"n": 1}, (), {"num_classes": 2}),
        ("width=3, **others", ROWS, {}, (3,), {}),
    ],
)
def test_a_factory_is_given_what_it_declares(signature, given, kwargs, positional, keywords):
    assert arguments_of(asks(signature), kwargs, given) == (positional, keywords)


def test_layout_and_specs_are_given_where_they_are_known():
    _, keywords = arguments_of(asks("*, layout, specs"), {}, ROWS)
    assert keywords["layout"].columns() == ["MET_pt", "Jet_pt[0]", "Jet_pt[1]"]
    assert keywords["specs"] is SPECS
    assert "layout" not in IMAGES.by_name()
    facts = (Encoding.from_specs(SPECS), BINARY, SPECS)
    for name, other in (("layout", "specs"), ("specs", "layout")):
        assert Given.of(*facts, names={name}).by_name().keys() == ROWS.by_name().keys() - {other}


def test_classes_are_told_where_there_are_some():
    assert ROWS.by_name()["num_classes"] == 2
    regression = Regression(("HT", "MET")).unfitted(())
    told = Given.of(Encoding.from_specs(SPECS), regression, SPECS).by_name()
    assert "num_classes" not in told
    assert told["num_outputs"] == 2


@pytest.mark.parametrize(
    ("signature", "given", "message"),
    [
        ("num_colums, *, layuot", ROWS, "needs 'layuot', .* did you mean 'layout'"),
        ("width, num_columns", ROWS, "needs 'width', which is not in model.kwargs"),
        ("hidden, *, layout", ROWS, "needs 'hidden', which is not in model.kwargs"),
        ("n, depth", ROWS, f"needs 'depth', which is not in model.kwargs; .* {NAMES[0]}, .* or"),
        ("image_shape", ROWS, "needs 'image_shape', but events are rows: it may .*num_columns"),
        (
            "*, layout",
            IMAGES,
            "needs 'layout', but events are images of .*, which .*may declare image_shape",
        ),
        ("num_columns", IMAGES, "needs 'num_columns', but events are images"),
        ("n, *, num_classes", Given((4,)), "needs 'num_classes', but no classes are learned"),
    ],
)
def test_a_parameter_that_nothing_is_known_for_is_an_error(signature, given, message):
    with pytest.raises(TypeError, match=message):
        arguments_of(asks(signature), {}, given)


def test_what_kwargs_tell_of_the_inputs_is_for_no_other_parameter():
    with pytest.raises(TypeError, match=r"needs 'width', which is not in model\.kwargs"):
        arguments_of(asks("width, num_columns"), {"num_columns": 9}, ROWS)


def source_of(tmp_path, text, **kwargs):
    (tmp_path / "network.py").write_text(dedent(text), encoding="utf-8")
    return find_model(
        "network.py:build", kwargs, resolve=lambda path: tmp_path / path, where="dataset.yaml"
    )


def test_a_network_is_built_of_a_layout(tmp_path):
    text = """
        import torch

        def build(layout, *, num_outputs, width):
            jets, = layout.collections
            return torch.nn.Sequential(
                torch.nn.Linear(layout.num_columns, width * jets.width),
                torch.nn.Linear(width * jets.width, num_outputs),
            )
        """
    source = source_of(tmp_path, text, width=5)
    assert source.build(ROWS)[0].out_features == 10
    assert source.declares() == {"layout", "num_outputs"}


def test_an_unknown_parameter_is_named_before_the_callable_runs(tmp_path):
    text = """
        def build(n, branches):
            raise AssertionError
        """
    with pytest.raises(ModelError, match=r"'network\.py:build' needs 'branches', which") as caught:
        source_of(tmp_path, text).build(ROWS)
    assert "num_columns, layout, specs, image_shape, num_classes or num_outputs" in str(
        caught.value
    )
