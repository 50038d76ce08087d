"""What ``--check`` tells of the model: it is tried on the first events, without a cluster."""

from __future__ import annotations

import math

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset.examples import head_examples
from mlaas4hep_dask.dataset.plan import Plan
from mlaas4hep_dask.encode.input_layout import InputLayout
from mlaas4hep_dask.inputs.image import likely_shape
from mlaas4hep_dask.inputs.preflight import Preflight
from mlaas4hep_dask.inputs.prepare import HEAD_EVENTS
from mlaas4hep_dask.train.given import Given
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import ModelSource


def check_model(
    config: Config, model: ModelSource, method: Method, checked: Preflight, plan: Plan
) -> tuple[str, ...]:
    """Lines about the model, which was built, stepped, scored and exported on real events.

    Parameters
    ----------
    config : Config
        The configuration.
    model : ModelSource
        Builds the network.
    method : Method
        How it learns.
    checked : Preflight
        From `preflight`.
    plan : Plan
        From `check_files`.

    Raises
    ------
    ModelError
        When the network does not work.
    DataError
        When a label or a weight is not what it has to be.
    """
    import torch

    from mlaas4hep_dask.train.trial import Training, try_model

    torch.set_num_threads(1)  # as on a worker: for few rows, threads wait for each other
    head = head_examples(checked, plan, config.encode, config.image)
    if head is None:
        return _only_built(config, model, plan)
    examples, encoding, objective, specs = head
    facts = config.training
    batch = min(math.ceil(facts.batch_size / facts.ranks), len(examples))
    training = Training(
        objective,
        encoding,
        (batch,),
        facts.ranks,
        method,
        facts.learning_rate,
        specs,
        config.export.formats,
        epochs=facts.epochs,
    )
    tried = try_model(model, examples, training)
    warnings = [f"WARNING: {warning}" for warning in tried.warnings]
    of = f"{len(examples):,} of the first events"
    return (*warnings, f"model {model.reference} accepts {_tried(encoding.row_shape)}, {of}")


def _only_built(config: Config, model: ModelSource, plan: Plan) -> tuple[str, ...]:
    none = f"none of the first {HEAD_EVENTS:,} events of the samples is selected: model"
    if of_events := model.declares() & {"layout", "specs"}:
        why = f"since {' and '.join(sorted(of_events))} would tell of them"
        return (f"{none} {model.reference} was not built, {why}",)
    # How many objects an event can have is known from events; any width will do here.
    width = config.encode.width if isinstance(config.encode.width, int) else 4
    by_kind = sorted(plan.branches, key=lambda branch: (branch.kind == "jagged", branch.name))
    widths = [width if branch.kind == "jagged" else 1 for branch in by_kind]
    layout = InputLayout.of(zip(by_kind, widths, strict=True))
    shape: tuple[int, ...] = (layout.num_columns,)
    objective = config.objective.unfitted(tuple(layout.columns()))
    given = Given(shape, objective.num_outputs, len(objective.classes))
    if config.image is not None:
        shape = likely_shape(config.image)
        objective = config.objective.unfitted(())
        given = Given(shape, objective.num_outputs, len(objective.classes))
    model.build(given)
    return (f"{none} {model.reference} was built for {_tried(shape)}, and tried on none",)


def _tried(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"rows (tried with {shape[0]} columns)"
    return f"images (tried with {shape[0]} channels of {shape[1]} by {shape[2]} cells)"
