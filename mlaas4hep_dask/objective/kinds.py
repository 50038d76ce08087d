"""The kinds of objectives: by their words in dataset.yaml and their names in manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.objective.classes import Classes
from mlaas4hep_dask.objective.losses import LOSSES
from mlaas4hep_dask.objective.objective import Objective
from mlaas4hep_dask.objective.reconstruction import Reconstruction
from mlaas4hep_dask.objective.regression import Regression
from mlaas4hep_dask.objective.two_classes import BINARY, TwoClasses

ALL: tuple[type[Objective], ...] = (TwoClasses, Classes, Regression, Reconstruction)
KINDS: dict[str, type[Objective]] = {each.kind: each for each in ALL}
WORDS: dict[str, type[Objective]] = {}  # of several kinds with one word the first
for each in ALL:
    WORDS.setdefault(each.word, each)


def loss_names() -> dict[str, list[str]]:
    """By word of dataset.yaml: the names of its losses, the usual one first."""
    names: dict[str, list[str]] = {}
    for kind in ALL:
        of_word = names.setdefault(kind.word, [])
        of_kind = dict.fromkeys([kind.usual_loss, *LOSSES[kind.kind]])
        of_word += [name for name in of_kind if name not in of_word]
    return names


def metric_names() -> dict[str, list[str]]:
    """By word of dataset.yaml: the metrics beside the loss by which epochs can be compared."""
    return {word: list(kind.more_is_better) for word, kind in WORDS.items()}


def objective_of(
    word: str,
    labels: Mapping[str, int | None],
    branch: Sequence[str] = (),
    classes: Sequence[str] = (),
) -> Objective:
    """What a network is to learn by a configuration without faults.

    Parameters
    ----------
    word, branch, classes : str and sequences of str
        The keys ``kind``, ``branch`` and ``classes`` of the section target.
    labels : mapping of str to int or None
        By sample: its label.
    """
    usual = WORDS[word]
    names = usual.names_of(labels, branch, classes)
    kinds = (each for each in ALL if each.word == word and each.takes(len(names)))
    return next(kinds, usual)(names)


def objective_from_json(output: Mapping[str, Any]) -> Objective:
    """The objective that the section ``output`` of a manifest describes.

    Raises
    ------
    EncodeError
        When it does not describe any.
    """
    if "kind" not in output:  # that of an earlier version
        return BINARY
    kind: Any = output["kind"]
    if kind not in KINDS:
        raise EncodeError(f"output.kind is {kind!r}; expected one of {list(KINDS)}")
    return KINDS[kind].from_json(output)
