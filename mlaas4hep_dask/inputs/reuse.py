"""Specs of an earlier run, used instead of measuring."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.derive import Expression
from mlaas4hep_dask.encode.encoding import transforms_of
from mlaas4hep_dask.errors import SpecsError, did_you_mean
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.inputs.supervision import divides
from mlaas4hep_dask.reader.function import UserFunction
from mlaas4hep_dask.specs import Specs


def event_facts(config: Config, function: UserFunction | None) -> dict[str, Any]:
    """The part of the configuration that decides which events and values are measured.

    Expressions are equal if they mean the same by their grammar, however they are written; the
    ``function``, as it was found when the run began, by all that its code consists of.
    """
    document = config.model_dump(mode="json")
    facts: dict[str, Any] = {
        key: {name: Expression(text).written_out for name, text in document[key].items()}
        for key in ("derive", "objects")
        if document[key]
    }
    if document["select"]:
        conditions = [c for text in document["select"] for c in Expression(text).conjuncts]
        facts["select"] = sorted({condition.written_out for condition in conditions})
    if function is not None:
        facts["function"] = {**document["function"], "sha256": function.code.digest}
    return facts


def supervision_facts(config: Config) -> dict[str, Any]:
    """The part that decides the sums of labels, targets and weights that come from branches."""
    if not config.target.branch and config.weight is None:
        return {}
    document = config.model_dump(mode="json")
    facts = {key: document[key] for key in ("target", "weight", "split", "seed")}
    return {**facts, "divides": divides(config)}


def reused_specs(
    config: Config, inputs: Sequence[Branch], function: UserFunction | None
) -> Specs | None:
    """The specs that the configuration names; None when it names none.

    Raises
    ------
    SpecsError
        When they cannot be read, or were measured for other branches, types or events; the
        message lists every difference.
    """
    if config.specs.path is None:
        return None
    path = specs_file(config.resolve(config.specs.path))
    where = config.where("specs")
    here = Path(config.specs.path).absolute()
    if not path.exists() and specs_file(here).exists():
        raise SpecsError(
            f"{where}: specs {path} does not exist: a path starts from the folder of the YAML "
            f"file; did you mean {str(here)!r}?",
            file=str(path),
        )
    if not path.exists():
        beside = [*config.resolve(config.specs.path).parent.glob("*")]
        near = did_you_mean(path.name, [entry.name for entry in beside])
        raise SpecsError(f"{where}: specs: {path} does not exist{near}", file=str(path))
    specs = Specs.read(path)
    facts = event_facts(config, function)
    found = [*_branch_differences(specs, inputs), *_event_differences(specs, facts)]
    transforms = transforms_of(config.encode.normalisation, [branch.name for branch in inputs])
    found += [
        f"the {transform} of branch {name!r} is not in the specs"
        for name, transform in sorted(transforms.items())
        if name in specs.branches and transform not in specs.branches[name].transformed
    ]
    if found:
        listed = "".join(f"\n  {difference}" for difference in found)
        raise SpecsError(
            f"{where}: specs {path} do not agree with this configuration:{listed}",
            file=str(path),
            differences=found,
        )
    return specs.with_provenance(
        reused={"path": config.specs.path, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    )


def specs_file(path: Path) -> Path:
    """The specs.json that a path means: itself, or that of a run or bundle."""
    return path / "specs.json" if path.is_dir() else path


def _branch_differences(specs: Specs, inputs: Sequence[Branch]) -> list[str]:
    ours = {branch.name: branch for branch in inputs}
    theirs = {name: entry.branch for name, entry in specs.branches.items()}
    found = [
        f"branch {name!r} is an input, but not in the specs" for name in ours.keys() - theirs.keys()
    ]
    found += [
        f"branch {name!r} is in the specs, but not an input" for name in theirs.keys() - ours.keys()
    ]
    found += [
        f"branch {name!r} is {ours[name].described()}, in the specs {theirs[name].described()}"
        for name in ours.keys() & theirs.keys()
        if not ours[name].same_shape(theirs[name])
    ]
    return sorted(found)


def _event_differences(specs: Specs, facts: Mapping[str, Any]) -> list[str]:
    theirs = specs.provenance.get("events", {})
    return [
        f"{key} is {_shown(facts.get(key))}, in the specs {_shown(theirs.get(key))}"
        for key in sorted({*facts, *theirs})
        if facts.get(key) != theirs.get(key)
    ]


def _shown(value: Any) -> str:
    return "not given" if value is None else repr(value)
