"""How a network is called: with the rows alone, or with their missing mask too."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch

from mlaas4hep_dask.errors import ModelError

MASK = re.compile(r"(is_|x_|input_|key_|src_key_)?(missing|mask|pad|padding)(_mask)?")
NO_MASK = re.compile(r"w|y|t|(.*_)?(weights?|labels?|targets?|present|valid)(_mask)?")
CURE = "the second parameter is given the missing mask if it is called 'missing' or 'mask'"

Call = Callable[[torch.Tensor, torch.Tensor], Any]


def takes_missing(network: torch.nn.Module) -> bool:
    """True when the network is to be called with the missing mask as its second argument.

    It is when the second parameter of its ``forward`` is called ``missing``, ``mask``,
    ``padding`` or the like (`MASK`), and when it has no default: there is nothing else that it
    could be given. One with another name and a default keeps its default.

    Raises
    ------
    ModelError
        When ``forward`` needs something else than rows and their missing mask, or takes the mask
        at another place than the second.
    """
    positional, by_keyword = _parameters(network)
    names = ", ".join([*positional, *(["*", *by_keyword] if by_keyword else [])])
    second = next(iter([*positional][1:]), "")
    asks = MASK.fullmatch(second) is not None
    for name, is_needed in [*list(positional.items())[2:], *by_keyword.items()]:
        if is_needed:
            raise ModelError(
                f"needs {name!r} in forward({names}), but is given rows and their missing mask "
                f"alone; {CURE}, others need a default"
            )
        if MASK.fullmatch(name) and not asks:
            raise ModelError(
                f"takes {name!r} in forward({names}), not as the second parameter; {CURE}"
            )
    if not second or asks:  # one of `*args` takes whatever comes, as a module around another does
        return asks
    if positional[second] and NO_MASK.fullmatch(second):
        raise ModelError(
            f"needs {second!r} in forward({names}), which does not sound like the missing mask "
            f"(True where a value is padding or NaN), and nothing else can be given; {CURE}"
        )
    return positional[second]


def call_of(network: torch.nn.Module) -> Call:
    """The network as a function of rows and their missing mask."""
    if takes_missing(network):
        return network
    return lambda x, missing: network(x)  # noqa: ARG005  # called as the others are


def _parameters(network: torch.nn.Module) -> tuple[dict[str, bool], dict[str, bool]]:
    """What ``forward`` takes by position and by keyword alone, and whether it has to be given."""
    if isinstance(network, torch.jit.ScriptModule):
        forward: Any = network.forward
        arguments = forward.schema.arguments[1:]  # the first is the module itself
        return {each.name: not each.has_default_value() for each in arguments}, {}
    kinds = inspect.Parameter
    parameters = inspect.signature(network.forward).parameters.values()
    needed = {each.name: each.default is kinds.empty for each in parameters}
    by_position = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    positional = {each.name: needed[each.name] for each in parameters if each.kind in by_position}
    by_keyword = {
        each.name: needed[each.name] for each in parameters if each.kind is kinds.KEYWORD_ONLY
    }
    return positional, by_keyword
