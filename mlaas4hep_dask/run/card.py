"""The model card of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlaas4hep_dask.config import Config


def model_card(summary: Mapping[str, Any], config: Config) -> str:
    """Markdown that tells what a model is, what it learned from and how well it does."""
    samples = "\n".join(
        f"| {sample['name']} | {sample['label']} | {sample['num_selected']:,} |"
        for sample in summary["samples"]
    )
    test = summary["test"]
    training = config.training
    return f"""# {config.name}

Probability that an event belongs to a sample of label 1.

## Model
`{config.model.callable}` with {summary["model"]["num_columns"]} input columns. Trained for \
{training.epochs} epochs with a global batch of {training.batch_size} on {training.ranks} ranks, \
learning rate {training.learning_rate}, seed {config.seed}.

## Data
| sample | label | events |
|---|---|---|
{samples}

{_recipe(config)}\
Events are divided by a hash of file and entry: {config.split.train:.0%} training, \
{config.split.validation:.0%} validation, {config.split.test:.0%} test.

## Performance on the test events
AUC {_number(test["auc"])}, loss {_number(test["loss"])}, {test["num_events"]:,} events.

## Limits
The score is a probability only for the mixture of samples above. Values outside the range of the
training data are counted in every answer of the server.
"""


def _recipe(config: Config) -> str:
    """What prepares raw events, and which of them were selected."""
    lines = [f"- `{name} = {text}`" for name, text in config.derive.items()]
    lines += [f"- objects of {name} with `{text}`" for name, text in config.objects.items()]
    made = "\n".join(["Made of raw events, here and by the server:", *lines]) if lines else ""
    cuts = "\n".join(f"- `{cut}`" for cut in config.select)
    head = "Trained on events with these properties. The server scores others too, for which the "
    chosen = f"{head}score has no meaning:\n{cuts}" if cuts else ""
    return "".join(f"{part}\n\n" for part in (made, chosen) if part)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
