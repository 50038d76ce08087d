"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mlaas4hep_dask.report.headlines import metric_rows, objective_of
from mlaas4hep_dask.report.quantities import input_text, seed_text


def model_card(summary: Mapping[str, Any]) -> str:
    """Markdown that tells what a model is, what it learned from and how well it does.

    Parameters
    ----------
    summary : mapping of str to Any
        The content of metrics.json.
    """
    config: dict[str, Any] = yaml.safe_load(summary["config_yaml"])
    with_labels = any(sample["label"] is not None for sample in summary["samples"])
    samples = _table(
        ["sample", *(["label"] if with_labels else []), "events"],
        [
            [
                sample["name"],
                *([sample["label"]] if with_labels else []),
                f"{sample['num_selected']:,}",
            ]
            for sample in summary["samples"]
        ],
    )
    test, objective = summary["test"], objective_of(summary)
    training, split = config["training"], config["split"]
    metric_lines = "\n".join(f"| {name} | {value} |" for name, value in metric_rows(summary))
    return f"""# {summary["name"]}

{objective.purpose(config["target"]["branch"], summary["training"]["loss"])}

## Model
`{summary["model"]["callable"]}` with {input_text(summary["model"])} as input. Trained for \
{_length(summary, training)} is kept, with a global batch of {_batch(training)} on \
{training["ranks"]} ranks, learning rate {training["learning_rate"]}, \
seed {seed_text(summary["seed"])}.

## Data
{samples}

{_recipe(config)}\
{_weights(config)}Events are divided by a hash of file and entry: {split["train"]:.0%} \
training, {split["validation"]:.0%} validation, {split["test"]:.0%} test.

## Performance on the test events
| metric of {test["num_events"]:,} events | value |
|---|---|
{metric_lines}

## Limits
{objective.limits} Values outside the range of the training data are counted in every answer of \
the server.
"""


def _length(summary: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    number, kept = len(summary["epochs"]), summary["kept_epoch"]
    if training.get("strategy") != "chunked":
        return f"{number} epochs, of which number {kept}"
    passes = f"{training['epochs']} {'pass' if training['epochs'] == 1 else 'passes'}"
    return f"{passes} over each of {number} chunks of events; the network after number {kept}"


def _batch(training: Mapping[str, Any]) -> str:
    """Events of a step; a window may have fewer batches than are to be accumulated."""
    number = training.get("accumulate", 1)
    return f"{'at most ' if number > 1 else ''}{training['batch_size'] * number}"


def _recipe(config: Mapping[str, Any]) -> str:
    """What prepares raw events, and which of them were selected."""
    lines = [f"- `{name} = {text}`" for name, text in config["derive"].items()]
    lines += [f"- objects of {name} with `{text}`" for name, text in config["objects"].items()]
    preparation = (
        "\n".join(["Made of raw events, here and by the server:", *lines]) if lines else ""
    )
    cuts = "\n".join(f"- `{cut}`" for cut in config["select"])
    head = "Trained on events with these properties. The server scores others too, for which the "
    selection = f"{head}score has no meaning:\n{cuts}" if cuts else ""
    return "".join(f"{part}\n\n" for part in (preparation, selection) if part)


def _weights(config: Mapping[str, Any]) -> str:
    parts = []
    if config["weight"] is not None:
        parts.append(f"Events weigh `{config['weight']}`.")
    if any(sample["cross_section"] is not None for sample in config["samples"]):
        value = config["luminosity"]
        luminosity = "" if value is None else f" times {value:g} per pb"
        parts.append(f"The weights of a sample sum to its cross section{luminosity}.")
    if config["training"]["balance"] == "classes":
        parts.append("In the loss all classes have the same sum of weights.")
    return " ".join(parts) + "\n\n" if parts else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in (columns, *rows)]
    return "\n".join([lines[0], "|---" * len(columns) + "|", *lines[1:]])
