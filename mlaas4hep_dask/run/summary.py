"""What a run tells of itself: metrics.json, plan.json and the figures of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from mlaas4hep_dask import __version__
from mlaas4hep_dask.config import Selection
from mlaas4hep_dask.config import encoding as encode_keys
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.binning import equal_edges
from mlaas4hep_dask.dataset.distributions import Distributions
from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.encode.encoding import clipped_branches, normalisations_of
from mlaas4hep_dask.inputs.notes import together
from mlaas4hep_dask.journal import SPLITS, StageEnd
from mlaas4hep_dask.run.facts import split_sums
from mlaas4hep_dask.run.fill_notes import squeezed
from mlaas4hep_dask.run.one_class import one_class_notes
from mlaas4hep_dask.run.outcome import Outcome
from mlaas4hep_dask.run.specs_notes import specs_notes, specs_origin
from mlaas4hep_dask.run.training import Trainer
from mlaas4hep_dask.specs import SampleSpecs

LIBRARIES = ("awkward", "dask", "distributed", "numba", "numpy", "torch", "uproot")


def run_summary(
    dataset: Dataset,
    trainer: Trainer,
    stages: Sequence[StageEnd],
    epochs: list[dict[str, Any]],
    outcome: Outcome,
) -> dict[str, Any]:
    """Counts, stages, epochs and metrics of a run, as JSON values: the content of metrics.json."""
    config, plan, totals = dataset.config, dataset.plan(), dataset.samples()
    encoding, factors = dataset.encoding(), dataset.factors()
    counts = dataset.encode_counts(trainer.counts)
    skipped = dataset.skipped()
    splits = split_sums(dataset)
    classes = _classes_json(dataset, trainer)
    return {
        "name": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": __version__,
        "versions": versions(),
        "seed": config.seed.as_json(),
        "stages": [stage.as_json() for stage in stages],
        "counts": {
            "files": len(plan.files),
            "partitions": len(plan.partitions),
            "branches": len(plan.branches),
            "columns": math.prod(encoding.row_shape),
            "events_read": sum(sample.num_read for sample in totals.values()),
            "events_selected": sum(sample.num_selected for sample in totals.values()),
            **specs_origin(
                dataset.specs(), num_cached=dataset.num_cached(), path=config.specs.path
            ),
            "cut_flow": _cut_flow(totals),
            "objects_removed": _objects_removed(totals),
            "events_skipped": sum(
                entry.entry_stop - entry.entry_start
                for entry in skipped
                if entry.entry_stop is not None
            ),
            "skipped": [asdict(entry) for entry in skipped],
            "events_lost": sum(entry.num_events for entry in dataset.lost()),
            "lost": [entry.as_json() for entry in dataset.lost()],
            **dataset.read_counts().as_json(),
            **counts.as_json(),
            **_selected(plan.selection),
            "notes": [
                *plan.notes,
                *specs_notes(
                    dataset.specs(),
                    path=config.specs.path,
                    normalisation=config.encode.normalisation,
                    out_of_range=config.encode.out_of_range,
                ),
                *map(str, dataset.cell_suggestions()),
                *_weight_notes(dataset),
                *_class_notes(classes),
                *([trainer.choice.words] if trainer.choice.kind == "cuda" else []),
                *_loss_notes(dataset, trainer),
                *(f"WARNING: {warning}" for warning in trainer.warnings),
                *_one_class_notes(dataset, trainer, outcome),
            ],
        },
        "samples": [
            {
                "name": sample,
                "label": plan.supervision.labels.get(sample),
                "files": sum(file.sample == sample for file in plan.files),
                "num_read": totals[sample].num_read,
                "num_selected": totals[sample].num_selected,
                "sum_weights": factors[sample] * totals[sample].sum_weights,
                "num_negative": totals[sample].num_negative,
                **dict(zip(SPLITS, splits[sample], strict=True)),
            }
            for sample in plan.samples
        ],
        "encode": _encode_facts(config.encode, encoding),
        "outputs": trainer.objective.as_json(),
        "classes": classes,
        "epochs": epochs,
        "kept_epoch": outcome.epoch,
        "test": outcome.test,
        "model": {
            "callable": config.model.callable,
            "num_columns": math.prod(encoding.row_shape),
            "shape": list(encoding.row_shape),
        },
        "training": {
            **config.training.model_dump(),
            "loss": config.loss,  # the usual one, where the section names none
            "device": trainer.choice.kind,
            "restarts": trainer.restarts,
            "cache": trainer.cache,
            "packed_bytes": trainer.packed_bytes,
            "rounds": trainer.rounds,
        },
        "config_yaml": config.to_yaml(),
    }


def _cut_flow(samples: Mapping[str, SampleSpecs]) -> list[dict[str, Any]]:
    """One entry per condition, in order: events that are left after it and that it removed."""
    flow = []
    before = {name: sample.num_read for name, sample in samples.items()}
    conditions = {cut: None for sample in samples.values() for cut in sample.cut_flow}
    for cut in conditions:
        after = {name: sample.cut_flow.get(cut, 0) for name, sample in samples.items()}
        lost = {name: before[name] - after[name] for name in samples}
        flow.append(
            {"condition": cut, "left": sum(after.values()), "lost": sum(lost.values()), "by": lost}
        )
        before = after
    return flow


def _objects_removed(samples: Mapping[str, SampleSpecs]) -> dict[str, int]:
    """By collection: objects that its cut removed."""
    removed: dict[str, int] = {}
    for sample in samples.values():
        for collection, number in sample.removed.items():
            removed[collection] = removed.get(collection, 0) + number
    return removed


def _encode_facts(section: encode_keys.Encoding, encoding: Encoding) -> dict[str, Any]:
    """Normalisation by branch, and width and order of objects by collection, as JSON values."""
    hows = normalisations_of(section.normalisation, encoding.layout.branches)
    about = dict(zip(encoding.layout.branches, encoding.scalings, strict=True))
    clipped = clipped_branches(section.out_of_range, encoding.layout.branches)
    return {
        "normalisation": {name: about[name].about or _shown(how) for name, how in hows.items()},
        "widths": dict(encoding.layout.collection_widths),
        "sort": dict(section.sort),
        "clipped": sorted(clipped),
    }


def _shown(how: Any) -> str:
    if isinstance(how, str):
        return how
    if "shift" in how:
        return f"shift {how['shift']:.6g}, scale {how['scale']:.6g}"
    return f"table of {len(how['x'])} points"


def _loss_notes(dataset: Dataset, trainer: Trainer) -> list[str]:
    """What could not be read while training, though it is in the specs."""
    return [
        f"WARNING: none of the training events of sample {sample} could be read in training "
        f"({num_events:,} events are lost): the network learned from the other samples alone"
        for sample, num_events in trainer.lost_samples.items()
    ] + together(
        [
            f"{lost.num_events:,} events of {lost.skipped.file}:{lost.skipped.tree} (entries "
            f"{lost.skipped.entry_start}-{lost.skipped.entry_stop}) could not be read in training "
            f"and had weight 0: {lost.skipped.reason}"
            for lost in dataset.lost()
        ]
    )


def _classes_json(dataset: Dataset, trainer: Trainer) -> list[dict[str, Any]]:
    """Events and weights of every class, over all samples, and its factor in the loss."""
    factors, by_sample = dataset.factors(), dataset.class_sums()
    rows = []
    for number, name in enumerate(dataset.config.classes):
        by_factor = [(factors[sample], sums[number]) for sample, sums in by_sample.items()]
        rows.append(
            {
                "name": name,
                "label": number,
                "num_events": sum(sums.num_events for _, sums in by_factor),
                "sum_weights": sum(factor * sums.sum_weights for factor, sums in by_factor),
                "factor": trainer.weights.balance[number] if trainer.weights.balance else 1.0,
            }
        )
    return rows


def _one_class_notes(dataset: Dataset, trainer: Trainer, outcome: Outcome) -> list[str]:
    return one_class_notes(
        outcome.test,
        trainer.objective.classes,
        squeezed(dataset.specs(), dataset.config.encode.normalisation),
        dataset.config.training.balance,
    )


def _weight_notes(dataset: Dataset) -> list[str]:
    """What to know of lost events where there are cross sections, and of negative weights."""
    totals, plan = dataset.samples(), dataset.plan()
    notes = []
    for sample in dataset.config.samples:
        total = totals[sample.name]
        lost = plan.num_events_of(sample.name) - total.num_read
        if sample.cross_section is not None and lost:
            fate = "the weights of the others make up for them"
            if sample.sum_weights is not None:
                fate = "sum_weights counts them, so that the weights sum to less than they should"
            notes.append(f"sample {sample.name}: {lost:,} planned events could not be read; {fate}")
        if total.num_negative:
            notes.append(
                f"sample {sample.name}: {total.num_negative:,} of {total.num_selected:,} events "
                "have negative weights"
            )
    return notes


def _class_notes(classes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The classes of which there is nothing to learn."""
    return [
        f"WARNING: no selected event is of class {entry['name']}: the network never saw one"
        for entry in classes
        if not entry["num_events"]
    ]


def _selected(selection: Selection) -> dict[str, Any]:
    keys = ("left_out", "excluded", "targets", "weights", "identifiers")
    return {key: getattr(selection, key) for key in keys}


def plan_json(dataset: Dataset) -> dict[str, Any]:
    """The plan as JSON values: the content of plan.json."""
    plan = dataset.plan()
    return {
        "files": [
            {
                "file": file.file,
                "tree": file.tree,
                "uuid": file.uuid,
                "sample": file.sample,
                "num_entries": file.num_entries,
            }
            for file in plan.files
        ],
        "partitions": [
            [part.file, part.entry_start, part.entry_stop, part.tree] for part in plan.partitions
        ],
        "inputs": [asdict(branch) for branch in plan.branches],
        "reads": list(plan.reads),
        "read_only": plan.read_only,
        **plan.preparation.recipe.to_json(),
        **_selected(plan.selection),
        "skipped": [asdict(entry) for entry in plan.skipped],
        "notes": list(plan.notes),
    }


def distributions_json(parts: list[Distributions]) -> dict[str, Any]:
    """Histograms of the inputs by branch, form and label, for the report's figures."""
    branches: dict[str, Any] = {}
    for part in parts:
        for kind, histograms in (("raw", part.raw), ("encoded", part.encoded)):
            for name, histogram in histograms.items():
                entry = branches.setdefault(name, {}).setdefault(
                    kind, {"counts": {}, "populations": {}, "outside": [0, 0]}
                )
                entry["edges"] = equal_edges(histogram.low, histogram.high).tolist()
                entry["outside"] = [
                    a + b for a, b in zip(entry["outside"], histogram.outside, strict=True)
                ]
                parts_of_entry = (
                    (entry["counts"], histogram.contents),
                    (entry["populations"], histogram.populations),
                )
                for totals, by_label in parts_of_entry:
                    for label, sums in by_label.items():
                        totals[label] = sums + totals.get(label, 0)
    for entry in branches.values():
        for histogram in entry.values():
            for key in ("counts", "populations"):
                histogram[key] = {label: sums.tolist() for label, sums in histogram[key].items()}
    return {"num_events": sum(part.num_events for part in parts), "branches": branches}


def versions() -> dict[str, str]:
    """Versions of the libraries that a result depends on."""
    return {library: version(library) for library in LIBRARIES}
