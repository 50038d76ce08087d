"""The stages of a run in their order: plan, specs, training, export, report."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from mlaas4hep_dask.bundle import write_bundle
from mlaas4hep_dask.cluster.page import Teller
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.console import Reporter
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.lost import Lost
from mlaas4hep_dask.dataset.mean_image import images_json
from mlaas4hep_dask.dataset.progress import watching
from mlaas4hep_dask.dataset.trial import require_splits
from mlaas4hep_dask.journal import SPLITS, Caution, Epoch, Journal, Message, Note, read
from mlaas4hep_dask.journal.text import four_digits
from mlaas4hep_dask.report import render
from mlaas4hep_dask.report.card import model_card
from mlaas4hep_dask.report.records import CONFIG, DISTRIBUTIONS, IMAGES, METRICS, PLAN, SPECS
from mlaas4hep_dask.run.directory import EPOCHS, RunDirectory
from mlaas4hep_dask.run.facts import facts_before, facts_of_training
from mlaas4hep_dask.run.importing import begin_ranks
from mlaas4hep_dask.run.method import method_of
from mlaas4hep_dask.run.outcome import Checkpoint, Outcome, UnderWay
from mlaas4hep_dask.run.result import RunResult
from mlaas4hep_dask.run.samples import measured, planned
from mlaas4hep_dask.run.specs_notes import specs_line, specs_notes
from mlaas4hep_dask.run.summary import distributions_json, plan_json, run_summary, versions
from mlaas4hep_dask.run.training import Trainer
from mlaas4hep_dask.run.underway import read_under_way, remove_under_way, write_under_way
from mlaas4hep_dask.run.witness import Witness
from mlaas4hep_dask.run.work import Work, work_on
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import ModelSource, find_model


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
    method: Method | None = None,
    reporter: Reporter | None = None,
    command: str | None = None,
    work: Work | None = None,
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
    method : Method, optional
        From `method_of`, if the caller has it already.
    reporter : Reporter, optional
        Told of every stage; by default stages are logged.
    command : str, optional
        The command line, for the report.
    work : Work, optional
        From `work_on`, if the caller began earlier; it has output, reporter and command then.

    Returns
    -------
    RunResult
        Where everything lies, and the metrics.

    Raises
    ------
    MLaaSError
        Whatever is wrong with data, model or cluster.
    """
    if work is None:
        options: dict[str, Any] = {"output": output, "reporter": reporter, "command": command}
        with work_on(dataset.config, **options) as new_work:
            return fit(dataset, model=model, method=method, work=new_work)
    journal = work.journal
    with (
        Witness(journal, dataset) as witness,
        Teller(dataset.cluster.client, secrets.token_hex(4)) as teller,
        journal.heard_by(teller.hear),
    ):
        return _fit(dataset, model, method, work, witness)


def _fit(
    dataset: Dataset,
    model: ModelSource | None,
    method: Method | None,
    work: Work,
    witness: Witness,
) -> RunResult:
    config, folder, journal = dataset.config, work.folder, work.journal
    model, method = model or model_of(config), method or method_of(config)
    with journal.stage("start"):
        importing, trial = begin_ranks(dataset, model, method)
    with journal.stage("plan") as planning:
        plan = dataset.plan()
        trial.end(wait=False)
        require_splits(plan, config.where("split"))
        planning.events = plan.num_events
    witness.look_at_plan()
    journal.add(planned(plan))
    work.begin(facts_before(dataset, model, method))
    path = folder.path
    _describe(folder, dataset)
    for caution in config.cautions:
        journal.add(Caution(caution))
    with (
        journal.stage("specs", plan.num_events) as advance,
        dataset.cluster.looking_at(trial.look),  # trainers may come meanwhile
    ):
        specs = dataset.specs(progress=advance)
    witness.look("specs")
    notes = specs_notes(
        specs,
        path=config.specs.path,
        normalisation=config.encode.normalisation,
        out_of_range=config.encode.out_of_range,
    )
    num_cached = dataset.num_cached()
    line = specs_line(specs, num_cached=num_cached, path=config.specs.path, notes=notes)
    journal.add(Message(line))
    if config.specs.path is None and specs.coverage >= 1.0:
        journal.add(measured(specs))
    specs = specs.with_provenance(versions=versions())
    trainer = Trainer(dataset, model, method, results=path)
    if not work.settle(facts_of_training(dataset, trainer)):
        _describe(folder, dataset)
    folder.write(SPECS, specs.to_json())
    del importing
    # Read before training, after which a server may be gone: a result that lacks nothing but
    # examples and figures would be lost.
    examples = trainer.begin_trial()
    folder.write_json(DISTRIBUTIONS, distributions_json(dataset.distributions()))
    if images := images_json(dataset.image_sums(), dataset.encoding().image, specs):
        folder.write_json(IMAGES, images)
    with journal.stage("trial"):
        trial.end()  # of trainers that have come after the specs
        warnings = trainer.end_trial()
    for warning in warnings:
        journal.add(Caution(warning))
    epochs, outcome = _train(trainer, dataset, folder, journal, witness)
    with journal.stage("export"):
        exported = trainer.export(outcome.state)
    summary = run_summary(dataset, trainer, journal.stages, epochs, outcome)
    witness.look("export")
    summary["model"]["num_parameters"] = exported.num_parameters
    summary["command"] = work.command
    for note in summary["counts"]["notes"]:
        if note.startswith("WARNING: the network predicts"):
            journal.add(Caution(note.removeprefix("WARNING: ")))
        else:
            journal.add(Note(note))
    bundle = write_bundle(
        path / "bundle",
        name=config.name,
        model=exported.content,
        specs=specs,
        encode=dataset.encode_options(),
        objective=trainer.objective,
        metrics={key: outcome.record[key] for key in SPLITS},
        data={
            "tree": _tree(dataset),
            "friends": _friends(dataset),
            "function": None if config.function is None else config.function.callable,
            "identifiers": config.branches.identifiers,
            "samples": summary["samples"],
            "config": config.digest(),
        },
        card=model_card(summary),
        recipe=dataset.plan().preparation.recipe,
        example=examples.sent[0] if examples.sent else None,
        golden=exported.golden,
        others=exported.files,
    )
    result = RunResult(path, summary, bundle)
    summary["serve"] = result.serve_command
    folder.write_json(METRICS, summary)
    folder.write("report.html", render(path))
    work.complete()
    return result


def _train(
    trainer: Trainer,
    dataset: Dataset,
    folder: RunDirectory,
    journal: Journal,
    witness: Witness,
) -> tuple[list[dict[str, Any]], Outcome]:
    num_epochs = trainer.course.epochs
    key, title = trainer.objective.headline
    done: list[Checkpoint] = []
    under_way = None
    if folder.resumed:
        has_epochs = (folder.path / EPOCHS).exists()
        earlier = folder.read_json(EPOCHS) if has_epochs else {"epochs": [], "lost": []}
        done = [_checkpoint(folder, record) for record in earlier["epochs"]]
        under_way, lost = read_under_way(folder, len(done) + 1)
        lost_before = [Lost.from_json(entry) for entry in lost or earlier["lost"]]
        dataset.recall_lost(lost_before)
        witness.recall(lost_before)
        text = _taken_up(folder.path, done, under_way, dataset.config.training.ranks)
        journal.add(Message(text))
        journal_epochs = {each.epoch for each in read(folder.path).epochs}
        for each in done:  # of a process that was killed just before it told of one
            if each.record["epoch"] not in journal_epochs:
                journal.add(Epoch(each.record["epoch"], num_epochs, each.record, key, title))
    records = [each.record for each in done]
    num_left = 0 if trainer.course.is_over(records) else num_epochs - len(done)
    with (
        journal.stage("train", num_left * trainer.events_per_epoch) as advance,
        watching(dataset.cluster, advance),
    ):
        try:
            epochs = trainer.epochs(
                done,
                under_way=under_way,
                keep=lambda way: write_under_way(folder, way, dataset.lost()),
            )
            for last in epochs:
                assert last.state is not None  # it was made just now
                records.append(last.record)
                # A run killed between these lines goes on from the earlier checkpoint.
                folder.write(_path(len(records)), last.state)
                lost = [entry.as_json() for entry in dataset.lost()]
                folder.write_json(EPOCHS, {"epochs": records, "lost": lost})
                remove_under_way(folder)
                needed = {_path(len(records)), _path(trainer.course.kept(records))}
                for epoch in range(1, len(records)):
                    if _path(epoch) not in needed:
                        (folder.path / _path(epoch)).unlink(missing_ok=True)
                journal.add(Epoch(len(records), num_epochs, last.record, key, title))
                witness.look("train")
        finally:
            witness.look("train")
        advance.events = (len(records) - len(done)) * trainer.events_per_epoch
    outcome = trainer.outcome
    assert outcome is not None  # all epochs are over
    journal.add(Message(_kept(outcome, trainer, num_epochs, records)))
    return records, outcome


def _taken_up(path: Path, done: list[Checkpoint], way: UnderWay | None, ranks: int) -> str:
    """After which epoch or window, and with how many ranks if these are others, in words."""
    text = f"taking up the run in {path} after epoch {len(done)}"
    before = len(done[-1].record["data_wait"]) if done else ranks
    if way is not None:
        text = f"taking up the run in {path} within epoch {way.epoch}, after window {way.window}"
        before = len(way.parts)
    return text if before == ranks else f"{text}; training.ranks is {ranks} now, was {before}"


def _kept(
    outcome: Outcome, trainer: Trainer, num_epochs: int, records: list[dict[str, Any]]
) -> str:
    """Which epoch is kept and why, in words."""
    course, (key, title) = trainer.course, trainer.objective.headline
    why = f"has the best validation {course.monitor}" if course.keeps_best else "is the last"
    early, num_done = "", len(records)
    if num_done < num_epochs and records[-1].get("stopped"):
        early = f"; training ended after {num_done}, as a hook asked"
    elif num_done < num_epochs:
        early = f"; training ended after {num_done}, of which the last {course.patience} were no "
        early += "better"
    loss, metric = (four_digits(outcome.test.get(name)) for name in ("loss", key))
    return f"epoch {outcome.epoch} is kept, which {why}{early}: test loss {loss} {title} {metric}"


def _checkpoint(folder: RunDirectory, record: dict[str, Any]) -> Checkpoint:
    path = folder.path / _path(record["epoch"])
    return Checkpoint(record, path.read_bytes() if path.exists() else None)


def _describe(folder: RunDirectory, dataset: Dataset) -> None:
    folder.write(CONFIG, dataset.config.to_yaml(absolute=True))
    folder.write_json(PLAN, plan_json(dataset))


def _path(epoch: int) -> str:
    return f"checkpoints/epoch-{epoch}.pt"


def _friends(dataset: Dataset) -> list[dict[str, Any]]:
    """The friend trees of which branches are read, as the configuration has them."""
    if not any(friend.names for file in dataset.plan().files for friend in file.friends):
        return []
    config = dataset.config
    friends = [*config.friends, *(each for sample in config.samples for each in sample.friends)]
    sections = [friend.model_dump(mode="json") for friend in friends]
    return [each for place, each in enumerate(sections) if each not in sections[:place]]


def _tree(dataset: Dataset) -> str | list[str]:
    """The tree of all files; or all trees, where there are more."""
    trees = list(dict.fromkeys(file.tree for file in dataset.plan().files))
    return trees[0] if len(trees) == 1 else trees
