"""The section of dataset.yaml that tells how a network is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema, model_validator

from mlaas4hep_dask.config.fields import Text
from mlaas4hep_dask.config.problems import CALLABLE, PIECE, Problem, invalid
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.devices import Device
from mlaas4hep_dask.objective import loss_names, metric_names

_LOSS_SCHEMA = {
    "anyOf": [
        {"enum": sorted({name for names in loss_names().values() for name in names})},
        {"type": "string", "pattern": CALLABLE},
        {"type": "null"},
    ],
    "examples": ["huber", "losses.py:focal"],
}


SCHEDULER = "OneCycleLR"  # of torch: from small steps to large and back to very small ones


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


class Hook(Section):
    """A callable of your own that makes a hook; or its name alone."""

    callable: str = Field(
        pattern=CALLABLE,
        description="module:callable, or path/to/file.py:callable relative to the folder of this "
        "file.",
    )
    kwargs: dict[str, JsonValue] = Field(
        default={}, description="Keyword arguments of the callable."
    )


class WarmStart(Section):
    """Where the parameters come from with which the network begins; or the path alone."""

    path: Text = Field(
        description="A bundle's folder or archive, a run's folder or a checkpoint, relative to "
        "the folder of this file."
    )
    parameters: list[Text] = Field(
        default=["*"],
        min_length=1,
        description="Patterns of the names of parameters and buffers that are taken; others begin "
        "as the model makes them.",
    )


def _named(value: Any) -> Any:
    return {"callable": value} if isinstance(value, str) else value


def _placed(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _or_name(section: type[Section], pattern: str) -> BeforeValidator:
    """That a section may be written as the name of its callable alone."""
    name = Annotated[str, Field(pattern=pattern)]
    return BeforeValidator(_named, json_schema_input_type=section | name)


class Training(Section):
    """How the network is trained."""

    epochs: int = Field(
        default=15,
        ge=1,
        description="Passes over the training events; with strategy: chunked over each chunk.",
    )
    strategy: Literal["epochs", "chunked"] = Field(
        default="epochs",
        description="epochs goes through all training events in every pass. chunked goes some "
        "times through a chunk of them, and then on to the next, each chunk once.",
    )
    chunk_events: int | None = Field(
        default=None,
        ge=1,
        description="Of strategy: chunked, training events of a chunk, which has a part of every "
        "file. Each chunk counts as an epoch: it is validated once.",
    )
    batch_size: int = Field(
        default=256, ge=1, description="Events per batch, over all ranks together."
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Batches of which the gradients are added up before the optimiser takes a "
        "step: as if batch_size were so many times as large, with the memory of one batch.",
    )
    learning_rate: float = Field(
        default=3e-3,
        gt=0,
        description="Step size of the optimiser: with the default scheduler the largest.",
    )
    optimiser: Annotated[Piece, _or_name(Piece, PIECE)] | None = Field(
        default=None,
        description="What takes the steps: a name in torch.optim, such as Adam, or a callable of "
        "a list of parameters; with keyword arguments as {callable: …, kwargs: {…}}. It is given "
        "learning_rate as lr. null means AdamW.",
        examples=["Adam", {"callable": "SGD", "kwargs": {"momentum": 0.9}}],
    )
    scheduler: Annotated[Scheduler, _or_name(Scheduler, PIECE)] | None = Field(
        default=Scheduler(callable=SCHEDULER),
        description="What changes the size of steps: a name in torch.optim.lr_scheduler, or a "
        "callable of an optimiser. It is given total_steps, T_max and max_lr, if it takes them. "
        "null means that they stay as large.",
        examples=["CosineAnnealingLR", {"callable": "StepLR", "kwargs": {"step_size": 3}}],
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
    warm_start: (
        Annotated[WarmStart, BeforeValidator(_placed, json_schema_input_type=WarmStart | Text)]
        | None
    ) = Field(
        default=None,
        description="A bundle, a run's folder or a checkpoint whose network's parameters are those "
        "with which training begins. null means those that the model makes.",
        examples=["runs/earlier/bundle", {"path": "earlier.tar.gz", "parameters": ["0.*"]}],
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="In which products are computed while the network learns, by torch's "
        "autocast. Its parameters, the loss, what is measured and what is exported are of float32.",
    )
    freeze: list[Text] = Field(
        default=[],
        description="Patterns of the names of parameters that stay as they are, such as "
        "embedding.*.",
    )
    hooks: list[Annotated[Hook, _or_name(Hook, CALLABLE)]] = Field(
        default=[],
        description="Callables that make objects with methods such as on_step and on_epoch_end, "
        "which are told how the training goes and may end it.",
        examples=[["hooks.py:Watch", {"callable": "hooks.py:Norms", "kwargs": {"every": 10}}]],
    )
    ranks: int = Field(default=2, ge=1, description="Torch processes that train together.")
    device: Device = Field(
        default="auto",
        description="What ranks compute on. cuda gives each a GPU of its own, and is an error "
        "where there are fewer; auto is cuda where every rank can have one, else cpu.",
    )
    max_restarts: int = Field(
        default=2,
        ge=0,
        description="Restarts from the last checkpoint after a rank's worker died, without "
        "another in between.",
    )
    checkpoint_minutes: float | None = Field(
        default=10.0,
        gt=0,
        description="Minutes after which a checkpoint is written within an epoch. null means that "
        "it is written after epochs alone.",
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

    @property
    def passes(self) -> int:
        """How often an epoch goes through its events."""
        return self.epochs if self.strategy == "chunked" else 1

    @model_validator(mode="after")
    def _knows_its_chunks(self) -> Self:
        is_chunked = self.strategy == "chunked"
        if is_chunked and self.chunk_events is None:
            raise invalid(Problem("chunk_events", "is needed with strategy: chunked"))
        if self.chunk_events is None:
            return self
        if not is_chunked:
            raise invalid(Problem("chunk_events", "has no use without strategy: chunked"))
        if self.chunk_events < self.batch_size:
            text = f"expected at least one batch ({self.batch_size}), found {self.chunk_events}"
            raise invalid(Problem("chunk_events", text))
        return self

    @model_validator(mode="after")
    def _feeds_every_rank(self) -> Self:
        if self.batch_size < self.ranks:
            text = f"expected at least one event per rank ({self.ranks}), found {self.batch_size}"
            raise invalid(Problem("batch_size", text))
        return self
