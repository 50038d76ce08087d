"""What decides a run's results, by which an interrupted one is known."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mlaas4hep_dask import __version__
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.reader import PlannedFile
from mlaas4hep_dask.run.changes import digest_of
from mlaas4hep_dask.run.training import Trainer
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import ModelSource


def facts_before(dataset: Dataset, model: ModelSource, method: Method) -> dict[str, Any]:
    """Version, keys, code and files, which are known before any event is read."""
    checked = dataset.checked()
    facts: dict[str, Any] = {
        "mlaas4hep_dask": __version__,
        "dataset.yaml": keys_of(dataset.config),
        f"model {model.reference}": model.code.parts,
    }
    for what, code in method.codes.items():
        facts[f"{what} {code.reference}"] = code.parts
    if method.warm_start is not None:
        facts["training.warm_start"] = method.warm_start.digest
    if checked.traced is not None:
        function = checked.traced.function
        facts[f"function {function.reference}"] = function.code.parts
    for reference, code in checked.normalisers.items():
        facts[f"normalisation {reference}"] = code.parts
    if checked.specs is not None:
        facts["specs that are used"] = checked.specs.provenance["reused"]["sha256"]
    facts["data files"] = digest_of([_identity(each) for each in dataset.plan().files])
    return facts


def keys_of(config: Config) -> dict[str, Any]:
    """The keys that influence a result, but for ranks and device: any may go on with a run."""
    keys = config.influential()
    for name in ("ranks", "device", "max_restarts", "checkpoint_minutes"):
        del keys["training"][name]
    return keys


def _identity(file: PlannedFile) -> list[Any]:
    """What a file is known by, wherever it was read: of replicas no server's version counts."""
    stamp = file.stamp.partition("@")[0] if "|" in file.file else file.stamp
    friends = file.friends_as_json()
    return [file.sample, file.tree, file.uuid, file.num_entries, stamp, friends]


def split_sums(dataset: Dataset) -> dict[str, list[int]]:
    """By sample: events for training, validation and test."""
    sums: dict[str, list[int]] = {}
    for sample, sizes in dataset.split_counts():
        sums[sample] = [a + b for a, b in zip(sums.get(sample, [0, 0, 0]), sizes, strict=True)]
    return sums


def facts_of_training(dataset: Dataset, trainer: Trainer) -> dict[str, Any]:
    """What a checkpoint stands on: the events, how they are encoded and how they count."""
    encoding = dataset.encoding()
    scalings = zip(encoding.layout.branches, encoding.scalings, strict=True)
    widths = {each.collection: each.width for each in encoding.layout.jagged}
    return {
        "events for training, validation and test": split_sums(dataset),
        "events of the partitions": digest_of(dataset.split_counts()),
        "normalisation": {name: asdict(scaling) for name, scaling in scalings},
        "objects": widths,
        "columns": digest_of(encoding.columns()),
        "sorted by": {sort.collection: asdict(sort) for sort in encoding.sorts},
        "image": None if encoding.image is None else digest_of(asdict(encoding.image)),
        "outputs": trainer.objective.as_json(),
        "weights": {**dataset.factors(), "all": trainer.weights._asdict()},
    }
