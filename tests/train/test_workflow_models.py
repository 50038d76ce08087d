"""The networks that workflows/ offers to copy work on its data."""

import pytest
import torch
from paths import TUTORIAL

from mlaas4hep_dask.config import load
from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.encode.examples import Examples
from mlaas4hep_dask.objective import BINARY
from mlaas4hep_dask.run.stages import model_of
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.given import Given
from mlaas4hep_dask.train.trial import Training, try_model

NUM_EVENTS = 60


@pytest.fixture(autouse=True)
def one_thread():
    """As on a worker: for few rows, threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def examples_of(events, encoding):
    rows = torch.arange(NUM_EVENTS).numpy()
    encoded = encode(events, encoding)
    labels = (rows % 2).astype("float32")
    return Examples(encoded.dense(rows), encoded.missing(rows), labels, labels * 0 + 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepsets", "transformer"])
def test_a_network_of_the_workflows_is_trained_and_exported(name, cms_events):
    model = model_of(load(TUTORIAL / f"{name}.yaml", []))
    specs = measure(cms_events, sample="s")
    encoding = Encoding.from_specs(specs)
    examples = examples_of(cms_events, encoding)
    assert not all(examples.missing.any(axis=1) == examples.missing.all(axis=1))
    tried = try_model(model, examples, Training(BINARY, encoding, (20, 7), specs=specs))
    assert tried.warnings == ()
    assert {"layout", "num_outputs"} <= model.declares()


@pytest.mark.parametrize("name", ["deepsets", "transformer"])
def test_padding_and_the_order_of_objects_say_nothing(name, cms_events):
    """More columns of padding, or another order of the jets, leave the score as it is."""
    specs = measure(cms_events, sample="s")
    encoding = Encoding.from_specs(specs)
    given = Given.of(encoding, BINARY, specs)
    torch.manual_seed(1)
    network = model_of(load(TUTORIAL / f"{name}.yaml", [])).build(given).eval()
    examples = examples_of(cms_events, encoding)
    x, missing = torch.from_numpy(examples.x), torch.from_numpy(examples.missing)
    order = torch.arange(x.shape[1])
    (jets,) = [each for each in given.layout.collections if each.name == "Jet"]
    for branch in jets.branches:
        order[branch.first : branch.first + branch.width] = torch.tensor(branch.columns).flip(0)
    with torch.no_grad():
        scores = network(x, missing)
        turned = network(x[:, order], missing[:, order])
        noise = torch.where(missing, torch.full_like(x, 50.0), x)
        # What stands where no object is makes no difference either.
        alone = missing & ~_some_value(missing, given.layout)
        other = network(torch.where(alone, noise, x), missing)
    assert scores.std() > 0
    torch.testing.assert_close(turned, scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(other, scores, rtol=0, atol=1e-5)


def _some_value(missing, layout):
    """True in all columns of an object that has some value, and in those of flat branches."""
    known = torch.ones_like(missing)
    for collection in layout.collections:
        columns = torch.tensor([list(branch.columns) for branch in collection.branches])
        there = (~missing[:, columns]).any(dim=1)  # (events, objects)
        for of_branch in columns:
            known[:, of_branch] = there
    return known
