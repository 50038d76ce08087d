"""The section target of dataset.yaml: what the network learns to predict."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from mlaas4hep_dask.config.fields import Text, as_list, texts_schema
from mlaas4hep_dask.config.problems import CALLABLE, Problem, describe, invalid
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.config.sections import Sample
from mlaas4hep_dask.config.training import Training
from mlaas4hep_dask.errors import either, nearest
from mlaas4hep_dask.objective import LOSSES, WORDS, Objective, objective_of

MAX_CLASSES = 256  # each costs a histogram of scores for its ROC curve
Expressions = Annotated[
    list[Text],
    BeforeValidator(as_list),
    texts_schema("GenJet_hadronFlavour", ["MCneutrino_px", "MCneutrino_py"]),
]


if TYPE_CHECKING:
    Word = str
else:  # the words that the objectives know
    Word = Literal[tuple(WORDS)]


class Target(Section):
    """What the network learns to predict."""

    kind: Word = Field(
        default="classification",
        description="; ".join(f"{word}: {kind.meaning}" for word, kind in WORDS.items()) + ".",
    )
    branch: Expressions = Field(
        default=[],
        description="Branch or expression with the class of each event, 0, 1, 2 and so on, in "
        "place of the samples' labels; for regression the number to predict, or a list of them. "
        "The branches that it reads are never inputs.",
    )
    classes: list[Text] = Field(
        default=[],
        max_length=MAX_CLASSES,
        description="Names of the classes 0, 1, 2 and so on. Required when branch gives the "
        "classes; by default a class has the names of its samples.",
    )

    @property
    def objective(self) -> type[Objective]:
        """What knows the keys of its kind."""
        return WORDS[self.kind]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        faults = self.objective.target_faults(self.branch, self.classes)
        problems = [Problem(key, text) for key, text in faults]
        for names, key in ((self.classes, "classes"), (self.branch, "branch")):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                problems.append(Problem(key, f"{twice[0]!r} occurs twice"))
        if problems:
            raise invalid(*problems)
        return self


def label_problems(samples: list[Sample], target: Target) -> list[Problem]:
    """What is wrong with the labels of the samples, given the target."""
    labels = [sample.label for sample in samples]
    faults = target.objective.label_faults(labels, target.branch, target.classes)
    return [Problem(key, text) for key, text in faults]


def training_problems(training: Training, objective: Objective) -> list[Problem]:
    """What of the section training does not go with the rest, where that has no problem."""
    problems = _loss_problems(training.loss, objective)
    if training.balance == "classes" and not objective.has_classes:
        problems.append(Problem("training.balance", f"a {objective.word} has no classes"))
    names = ["loss", *objective.more_is_better]
    if training.monitor not in names:
        text = f"expected {either(map(repr, names))}, found {describe(training.monitor)}"
        problems.append(Problem("training.monitor", text, nearest(training.monitor, names)))
    return problems


def _loss_problems(loss: str | None, objective: Objective) -> list[Problem]:
    names = [*LOSSES[objective.kind]]
    if loss is None or loss in names or re.fullmatch(CALLABLE, loss):
        return []
    choice = f"{', '.join(map(repr, names))} or 'path/to/file.py:callable'"
    text = f"expected a loss of a {objective.word}, {choice}, found {describe(loss)}"
    return [Problem("training.loss", text, nearest(loss, names))]


def learned(samples: list[Sample], target: Target) -> Objective:
    """What the network is to learn, before any event is measured."""
    labels = {sample.name: sample.label for sample in samples}
    return objective_of(target.kind, labels, target.branch, target.classes)


def with_usual_network(document: Any) -> Any:
    """The keys of dataset.yaml, with the network of the target's kind where none is named."""
    if not isinstance(document, dict):
        return document
    target, model = document.get("target"), document.get("model", {})
    kind = target.get("kind") if isinstance(target, dict) else None
    reference = WORDS[kind].usual_network if isinstance(kind, str) and kind in WORDS else None
    if reference is None or not isinstance(model, dict) or "callable" in model:
        return document
    return {**document, "model": {"callable": reference, **model}}
