"""The stages of a run in their order: plan, specs, training, export, report."""

from __future__ import annotations

import html
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlaas4hep_dask.bundle import Bundle, write_bundle
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.console import Reporter, Stage
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.dataset import watching
from mlaas4hep_dask.dataset.losses import Lost
from mlaas4hep_dask.dataset.mean_image import images_json
from mlaas4hep_dask.dataset.trial import require_splits
from mlaas4hep_dask.report import render
from mlaas4hep_dask.report.card import model_card
from mlaas4hep_dask.report.headlines import HEADLINES, four_digits, metric_rows
from mlaas4hep_dask.report.records import DISTRIBUTIONS, IMAGES, METRICS, SPECS
from mlaas4hep_dask.run.directory import EPOCHS, RunDirectory
from mlaas4hep_dask.run.facts import facts_before, facts_of_training
from mlaas4hep_dask.run.specs_notes import specs_line
from mlaas4hep_dask.run.summary import distributions_json, plan_json, run_summary, versions
from mlaas4hep_dask.run.training import Epoch, Trainer, begin_ranks
from mlaas4hep_dask.train.model import ModelSource, find_model


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
    require_splits(config, plan)
    reporter.record(Stage("plan", plan.num_events, time.perf_counter() - began))
    path = Path(output if output is not None else config.output).absolute()
    with RunDirectory(path, facts=facts_before(dataset, model)) as folder:
        _say_moved(folder, reporter)
        _describe(folder, dataset)
        with reporter.stage("specs", plan.num_events) as advance:
            specs = dataset.specs(progress=advance)
        reporter.say(specs_line(dataset))
        specs = specs.with_provenance(versions=versions())
        trainer = Trainer(dataset, model)
        if not folder.settle(facts_of_training(dataset, trainer)):
            _say_moved(folder, reporter)
            _describe(folder, dataset)
        folder.write(SPECS, specs.to_json())
        del importing
        # Read before training, after which a server may be gone: a result that lacks nothing but
        # examples and figures would be lost.
        examples = trainer.begin_trial()
        folder.write_json(DISTRIBUTIONS, distributions_json(dataset.distributions()))
        if images := images_json(dataset.image_sums(), dataset.encoding().image, specs):
            folder.write_json(IMAGES, images)
        began = time.perf_counter()
        warnings = trainer.end_trial()
        reporter.record(Stage("trial", 0, time.perf_counter() - began))
        for warning in warnings:
            reporter.say(f"WARNING: {warning}")
        epochs, last = _train(trainer, dataset, folder, reporter)
        began = time.perf_counter()
        exported = trainer.export(last.state)
        reporter.record(Stage("export", 0, time.perf_counter() - began))
        summary = run_summary(dataset, trainer, reporter, epochs, last)
        summary["model"]["num_parameters"] = exported.num_parameters
        summary["command"] = command
        for note in summary["counts"]["notes"]:
            if note.startswith("WARNING: the network predicts"):
                reporter.say(note)
        bundle = write_bundle(
            path / "bundle",
            name=config.name,
            model=exported.content,
            specs=specs,
            encode=dataset.encode_options(),
            outputs=trainer.outputs,
            metrics={key: last.record[key] for key in ("train", "validation", "test")},
            data={
                "tree": _tree(dataset),
                "friends": _friends(dataset),
                "function": None if config.function is None else config.function.callable,
                "identifiers": config.branches.identifiers,
                "samples": summary["samples"],
                "config": config.digest(),
            },
            card=model_card(summary, config),
            recipe=dataset.plan().preparation.recipe,
            example=examples.sent[0] if examples.sent else None,
            golden=exported.golden,
        )
        result = RunResult(path, summary, bundle)
        summary["serve"] = result.serve_command
        folder.write_json(METRICS, summary)
        folder.write("report.html", render(path))
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
        dataset.recall_lost(map(Lost.from_json, earlier["lost"]))
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
            lost = [entry.as_json() for entry in dataset.lost()]
            folder.write_json(EPOCHS, {"epochs": epochs, "detail": epoch.detail, "lost": lost})
            (folder.path / _checkpoint(len(epochs) - 1)).unlink(missing_ok=True)
            reporter.say(_epoch_line(epoch.record, num_epochs, trainer.outputs.kind))
    assert last is not None  # there is at least one epoch
    return epochs, last


def _describe(folder: RunDirectory, dataset: Dataset) -> None:
    folder.write("config.yaml", dataset.config.to_yaml(absolute=True))
    folder.write_json("plan.json", plan_json(dataset))


def _say_moved(folder: RunDirectory, reporter: Reporter) -> None:
    if folder.moved_to is None:
        return
    if folder.changed:
        reporter.say(f"the interrupted run in {folder.path} is not taken up: {folder.changed}")
    reporter.say(f"an earlier run in {folder.path} was moved to {folder.moved_to}")


def _checkpoint(epoch: int) -> str:
    return f"checkpoints/epoch-{epoch}.pt"


def _epoch_line(record: Mapping[str, Any], num_epochs: int, kind: str) -> str:
    key, title = HEADLINES[kind]
    parts = [f"epoch {record['epoch']}/{num_epochs}"]
    for name in ("train", "validation", "test"):
        if (split := record.get(name)) is None:
            continue  # test events are for the last epoch
        loss, metric = four_digits(split["loss"]), four_digits(split[key])
        parts.append(f"{name} loss {loss} {title} {metric}")
    parts.append(f"{record['events_per_second']:,.0f} events/s")
    return ", ".join(parts)


def _friends(dataset: Dataset) -> list[dict[str, Any]]:
    """The friend trees of which branches are read, as the configuration has them."""
    if not any(friend.names for file in dataset.plan().files for friend in file.friends):
        return []
    config = dataset.config
    friends = [*config.friends, *(each for sample in config.samples for each in sample.friends)]
    found = [friend.model_dump(mode="json") for friend in friends]
    return [each for place, each in enumerate(found) if each not in found[:place]]


def _tree(dataset: Dataset) -> str | list[str]:
    """The tree of all files; or all trees, where there are more."""
    trees = list(dict.fromkeys(file.tree for file in dataset.plan().files))
    return trees[0] if len(trees) == 1 else trees
