"""Tries a model on a worker before training, and exports there what was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.bundle import Bundle
from mlaas4hep_dask.bundle.golden import Golden
from mlaas4hep_dask.devices import gpus_here
from mlaas4hep_dask.encode.examples import Examples
from mlaas4hep_dask.errors import EventError, ModelError
from mlaas4hep_dask.score.parts import Records
from mlaas4hep_dask.train.model import ModelSource

if TYPE_CHECKING:
    from mlaas4hep_dask.score.scorer import Scorer
    from mlaas4hep_dask.train.trial import Trained


@dataclass(frozen=True)
class Exported:
    """A trained network, ready to be put into a bundle.

    Parameters
    ----------
    content : bytes
        The TorchScript file.
    num_parameters : int
        Parameters of the network.
    golden : Golden
        Raw events with its scores.
    files : mapping of str to bytes
        Files of other formats, by name.
    """

    content: bytes
    num_parameters: int
    golden: Golden
    files: Mapping[str, bytes]


def try_network(
    model: ModelSource, examples: Examples, draft: Bundle, facts: dict[str, Any]
) -> tuple[tuple[str, ...], frozenset[str]]:
    """What there is to warn of in a model, and what it is told, once all of a run was tried.

    Parameters
    ----------
    model : ModelSource
        Builds the network.
    examples : Examples
        Real events.
    draft : Bundle
        From `draft_bundle`.
    facts : dict
        Further arguments of `mlaas4hep_dask.train.trial.Training`; ``device`` is
        ``training.device``, which says whether a GPU that is here takes part.

    Raises
    ------
    ModelError
        When the network does not work; see `mlaas4hep_dask.train.trial.try_model`.
    """
    from mlaas4hep_dask.train.trial import Training, try_model

    _one_thread()
    wish = facts.pop("device")
    device = "cpu" if wish == "cpu" or gpus_here().error else "cuda"
    training = Training(draft.objective, draft.encoding, specs=draft.specs, device=device, **facts)
    trained = try_model(model, examples, training)
    _golden(trained, examples, draft)
    return trained.warnings, model.declares()


def export_network(
    model: ModelSource, state: bytes, examples: Examples, draft: Bundle, formats: Sequence[str]
) -> Exported:
    """The network of a checkpoint as TorchScript and in other formats, with golden events.

    Raises
    ------
    ModelError
        When the network cannot be exported, or the exported one gives other scores.
    """
    from mlaas4hep_dask.train.trial import exported

    _one_thread()
    facts = (model, state, examples, draft.objective, draft.encoding)
    trained = exported(*facts, specs=draft.specs, formats=formats)
    num_parameters = sum(parameter.numel() for parameter in trained.network.parameters())
    golden = _golden(trained, examples, draft)
    return Exported(trained.content, num_parameters, golden, trained.files)


def _golden(trained: Trained, examples: Examples, draft: Bundle) -> Golden:
    """The golden events, whose scores by the exported network are those of the network itself."""
    import torch

    from mlaas4hep_dask.export.call import call_of
    from mlaas4hep_dask.score.scorer import Scorer
    from mlaas4hep_dask.score.script import Script
    from mlaas4hep_dask.score.verify import verify

    scorer = Scorer(draft, Script(trained.content))
    events = _scorable(scorer, examples.sent)
    x, missing = map(torch.from_numpy, scorer.rows(Records(events)))
    with torch.no_grad():
        outputs = call_of(trained.network)(x.clone(), missing.clone()).reshape(len(x), -1)
        scores = draft.objective.activation()(outputs, x, missing).numpy()
    golden = Golden(events, scores, draft.objective.as_json())
    verify(scorer, golden)
    return golden


def _scorable(scorer: Scorer, events: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The events that a server scores; one with an infinite value may lack what a cut needs."""
    if _fit(scorer, events):
        return tuple(events)
    alone = tuple(event for event in events if _fit(scorer, [event]))
    if not alone:
        raise ModelError(f"none of {len(events)} real events would be scored by a server")
    return alone


def _fit(scorer: Scorer, records: Sequence[Mapping[str, Any]]) -> bool:
    try:
        scorer.rows(Records(records))
    except EventError:
        return False
    return True


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
