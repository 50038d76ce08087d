"""Specs of an earlier run, used instead of measuring."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlaas4hep_dask.config import Split, Target
from mlaas4hep_dask.derive import Expression
from mlaas4hep_dask.encode.encoding import transforms_of
from mlaas4hep_dask.errors import SpecsError, did_you_mean
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.inputs.prepare import Texts
from mlaas4hep_dask.inputs.supervision import Supervision
from mlaas4hep_dask.reader.function import UserFunction
from mlaas4hep_dask.specs import Specs


def event_facts(texts: Texts, function: UserFunction | None) -> dict[str, Any]:
    """The part of the configuration that decides which events and values are measured.

    Expressions are equal if they mean the same by their grammar, however they are written; the
    ``function``, as it was found when the run began, by all that its code consists of.
    """
    facts: dict[str, Any] = {
        key: {name: Expression(text).written_out for name, text in expressions.items()}
        for key, expressions in (("derive", texts.derive), ("objects", texts.objects))
        if expressions
    }
    if texts.select:
        conditions = [c for text in texts.select for c in Expression(text).conjuncts]
        facts["select"] = sorted({condition.written_out for condition in conditions})
    if function is not None:
        facts["function"] = {
            "callable": function.reference,
            "events": function.events,
            "kwargs": function.kwargs,
            "sha256": function.code.digest,
        }
    return facts


def supervision_facts(
    supervision: Supervision, *, target: Target, weight: str | None, split: Split, seed: int
) -> dict[str, Any]:
    """The part that decides the sums of labels, targets and weights that come from branches."""
    if not target.branch and weight is None:
        return {}
    return {
        "target": target.model_dump(mode="json"),
        "weight": weight,
        "split": split.model_dump(mode="json"),
        "seed": seed,
        "divides": supervision.divides,
    }


class SpecsSource(NamedTuple):
    """The specs that a configuration names: its text, what that means, and where it stands."""

    text: str
    path: Path
    where: str


def reused_specs(
    source: SpecsSource, inputs: Sequence[Branch], facts: Mapping[str, Any], normalisation: Any
) -> Specs:
    """The specs that the configuration names.

    Parameters
    ----------
    source : SpecsSource
        The file or folder.
    inputs : sequence of Branch
        The inputs.
    facts : mapping
        From `event_facts`.
    normalisation : str, mapping or list
        The key of the section ``encode``.

    Raises
    ------
    SpecsError
        When they cannot be read, or were measured for other branches, types or events; the
        message lists every difference.
    """
    path, where = specs_file(source.path), source.where
    here = Path(source.text).absolute()
    if not path.exists() and specs_file(here).exists():
        raise SpecsError(
            f"{where}: specs {path} does not exist: a path starts from the folder of the YAML "
            f"file; did you mean {str(here)!r}?",
            file=str(path),
        )
    if not path.exists():
        beside = [*source.path.parent.glob("*")]
        near = did_you_mean(path.name, [entry.name for entry in beside])
        raise SpecsError(f"{where}: specs: {path} does not exist{near}", file=str(path))
    specs = Specs.read(path)
    differences = [*_branch_differences(specs, inputs), *_event_differences(specs, facts)]
    transforms = transforms_of(normalisation, [branch.name for branch in inputs])
    differences += [
        f"the {transform} of branch {name!r} is not in the specs"
        for name, transform in sorted(transforms.items())
        if name in specs.branches and transform not in specs.branches[name].transformed
    ]
    if differences:
        listed = "".join(f"\n  {difference}" for difference in differences)
        raise SpecsError(
            f"{where}: specs {path} do not agree with this configuration:{listed}",
            file=str(path),
            differences=differences,
        )
    return specs.with_provenance(
        reused={"path": source.text, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    )


def specs_file(path: Path) -> Path:
    """The specs.json that a path means: itself, or that of a run or bundle."""
    return path / "specs.json" if path.is_dir() else path


def _branch_differences(specs: Specs, inputs: Sequence[Branch]) -> list[str]:
    ours = {branch.name: branch for branch in inputs}
    theirs = {name: entry.branch for name, entry in specs.branches.items()}
    differences = [
        f"branch {name!r} is an input, but not in the specs" for name in ours.keys() - theirs.keys()
    ]
    differences += [
        f"branch {name!r} is in the specs, but not an input" for name in theirs.keys() - ours.keys()
    ]
    differences += [
        f"branch {name!r} is {ours[name].described()}, in the specs {theirs[name].described()}"
        for name in ours.keys() & theirs.keys()
        if not ours[name].same_shape(theirs[name])
    ]
    return sorted(differences)


def _event_differences(specs: Specs, facts: Mapping[str, Any]) -> list[str]:
    theirs = specs.provenance.get("events", {})
    return [
        f"{key} is {_shown(facts.get(key))}, in the specs {_shown(theirs.get(key))}"
        for key in sorted({*facts, *theirs})
        if facts.get(key) != theirs.get(key)
    ]


def _shown(value: Any) -> str:
    return "not given" if value is None else repr(value)
