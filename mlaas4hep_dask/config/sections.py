"""The sections of dataset.yaml as frozen models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

from pydantic import Field, JsonValue, field_validator, model_validator

from mlaas4hep_dask.config.fields import Files, Size, Slug, Text, Tree, WorkerMemory
from mlaas4hep_dask.config.friends import Friend
from mlaas4hep_dask.config.problems import ADDRESS, CALLABLE, Problem, invalid
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.errors import either
from mlaas4hep_dask.formats import ExportFormat
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


def sample_problems(samples: Sequence[Sample]) -> list[Problem]:
    """What is wrong with samples beside each other."""
    problems: list[Problem] = []
    first: dict[str, int] = {}
    for index, sample in enumerate(samples):
        if first.setdefault(sample.name, index) != index:
            text = f"samples[{first[sample.name]}] is called {sample.name!r} too"
            problems.append(Problem(f"{index}.name", text))
    weighted = [sample.name for sample in samples if sample.cross_section is not None]
    problems.extend(
        Problem(
            f"{index}.cross_section",
            f"missing, though given for {', '.join(weighted)}; expected for all samples or none",
        )
        for index, sample in enumerate(samples)
        if weighted and sample.cross_section is None
    )
    return problems


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
        default="mlaas4hep_dask.train.network:dense",
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


class Export(Section):
    """In which formats the trained network is written."""

    formats: list[ExportFormat] = Field(
        default=["torchscript"],
        description="torchscript is in every bundle, as model.pt. onnx adds model.onnx, and "
        "torch_export the program of torch.export as model.pt2.",
        examples=[["onnx"], ["torchscript", "onnx", "torch_export"]],
    )


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
