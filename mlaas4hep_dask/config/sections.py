"""The sections of dataset.yaml as frozen models."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from mlaas4hep_dask.config.fields import Files, Size, Slug, Text, Tree, WorkerMemory
from mlaas4hep_dask.config.friends import Friend
from mlaas4hep_dask.config.problems import ADDRESS, CALLABLE, PIECE, Problem, invalid
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.errors import either
from mlaas4hep_dask.objective import loss_names, metric_names
from mlaas4hep_dask.places import LOCAL, PLACES, SCHEMES, SYSTEMS


class Sample(Section):
    """A labelled group of files: one physics process."""

    name: Slug = Field(description="Name of the sample, unique among the samples.")
    label: int | None = Field(
        default=None,
        ge=0,
        lt=256,
        description="Class of its events: 1 (signal) or 0 (background), or one of 0, 1, 2 and so "
        "on. Required, unless target.branch gives what to predict or target.kind is "
        "reconstruction.",
    )
    files: Files = Field(
        description="Paths, globs, text lists (list.txt, @list) or root:// and http(s):// URLs; "
        "relative ones start from the folder of this file. file.root:dir/tree names the tree in "
        "it.",
    )
    tree: Tree | None = Field(
        default=None,
        description="Name of the tree in files that name no other. null means the key tree at the "
        "top level.",
    )
    friends: list[Friend] = Field(
        default=[], description="Friend trees of its files, beside those of the key friends."
    )
    weight: float = Field(default=1.0, gt=0, description="Factor on the weight of every event.")
    cross_section: float | None = Field(
        default=None,
        gt=0,
        description="Cross section in pb. When given, the weights of the events that were read "
        "sum to weight * cross_section * luminosity. All samples give it, or none.",
    )
    sum_weights: float | None = Field(
        default=None,
        gt=0,
        description="Sum of the event weights of the whole sample, to divide by in place of that "
        "of the events that were read. Needs cross_section.",
    )

    @model_validator(mode="after")
    def _has_a_use_for_its_sum(self) -> Self:
        if self.sum_weights is not None and self.cross_section is None:
            text = "has no use without cross_section"
            raise invalid(Problem("sum_weights", text))
        return self

    @field_validator("files")
    @classmethod
    def _is_not_empty(cls, files: list[str]) -> list[str]:
        if not files:
            raise invalid(Problem("", "the sample is empty: expected at least one file"))
        return files


class Branches(Section):
    """Which branches are inputs of the model."""

    include: list[Text] = Field(
        default=["*"],
        min_length=1,
        description="Branches that are inputs; * ? [abc] are wildcards, case counts.",
    )
    exclude: list[Text] = Field(
        default=[], description="Branches that are not inputs, though include names them."
    )
    identifiers: list[Text] = Field(
        default=[
            "run",
            "event",
            "luminosityBlock",
            "eventNumber",
            "runNumber",
            "lumi",
            "lumiBlock",
        ],
        description="Branches that identify an event: never inputs. Absent ones are fine.",
    )


class Partitioning(Section):
    """How entry ranges are cut for tasks."""

    target_bytes: Size = Field(
        default=64 * 2**20,
        description="Uncompressed bytes of the selected branches in one partition: a number, or a "
        "size such as '64 MiB'.",
    )
    max_events: int = Field(default=100_000, ge=1, description="Most events in one partition.")


class Split(Section):
    """Fractions of the events for training, validation and test; they sum to 1."""

    train: float = Field(default=0.64, gt=0, lt=1, description="Fraction used for training.")
    validation: float = Field(
        default=0.16, gt=0, lt=1, description="Fraction used to watch the training."
    )
    test: float = Field(
        default=0.20, gt=0, lt=1, description="Fraction used for the final numbers only."
    )

    @property
    def fractions(self) -> tuple[float, float, float]:
        """Those of training, validation and test."""
        return self.train, self.validation, self.test

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = math.fsum((self.train, self.validation, self.test))
        if abs(total - 1) > 1e-9:
            text = f"train + validation + test must be 1, found {total:.9g}"
            raise invalid(Problem("", text))
        return self


class Model(Section):
    """The function that builds the network."""

    callable: str = Field(
        default="mlaas4hep_dask.train.network:mlp",
        pattern=CALLABLE,
        description="module:callable, or path/to/file.py:callable relative to the folder of this "
        "file.",
        examples=["mlaas4hep_dask.train.network:mlp", "models/deepsets.py:build"],
    )
    kwargs: dict[str, JsonValue] = Field(
        default={},
        description="Keyword arguments of the callable.",
        examples=[{"hidden": [64, 32]}],
    )


_LOSS_SCHEMA = {
    "anyOf": [
        {"enum": sorted({name for names in loss_names().values() for name in names})},
        {"type": "string", "pattern": CALLABLE},
        {"type": "null"},
    ],
    "examples": ["huber", "losses.py:focal"],
}


class Piece(Section):
    """A callable of torch or of your own, with its keyword arguments; or its name alone."""

    callable: str = Field(
        pattern=PIECE,
        description="Its name in torch, or module:callable, or path/to/file.py:callable relative "
        "to the folder of this file.",
    )
    kwargs: dict[str, JsonValue] = Field(
        default={}, description="Keyword arguments of the callable."
    )


class Scheduler(Piece):
    """As of an optimiser, and when it is called."""

    every: Literal["step", "epoch"] | None = Field(
        default=None,
        description="After what it is called. null means after every step if it takes their "
        "number (total_steps), else after every epoch.",
    )


def _named(value: Any) -> Any:
    return {"callable": value} if isinstance(value, str) else value


class Training(Section):
    """How the network is trained."""

    epochs: int = Field(default=5, ge=1, description="Passes over the training events.")
    batch_size: int = Field(
        default=100, ge=1, description="Events per optimiser step, over all ranks together."
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Step size of the optimiser.")
    optimiser: Annotated[Piece, BeforeValidator(_named)] | None = Field(
        default=None,
        description="What takes the steps: a name in torch.optim, such as AdamW, or a callable of "
        "a list of parameters; with keyword arguments as {callable: …, kwargs: {…}}. It is given "
        "learning_rate as lr. null means Adam.",
        examples=["AdamW", {"callable": "SGD", "kwargs": {"momentum": 0.9}}],
    )
    scheduler: Annotated[Scheduler, BeforeValidator(_named)] | None = Field(
        default=None,
        description="What changes the size of steps: a name in torch.optim.lr_scheduler, or a "
        "callable of an optimiser. It is given total_steps, T_max and max_lr, if it takes them. "
        "null means that they stay as large.",
        examples=["OneCycleLR", {"callable": "StepLR", "kwargs": {"step_size": 3}}],
    )
    clip_norm: float | None = Field(
        default=None,
        gt=0,
        description="Largest norm of the gradient of all parameters together. null means any.",
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay of a moving average of the parameters, such as 0.999, which is measured "
        "and exported. null means that the parameters themselves are.",
    )
    freeze: list[Text] = Field(
        default=[],
        description="Patterns of the names of parameters that stay as they are, such as "
        "embedding.*.",
    )
    ranks: int = Field(default=2, ge=1, description="Torch processes that train together.")
    max_restarts: int = Field(
        default=2,
        ge=0,
        description="Restarts from the last checkpoint after a rank's worker died, without a "
        "completed epoch in between.",
    )
    loss: Annotated[str | None, WithJsonSchema(_LOSS_SCHEMA, mode="validation")] = Field(
        default=None,
        description="What is made small: the name of a loss ("
        + "; ".join(f"{word}: {', '.join(names)}" for word, names in loss_names().items())
        + "), or module:callable or path/to/file.py:callable, a function of outputs and targets "
        "that gives one loss per event. null means the first of "
        "the names.",
    )
    keep: Literal["best", "last"] = Field(
        default="best",
        description="Which network is exported: that of the epoch with the best monitor, or of "
        "the last.",
    )
    monitor: Text = Field(
        default="loss",
        description="Metric of the validation events that tells which epoch is best: loss, or "
        + "; ".join(f"{word}: {', '.join(names)}" for word, names in metric_names().items())
        + ".",
        examples=["loss", "auc"],
    )
    early_stopping: int | None = Field(
        default=None,
        ge=1,
        description="Training ends after so many epochs in a row of which none had a better "
        "monitor. null means that all epochs are done.",
    )
    balance: Literal["none", "classes"] = Field(
        default="none",
        description="classes scales the weights in the loss so that those of every class have "
        "the same sum over the training events.",
    )

    @model_validator(mode="after")
    def _feeds_every_rank(self) -> Self:
        if self.batch_size < self.ranks:
            text = f"expected at least one event per rank ({self.ranks}), found {self.batch_size}"
            raise invalid(Problem("batch_size", text))
        return self


class Cluster(Section):
    """Where the work runs; it does not change a result."""

    address: str = Field(
        default=LOCAL,
        pattern=ADDRESS,
        description="".join(f"{word} starts {what}; " for word, what in PLACES.items())
        + f"{either(f'{scheme}://host:port' for scheme in SCHEMES)} joins a running scheduler.",
        examples=[*PLACES, "tcp://login.example.org:8786"],
    )
    site: Text | None = Field(
        default=None,
        description="Of a batch system: name of a site, see mlaas4hep cluster sites, or a YAML "
        "file. null means the generic one of the batch system.",
        examples=["nersc-perlmutter", "our-site.yaml"],
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        description="Workers of a local cluster. null means as many as there are cores, and at "
        "least training.ranks. On a batch system, the most readers; null means those of the site.",
    )
    memory_limit: WorkerMemory | None = Field(
        default=None,
        description="Memory of one worker: bytes, or a size such as '4 GB'; at least 200 MB.",
    )

    @field_validator("address")
    @classmethod
    def _has_a_port_that_exists(cls, address: str) -> str:
        port = address.rpartition(":")[2]
        if port.isdigit() and not 0 < int(port) < 2**16:
            raise invalid(Problem("", f"expected a port from 1 to 65535, found {port}"))
        return address

    @model_validator(mode="after")
    def _has_a_batch_system_for_its_site(self) -> Self:
        if self.site is not None and self.address not in SYSTEMS:
            text = f"is for batch systems: cluster.address is {self.address!r}, not "
            raise invalid(Problem("site", text + either(map(repr, SYSTEMS))))
        return self
