"""The section target of dataset.yaml: what the network learns to predict."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from mlaas4hep_dask.config.fields import Text, as_list
from mlaas4hep_dask.config.problems import Problem, invalid
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.config.sections import Sample

MAX_CLASSES = 256  # each costs a histogram of scores for its ROC curve
AUTOENCODER = "mlaas4hep_dask.train.network:autoencoder"  # of a reconstruction by default
_TEXTS_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}},
    ],
    "examples": ["GenJet_hadronFlavour", ["MCneutrino_px", "MCneutrino_py"]],
}
Expressions = Annotated[
    list[Text], BeforeValidator(as_list), WithJsonSchema(_TEXTS_SCHEMA, mode="validation")
]


class Target(Section):
    """What the network learns to predict."""

    kind: Literal["classification", "regression", "reconstruction"] = Field(
        default="classification",
        description="classification: which class an event belongs to; regression: one or more "
        "numbers; reconstruction: the encoded row itself, for an autoencoder.",
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
    loss: Literal["mse", "huber"] = Field(
        default="mse",
        description="Loss of a regression, in units of the targets' standard deviations: squared, "
        "or squared up to 1 and linear beyond.",
    )

    @property
    def is_regression(self) -> bool:
        """True when numbers are predicted and not classes."""
        return self.kind == "regression"

    @property
    def is_reconstruction(self) -> bool:
        """True when the network learns to give its input back."""
        return self.kind == "reconstruction"

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        problems = []
        if self.is_reconstruction:
            problems += [
                Problem(key, "not wanted: a reconstruction learns the inputs themselves")
                for key in ("branch", "classes")
                if getattr(self, key)
            ]
        elif self.is_regression:
            if not self.branch:
                problems.append(Problem("branch", "missing: a regression needs what to predict"))
            if self.classes:
                problems.append(Problem("classes", "a regression has no classes"))
        elif self.branch:
            if len(self.branch) > 1:
                text = f"a classification has one branch of classes, found {len(self.branch)}"
                problems.append(Problem("branch", text))
            if len(self.classes) < 2:
                text = "expected the names of at least two classes, since branch gives the class"
                problems.append(Problem("classes", text))
        for names, key in ((self.classes, "classes"), (self.branch, "branch")):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                problems.append(Problem(key, f"{twice[0]!r} occurs twice"))
        if self.loss != "mse" and not self.is_regression:
            problems.append(Problem("loss", "only a regression has a choice of loss"))
        if problems:
            raise invalid(*problems)
        return self


def label_problems(samples: list[Sample], target: Target) -> list[Problem]:
    """What is wrong with the labels of the samples, given the target."""
    if target.branch or target.is_reconstruction:
        text = "not wanted, since target.branch gives what to predict"
        if target.is_reconstruction:
            text = "not wanted: a reconstruction learns the inputs themselves"
        return [
            Problem(f"samples.{index}.label", text)
            for index, sample in enumerate(samples)
            if sample.label is not None
        ]
    missing = [index for index, sample in enumerate(samples) if sample.label is None]
    if missing:
        text = "required, but missing; or give target.branch"
        return [Problem(f"samples.{index}.label", text) for index in missing]
    labels = {sample.label for sample in samples}
    num_classes = max(max(label for label in labels if label is not None) + 1, 2)
    absent = [label for label in range(num_classes) if label not in labels]
    if absent and num_classes == 2:
        found = ", ".join(map(str, sorted(label for label in labels if label is not None)))
        text = (
            f"expected samples of both labels, 0 and 1, found only label {found}; add a sample, or "
            "give target.branch and no labels to take the class of each event from a branch"
        )
        return [Problem("samples", text)]
    if absent:
        text = f"expected labels 0 to {num_classes - 1}, but no sample has label {absent[0]}"
        return [Problem("samples", text)]
    if target.classes and len(target.classes) != num_classes:
        text = f"expected {num_classes} names, one for each label, found {len(target.classes)}"
        return [Problem("target.classes", text)]
    return []


def class_names(samples: list[Sample], target: Target) -> tuple[str, ...]:
    """The names of the classes by label; empty when no classes are learned."""
    if target.kind != "classification" or target.classes:
        return tuple(target.classes)
    by_label: dict[int, list[str]] = {}
    for sample in samples:
        assert sample.label is not None  # `label_problems` has seen to it
        by_label.setdefault(sample.label, []).append(sample.name)
    return tuple("+".join(by_label[label]) for label in sorted(by_label))


def with_autoencoder(document: Any) -> Any:
    """The keys of dataset.yaml, with an autoencoder if one is to be learned and none is named."""
    if not isinstance(document, dict):
        return document
    target, model = document.get("target"), document.get("model", {})
    if not isinstance(target, dict) or target.get("kind") != "reconstruction":
        return document
    if not isinstance(model, dict) or "callable" in model:
        return document
    return {**document, "model": {"callable": AUTOENCODER, **model}}
