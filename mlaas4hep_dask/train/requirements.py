"""What a network and the process around it have to keep to, so that ranks can train it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch

from mlaas4hep_dask.errors import ModelError, did_you_mean

FREEZE = "training.freeze"
SHOWN = 3  # names of parameters


def torch_settings() -> dict[str, Any]:
    """Settings of torch that hold for the whole process."""
    return {
        "torch.set_default_dtype": torch.get_default_dtype(),
        "torch.set_grad_enabled": torch.is_grad_enabled(),
        "torch.set_default_device": torch.get_default_device(),
        "torch.use_deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def changed_settings(before: dict[str, Any]) -> list[str]:
    """The settings that have changed; they are set back."""
    now = torch_settings()
    torch.set_default_dtype(before["torch.set_default_dtype"])
    torch.set_grad_enabled(before["torch.set_grad_enabled"])
    if now["torch.set_default_device"] != before["torch.set_default_device"]:
        torch.set_default_device(before["torch.set_default_device"])
    torch.use_deterministic_algorithms(before["torch.use_deterministic_algorithms"])
    return [name for name, value in now.items() if value != before[name]]


def require_parameters(network: torch.nn.Module) -> None:
    """Raise unless a network has something to train."""
    parameters = list(network.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        what = "all its parameters have requires_grad False" if parameters else "it has none"
        raise ModelError(f"has no parameter to train: {what}")


def require_cpu(network: torch.nn.Module) -> None:
    """Raise for a network with tensors elsewhere."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.device.type != "cpu":
            raise ModelError(
                f"has its {name} on {tensor.device}; leave it on the CPU, from which training "
                "brings it to its device (training.device)"
            )


def require_running_averages(network: torch.nn.Module) -> None:
    """Raise where a layer averages over the batch in eval mode too."""
    norms = torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d
    for name, layer in network.named_modules():
        if isinstance(layer, norms) and layer.running_mean is None:
            kind = type(layer).__name__
            raise ModelError(
                f"has {kind}(track_running_stats=False) as its {name or 'only layer'}, which "
                "averages over the batch when it scores too: a served score would depend on other "
                f"clients' events. Write {kind}({layer.num_features}), which keeps averages for "
                "scoring, or torch.nn.LayerNorm"
            )


def require_fixed(
    network: torch.nn.Module, names: set[str], before: dict[str, torch.Tensor], num_ranks: int
) -> None:
    """Raise where the first call makes or sets parameters in a way that training cannot follow."""
    now = dict(network.named_parameters())
    new = sorted(now.keys() - names)
    if new:
        raise ModelError(
            f"makes its parameters {', '.join(new[:SHOWN])} when it is first called, too late for "
            "the optimiser: make them in __init__, or use torch's lazy modules"
        )
    changed = [name for name, value in before.items() if not are_equal(now[name], value)]
    if changed and num_ranks > 1:
        raise ModelError(
            f"sets its parameters {', '.join(changed[:SHOWN])} by the first events that it sees, "
            f"which differ between the {num_ranks} ranks; train with training.ranks: 1"
        )


def require_gradients(network: torch.nn.Module, num_ranks: int) -> None:
    """Raise for parameters that a step does not reach, where several ranks train."""
    learned = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    unused = [name for name, p in learned if p.grad is None]
    if len(unused) == len(learned):
        raise ModelError("gives numbers that do not depend on any of its parameters")
    if unused and num_ranks > 1:
        raise ModelError(
            f"does not use its parameters {', '.join(unused[:SHOWN])}, which several ranks cannot "
            "train; leave them out, or train with training.ranks: 1"
        )


def are_equal(value: Any, other: Any) -> bool:
    """True for equal values; NaN equals NaN."""
    if not isinstance(value, torch.Tensor) or not isinstance(other, torch.Tensor):
        return bool(value == other)
    same = value.shape == other.shape and value.dtype == other.dtype
    return same and bool(((value == other) | (value.isnan() & other.isnan())).all())


def learned(network: torch.nn.Module, freeze: Sequence[str]) -> list[torch.nn.Parameter]:
    """The parameters that are learned, once those with a name of some patterns are frozen.

    Raises
    ------
    ModelError
        When a pattern matches no parameter, or nothing is left to learn.
    """
    parameters = dict(network.named_parameters())
    for pattern in freeze:
        names = [name for name in parameters if fnmatchcase(name, pattern)]
        if not names:
            raise ModelError(
                f"{FREEZE}: no parameter's name matches {pattern!r}"
                f"{did_you_mean(pattern, parameters)}; there are {', '.join(parameters)}",
                key=FREEZE,
            )
        for name in names:
            parameters[name].requires_grad_(False)
    left = [parameter for parameter in parameters.values() if parameter.requires_grad]
    if freeze and not left:
        raise ModelError(f"{FREEZE} leaves no parameter to learn", key=FREEZE)
    return left


def sets_seed(call: Any) -> bool:
    """True when the random numbers behind a call do not depend on those before."""
    states = []
    with torch.no_grad():
        for seed in (1, 2):
            torch.manual_seed(seed)
            call()
            states.append(torch.random.get_rng_state())
    return torch.equal(*states)
