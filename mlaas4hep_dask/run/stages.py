"""The stages of a run in their order: plan, specs, training, export, report."""

from __future__ import annotations

import hashlib
import html
import json
import math
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlaas4hep_dask import __version__
from mlaas4hep_dask.bundle import Bundle, write_bundle
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.console import Reporter, Stage
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.dataset import watching
from mlaas4hep_dask.dataset.distributions import Distributions
from mlaas4hep_dask.dataset.mean_image import images_json
from mlaas4hep_dask.dataset.normalise import source_digest
from mlaas4hep_dask.run.card import model_card
from mlaas4hep_dask.run.cut_flow import cut_flow, objects_removed
from mlaas4hep_dask.run.directory import EPOCHS, METRICS, RunDirectory
from mlaas4hep_dask.run.encode_facts import encode_facts
from mlaas4hep_dask.run.metrics import HEADLINES, four_digits, metric_rows
from mlaas4hep_dask.run.report import render
from mlaas4hep_dask.run.specs_notes import specs_counts, specs_line, specs_notes
from mlaas4hep_dask.run.training import Epoch, Trainer, begin_ranks
from mlaas4hep_dask.train.model import ModelSource, find_model

LIBRARIES = ("awkward", "dask", "distributed", "numba", "numpy", "torch", "uproot")


@dataclass(frozen=True)
class RunResult:
    """What a run has made.

    Parameters
    ----------
    path : Path
        The run directory.
    summary : mapping
        Counts, stages, epochs and metrics; the content of metrics.json.
    bundle : Bundle
        The exported model.
    """

    path: Path
    summary: Mapping[str, Any]
    bundle: Bundle

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.path / "report.html"

    @property
    def serve_command(self) -> str:
        """The command that serves the model, to be pasted in the current directory."""
        found = shutil.which("python")
        same = found is not None and Path(found).samefile(sys.executable)
        python = "python" if same else _short(Path(sys.executable))
        bundle = _short(self.path / "bundle")
        return shlex.join([python, "-m", "mlaas4hep_dask.serve", bundle])

    def _repr_html_(self) -> str:
        test = self.summary["test"]
        rows = {
            **{f"test {name}": text for name, text in metric_rows(self.summary)},
            "test events": f"{test['num_events']:,}",
            "report": str(self.report),
            "serve it": self.serve_command,
        }
        body = "".join(
            f"<tr><td>{title}</td><td>{html.escape(text)}</td></tr>" for title, text in rows.items()
        )
        name = html.escape(str(self.summary["name"]))
        return f"<p><b>Run</b> {name}</p><table><tbody>{body}</tbody></table>"


def _short(path: Path) -> str:
    """The path as one types it: relative if it is below the current directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def model_of(config: Config) -> ModelSource:
    """The model of a configuration, checked as far as possible without running it.

    Raises
    ------
    ModelError
        When there is no such file, module or callable.
    """
    return find_model(
        config.model.callable,
        config.model.kwargs,
        resolve=config.resolve,
        where=config.where("model.callable"),
    )


def fit(
    dataset: Dataset,
    *,
    output: str | Path | None = None,
    model: ModelSource | None = None,
    reporter: Reporter | None = None,
    command: str | None = None,
) -> RunResult:
    """Train on a data set and export the model.

    Parameters
    ----------
    dataset : Dataset
        The data set, with its cluster.
    output : str or Path, optional
        The run directory; by default the configuration's.
    model : ModelSource, optional
        From `model_of`, if the caller has it already.
    reporter : Reporter, optional
        Told of every stage; by default stages are logged.
    command : str, optional
        The command line, for the report.

    Returns
    -------
    RunResult
        Where everything lies, and the metrics.

    Raises
    ------
    MLaaSError
        Whatever is wrong with data, model or cluster.
    """
    config = dataset.config
    reporter = reporter or Reporter()
    model = model or model_of(config)
    began = time.perf_counter()
    importing = begin_ranks(dataset)
    reporter.record(Stage("start", 0, time.perf_counter() - began))
    began = time.perf_counter()
    plan = dataset.plan()
    reporter.record(Stage("plan", plan.num_events, time.perf_counter() - began))
    path = Path(output if output is not None else config.output).absolute()
    with RunDirectory(path, fingerprint=_fingerprint(dataset, model)) as folder:
        if folder.moved_to is not None:
            reporter.say(f"an earlier run in {path} was moved to {folder.moved_to}")
        folder.write("config.yaml", config.to_yaml(absolute=True))
        folder.write_json("plan.json", _plan_json(dataset))
        with reporter.stage("specs", plan.num_events) as advance:
            specs = dataset.specs(progress=advance)
        reporter.say(specs_line(dataset))
        specs = specs.with_provenance(versions=_versions())
        folder.write("specs.json", specs.to_json())
        trainer = Trainer(dataset, model)
        del importing
        epochs, last = _train(trainer, dataset, folder, reporter)
        began = time.perf_counter()
        content, num_parameters = trainer.export(last.state, dataset)
        reporter.record(Stage("export", 0, time.perf_counter() - began))
        summary = _summary(dataset, trainer, reporter, epochs, last)
        summary["model"]["num_parameters"] = num_parameters
        summary["command"] = command
        bundle = write_bundle(
            path / "bundle",
            name=config.name,
            model=content,
            specs=specs,
            encode=dataset.encode_options(),
            outputs=trainer.outputs,
            metrics={key: last.record[key] for key in ("train", "validation", "test")},
            data={
                "tree": config.tree,
                "function": None if config.function is None else config.function.callable,
                "samples": summary["samples"],
                "config": config.digest(),
            },
            card=model_card(summary, config),
            recipe=dataset.plan().preparation.recipe,
            example=dataset.example_event(),
        )
        result = RunResult(path, summary, bundle)
        summary["serve"] = result.serve_command
        folder.write_json(METRICS, summary)
        shown = _distributions_json(dataset.distributions())
        images = images_json(dataset.image_sums(), dataset.encoding().image, specs)
        folder.write("report.html", render(summary, specs, shown, images))
    return result


def _train(
    trainer: Trainer, dataset: Dataset, folder: RunDirectory, reporter: Reporter
) -> tuple[list[dict[str, Any]], Epoch]:
    num_epochs = dataset.config.training.epochs
    epochs: list[dict[str, Any]] = []
    last: Epoch | None = None
    if folder.resumed:
        earlier = folder.read_json(EPOCHS)
        epochs = earlier["epochs"]
        state = (folder.path / _checkpoint(len(epochs))).read_bytes()
        last = Epoch(epochs[-1], earlier["detail"], state)
        reporter.say(f"taking up the run in {folder.path} after epoch {len(epochs)}")
    left = num_epochs - len(epochs)
    with (
        reporter.stage("train", left * trainer.num_events) as advance,
        watching(dataset.client, advance),
    ):
        for epoch in trainer.epochs(
            first=len(epochs) + 1, state=None if last is None else last.state
        ):
            last = epoch
            epochs.append(epoch.record)
            # A run killed between these lines goes on from the earlier checkpoint.
            folder.write(_checkpoint(len(epochs)), epoch.state)
            folder.write_json(EPOCHS, {"epochs": epochs, "detail": epoch.detail})
            (folder.path / _checkpoint(len(epochs) - 1)).unlink(missing_ok=True)
            reporter.say(_epoch_line(epoch.record, num_epochs, trainer.outputs.kind))
    assert last is not None  # there is at least one epoch
    return epochs, last


def _checkpoint(epoch: int) -> str:
    return f"checkpoints/epoch-{epoch}.pt"


def _epoch_line(record: Mapping[str, Any], num_epochs: int, kind: str) -> str:
    key, title = HEADLINES[kind]
    parts = [f"epoch {record['epoch']}/{num_epochs}"]
    for name in ("train", "validation", "test"):
        split = record[name]
        loss, metric = four_digits(split["loss"]), four_digits(split[key])
        parts.append(f"{name} loss {loss} {title} {metric}")
    parts.append(f"{record['events_per_second']:,.0f} events/s")
    return ", ".join(parts)


def _summary(
    dataset: Dataset,
    trainer: Trainer,
    reporter: Reporter,
    epochs: list[dict[str, Any]],
    last: Epoch,
) -> dict[str, Any]:
    config, plan, totals = dataset.config, dataset.plan(), dataset.samples()
    encoding, factors = dataset.encoding(), dataset.factors()
    counts = dataset.encode_counts(trainer.counts)
    skipped = dataset.skipped()
    splits: dict[str, list[int]] = {}
    for sample, numbers in dataset.split_counts():
        total = splits.setdefault(sample, [0, 0, 0])
        splits[sample] = [a + b for a, b in zip(total, numbers, strict=True)]
    return {
        "name": config.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": __version__,
        "versions": _versions(),
        "seed": config.seed,
        "stages": [stage.as_json() for stage in reporter.stages],
        "counts": {
            "files": len(plan.files),
            "partitions": len(plan.partitions),
            "branches": len(plan.branches),
            "columns": math.prod(encoding.row_shape),
            "events_read": sum(sample.num_read for sample in totals.values()),
            "events_selected": sum(sample.num_selected for sample in totals.values()),
            **specs_counts(dataset),
            "cut_flow": cut_flow(totals),
            "objects_removed": objects_removed(totals),
            "events_skipped": sum(
                entry.entry_stop - entry.entry_start
                for entry in skipped
                if entry.entry_stop is not None
            ),
            "skipped": [asdict(entry) for entry in skipped],
            "events_lost": sum(entry.num_events for entry in dataset.lost()),
            "lost": [
                {**asdict(entry.skipped), "num_events": entry.num_events}
                for entry in dataset.lost()
            ],
            **dataset.read_counts().as_json(),
            **counts.as_json(),
            "left_out": plan.selection.left_out,
            "excluded": plan.selection.excluded,
            "targets": plan.selection.targets,
            "weights": plan.selection.weights,
            "identifiers": plan.selection.identifiers,
            "notes": [
                *plan.notes,
                *specs_notes(dataset),
                *map(str, dataset.cell_suggestions()),
                *_weight_notes(dataset),
                *_loss_notes(dataset),
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
                "train": splits[sample][0],
                "validation": splits[sample][1],
                "test": splits[sample][2],
            }
            for sample in plan.samples
        ],
        "encode": encode_facts(config, encoding),
        "outputs": trainer.outputs.as_json(),
        "classes": _classes_json(dataset, trainer),
        "epochs": epochs,
        "test": {**last.record["test"], **last.detail},
        "model": {
            "callable": config.model.callable,
            "num_columns": math.prod(encoding.row_shape),
            "shape": list(encoding.row_shape),
        },
        "training": {
            **config.training.model_dump(),
            "restarts": trainer.restarts,
            "cache": trainer.cache,
            "packed_bytes": trainer.packed_bytes,
        },
        "config_yaml": config.to_yaml(),
    }


def _loss_notes(dataset: Dataset) -> list[str]:
    """What could not be read while training, though it is in the specs."""
    return [
        f"{lost.num_events:,} events of {lost.skipped.file} (entries "
        f"{lost.skipped.entry_start}-{lost.skipped.entry_stop}) could not be read in training and "
        f"had weight 0: {lost.skipped.reason}"
        for lost in dataset.lost()
    ]


def _classes_json(dataset: Dataset, trainer: Trainer) -> list[dict[str, Any]]:
    """Events and weights of every class, over all samples, and its factor in the loss."""
    factors, by_sample = dataset.factors(), dataset.class_sums()
    rows = []
    for number, name in enumerate(dataset.config.classes):
        own = [(factors[sample], sums[number]) for sample, sums in by_sample.items()]
        rows.append(
            {
                "name": name,
                "label": number,
                "num_events": sum(sums.num_events for _, sums in own),
                "sum_weights": sum(factor * sums.sum_weights for factor, sums in own),
                "factor": trainer.weights.balance[number] if trainer.weights.balance else 1.0,
            }
        )
    return rows


def _weight_notes(dataset: Dataset) -> list[str]:
    """What to know of lost events where there are cross sections, and of negative weights."""
    totals, plan = dataset.samples(), dataset.plan()
    notes = []
    for sample in dataset.config.samples:
        found = totals[sample.name]
        lost = plan.num_events_of(sample.name) - found.num_read
        if sample.cross_section is not None and lost:
            fate = "the weights of the others make up for them"
            if sample.sum_weights is not None:
                fate = "sum_weights counts them, so that the weights sum to less than they should"
            notes.append(f"sample {sample.name}: {lost:,} planned events could not be read; {fate}")
        if found.num_negative:
            notes.append(
                f"sample {sample.name}: {found.num_negative:,} of {found.num_selected:,} events "
                "have negative weights"
            )
    return notes


def _plan_json(dataset: Dataset) -> dict[str, Any]:
    plan = dataset.plan()
    return {
        "files": [
            {
                "file": file.file,
                "uuid": file.uuid,
                "sample": file.sample,
                "num_entries": file.num_entries,
            }
            for file in plan.files
        ],
        "partitions": [[part.file, part.entry_start, part.entry_stop] for part in plan.partitions],
        "inputs": [asdict(branch) for branch in plan.branches],
        "reads": list(plan.reads),
        "read_only": plan.read_only,
        **plan.preparation.recipe.to_json(),
        "left_out": plan.selection.left_out,
        "excluded": plan.selection.excluded,
        "targets": plan.selection.targets,
        "weights": plan.selection.weights,
        "identifiers": plan.selection.identifiers,
        "skipped": [asdict(entry) for entry in plan.skipped],
        "notes": list(plan.notes),
    }


def _distributions_json(parts: list[Distributions]) -> dict[str, Any]:
    branches: dict[str, Any] = {}
    for part in parts:
        for kind, histograms in (("raw", part.raw), ("encoded", part.encoded)):
            for name, (low, high, counts) in histograms.items():
                entry = branches.setdefault(name, {}).setdefault(kind, {"counts": {}})
                for label, own in counts.items():
                    step = (high - low) / len(own)
                    entry["edges"] = [low + i * step for i in range(len(own))] + [high]
                    entry["counts"][label] = own + entry["counts"].get(label, 0)
    for entry in branches.values():
        for histogram in entry.values():
            histogram["counts"] = {
                label: counts.tolist() for label, counts in histogram["counts"].items()
            }
    return {"num_events": sum(part.num_events for part in parts), "branches": branches}


def _fingerprint(dataset: Dataset, model: ModelSource) -> str:
    files = [(file.uuid, file.num_entries) for file in dataset.plan().files]
    code = [model.digest(), source_digest(dataset.config)]
    text = json.dumps([__version__, dataset.token(), *code, files])
    return hashlib.sha256(text.encode()).hexdigest()


def _versions() -> dict[str, str]:
    return {library: version(library) for library in LIBRARIES}
