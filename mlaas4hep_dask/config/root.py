"""The whole of dataset.yaml as one frozen model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from mlaas4hep_dask.config.absolute import make_absolute
from mlaas4hep_dask.config.derivation import Conditions, Expressions
from mlaas4hep_dask.config.document import dump
from mlaas4hep_dask.config.encoding import Encoding, clipped_by_default
from mlaas4hep_dask.config.fields import BlocksPlace, Collections, Slug, Text, Tree
from mlaas4hep_dask.config.friends import Friend
from mlaas4hep_dask.config.function import Function
from mlaas4hep_dask.config.image import Image, with_image_network
from mlaas4hep_dask.config.problems import (
    Places,
    Problem,
    config_error,
    invalid,
    problems_of,
)
from mlaas4hep_dask.config.reading import HOW, Reading
from mlaas4hep_dask.config.renamed import renew
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.config.sections import (
    Branches,
    Cluster,
    Export,
    Model,
    Partitioning,
    Sample,
    Split,
    sample_problems,
)
from mlaas4hep_dask.config.seed import Seed, SeedField
from mlaas4hep_dask.config.specs import SpecsField, SpecsPass
from mlaas4hep_dask.config.target import (
    Target,
    label_problems,
    learned,
    training_problems,
    with_usual_network,
)
from mlaas4hep_dask.config.training import Training
from mlaas4hep_dask.formats import OnBadFile
from mlaas4hep_dask.objective import Objective


class Config(Section):
    """A validated dataset.yaml; relative files start from the folder of the YAML.

    Make one with `load` or `Config.from_mapping`: they raise `ConfigError` and remember where
    every key was written. Two configs are equal when all keys have equal values.
    """

    name: Slug = Field(
        default="dataset",
        description="Name of the model in the bundle; by default the name of this file without "
        "its suffix.",
    )
    tree: Tree = Field(
        default="Events",
        description="Name of the TTree or RNTuple in files whose sample or entry names no other: "
        "dir/Events for one in a directory, Events;1 for an older cycle.",
        examples=["Events", "analysis/Events", "Events;1"],
    )
    samples: list[Sample] = Field(
        min_length=1, description="The samples; all labels from 0 to the largest must occur."
    )
    target: Target = Field(
        default=Target(),
        description="What the network learns to predict; by default the label of the sample.",
    )
    weight: Text | None = Field(
        default=None,
        description="Branch or expression with the weight of each event. null means 1. The "
        "branches that it is made of are inputs only if branches.include names them.",
    )
    luminosity: float | None = Field(
        default=None,
        gt=0,
        description="Integrated luminosity in inverse pb, a factor beside every cross section. "
        "null means 1.",
    )
    reading: Reading = Field(default=Reading(), description="How data files are reached and read.")
    friends: list[Friend] = Field(
        default=[],
        description="Friend trees: more branches of the same events in other files or trees.",
    )
    collections: Collections = Field(
        default={},
        description="By name of a collection: jagged branches that are of it, or patterns of "
        "them. false keeps branches apart whose names begin alike.",
    )
    function: Function | None = Field(
        default=None,
        description="A function of Python that gets the events first, and selects and derives.",
    )
    derive: Expressions = Field(
        default={},
        description="Derived branches: name and expression. They are inputs by the same patterns "
        "as the branches of the tree.",
        examples=[{"HT": "sum(Jet_pt)", "lead_pt": "Jet_pt[:, 0]"}],
    )
    objects: Expressions = Field(
        default={},
        description="Object cuts: collection, and the condition of the objects that are kept.",
        examples=[{"Jet": "Jet_pt > 30 & abs(Jet_eta) < 2.4"}],
    )
    select: Conditions = Field(
        default=[],
        description="Condition of the events that are kept, or a list of conditions that all "
        "hold. Served models score every event that they are sent.",
    )
    branches: Branches = Field(default=Branches(), description="Which branches are inputs.")
    max_events: int | None = Field(
        default=None,
        ge=1,
        description="At most this many events of every sample, in the order of its files. null "
        "means all.",
    )
    partition: Partitioning = Field(
        default=Partitioning(), description="How entry ranges are cut for tasks."
    )
    specs: SpecsField = Field(
        default=SpecsPass(),
        description="How the statistics of the branches come about: a mapping, or the path of a "
        "specs.json.",
    )
    encode: Encoding = Field(
        default=Encoding(), description="How jagged events become rows of numbers."
    )
    image: Image | None = Field(
        default=None,
        description="Events become images with these axes and channels; null means rows.",
    )
    split: Split = Field(
        default=Split(), description="Fractions for training, validation and test; sum 1."
    )
    seed: SeedField = Field(
        default=Seed(),
        description="Seeds of split, order of events and initial weights, or one for all.",
        examples=[1, {"weights": 3}],
    )
    model: Model = Field(default=Model(), description="The function that builds the network.")
    training: Training = Field(default=Training(), description="How the network is trained.")
    export: Export = Field(default=Export(), description="In which formats it is written.")
    cluster: Cluster = Field(default=Cluster(), description="Where the work runs.")
    cache: BlocksPlace = Field(
        default="auto",
        description="Where encoded events stay between epochs: in the memory of the workers, which "
        "spill what does not fit, on their disks, or nowhere, so that files are read again. auto "
        "takes the first of these with room. A folder that all workers see keeps a copy for later "
        "workers and a run that is taken up; with batch jobs auto makes one in the run directory.",
    )
    on_bad_file: OnBadFile = Field(
        default="error",
        description="What happens when a file stays unreadable: stop, or go on and report the "
        "loss.",
    )
    output: Annotated[
        str,
        WithJsonSchema(
            {"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]}, mode="validation"
        ),
    ] = Field(
        default="runs/{name}",
        min_length=1,
        validate_default=True,
        description="Folder of the run, relative to the current directory; {name} stands for the "
        "name. null is the default.",
    )

    _places: Places = PrivateAttr(default_factory=Places)
    _source: Path | None = PrivateAttr(default=None)
    _cautions: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="before")
    @classmethod
    def _clips_what_a_subset_did_not_see(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        specs, encode = document.get("specs"), document.get("encode", {})
        is_subset = isinstance(specs, dict) and specs.get("mode") == "subset"
        if is_subset and isinstance(encode, dict):
            rules = clipped_by_default(encode.get("out_of_range", "clip"))
            return {**document, "encode": {**encode, "out_of_range": rules}}
        return document

    @model_validator(mode="before")
    @classmethod
    def _has_a_network_that_fits(cls, document: Any) -> Any:
        return with_usual_network(with_image_network(document))

    @field_validator("output", mode="before")
    @classmethod
    def _named_after_model(cls, output: Any, info: ValidationInfo) -> Any:
        output = "runs/{name}" if output is None else output
        name = info.data.get("name")  # absent when it is itself wrong
        return output.replace("{name}", name) if isinstance(output, str) and name else output

    @field_validator("samples")
    @classmethod
    def _fit_together(cls, samples: list[Sample]) -> list[Sample]:
        problems = sample_problems(samples)
        if problems:
            raise invalid(*problems)
        return samples

    @model_validator(mode="after")
    def _has_something_to_learn(self) -> Self:
        problems = label_problems(self.samples, self.target)
        if self.luminosity is not None and self.samples[0].cross_section is None:
            text = "has no use without the samples' cross_section"
            problems.append(Problem("luminosity", text))
        problems += [] if problems else training_problems(self.training, self.objective)
        if self.target.objective.gives_rows and self.image is not None:
            text = f"not with target.kind: {self.target.kind}, which needs rows; leave image out"
            problems.append(Problem("image", text))
        if problems:
            raise invalid(*problems)
        return self

    @model_validator(mode="after")
    def _has_a_worker_per_rank(self) -> Self:
        workers, ranks = self.cluster.workers, self.training.ranks
        if self.cluster.address == "local" and workers is not None and workers < ranks:
            text = f"expected at least training.ranks ({ranks}), found {workers}"
            raise invalid(Problem("cluster.workers", text))
        return self

    @model_validator(mode="after")
    def _draws_all_objects(self) -> Self:
        if self.image is not None:
            problems = [
                Problem(f"encode.{key}", "has no meaning with an image, which shows all objects")
                for key in ("width", "sort")
                if getattr(self.encode, key) != type(self.encode).model_fields[key].default
            ]
            if problems:
                raise invalid(*problems)
        return self

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], base: Path | str = ".") -> Self:
        """A config from a mapping with the keys of dataset.yaml.

        Parameters
        ----------
        mapping
            The keys; an absent ``name`` is ``"dataset"``.
        base
            Folder from which relative files start.

        Raises
        ------
        ConfigError
            A key is unknown or missing, or a value is wrong; lists every problem.
        """
        return cls._build(mapping, places=Places(base=Path(base).absolute()))

    @classmethod
    def _build(
        cls, mapping: Mapping[str, Any], *, places: Places, source: Path | None = None
    ) -> Self:
        document, cautions = renew(mapping)
        try:
            config = cls.model_validate(document)
        except ValidationError as error:
            raise config_error(places, problems_of(error, cls)) from None
        config._places = places
        config._cautions = tuple(f"{places.where(old.key)}: {old}" for old in cautions)
        config._source = source.absolute() if source else None
        return config

    @property
    def objective(self) -> Objective:
        """What the network is to learn, before any event is measured."""
        return learned(self.samples, self.target)

    @property
    def loss(self) -> str:
        """The name of the loss, or the reference of a user's own."""
        return self.training.loss or self.objective.usual_loss

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes 0, 1, 2 and so on; empty when no classes are learned."""
        return self.objective.classes

    @property
    def source(self) -> Path | None:
        """The YAML file, or None when the config was made from a mapping."""
        return self._source

    @property
    def cautions(self) -> tuple[str, ...]:
        """Of each old word that stands for a new one: a line that names both, with its place."""
        return self._cautions

    @property
    def base(self) -> Path:
        """The folder from which relative files start."""
        return self._places.base

    @property
    def places(self) -> Places:
        """Where every key was written."""
        return self._places

    def resolve(self, path: str) -> Path:
        """A path of this config as an absolute path; ``~`` and ``$VARS`` are expanded."""
        return self._places.resolve(path)

    def line_of(self, key: str) -> int | None:
        """The YAML line of a dotted key such as ``samples.0.files``.

        A key that is not in the file has the line of the section around it, if that is; None
        when an override set it.
        """
        return self._places.line_of(key)

    def where(self, key: str) -> str:
        """The place of a dotted key for an error, such as ``dataset.yaml:17``."""
        return self._places.where(key)

    def influential(self) -> dict[str, Any]:
        """The keys that influence a result, as JSON values.

        They are all but cluster, cache, export, output, the servers and time-outs of reading, and
        where specs are kept.
        """
        left_out: Any = {
            "cluster": True,
            "cache": True,
            "export": True,
            "output": True,
            "reading": set(HOW),
            "specs": {"cache", "cache_bytes"},
        }
        return self.model_dump(mode="json", exclude=left_out)

    def digest(self) -> str:
        """The sha256, in hex, of the `influential` keys."""
        return _sha256(self.influential())

    def events_digest(self) -> str:
        """The same of those that influence events and their splits."""
        apart = {"seed": self.seed.split, "model": None, "training": None}
        return _sha256(self.influential() | apart)

    def to_yaml(self, *, absolute: bool = False) -> str:
        """YAML text with every key, defaults included; it loads back to an equal config.

        Parameters
        ----------
        absolute
            Write data files and the model's file as absolute paths, so that the text means the
            same in any folder.
        """
        document = self.model_dump(mode="json")
        if absolute:
            make_absolute(document, self._places, self.reading.redirector)
        return dump(document)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash(self.digest())


def _sha256(document: dict[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
