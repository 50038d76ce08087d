"""What differs between what two runs are known by, in words."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from mlaas4hep_dask.errors import listed

_DIGEST = re.compile(r"[0-9a-f]{64}")


def changes(now: Mapping[str, Any], earlier: Mapping[str, Any]) -> str:
    """What differs, in words; empty if nothing does."""
    new, old = _leaves(_plain(now)), _leaves(_plain(earlier))
    texts = [
        _change(name, new.get(name), old.get(name))
        for name in {**new, **old}
        if new.get(name) != old.get(name)
    ]
    return listed(texts, by="; ")


def _change(name: str, new: Any, old: Any) -> str:
    if old is None:
        return f"{name} is new"
    if new is None:
        return f"{name} is gone"
    if _DIGEST.fullmatch(str(new)) or _DIGEST.fullmatch(str(old)):
        return f"{name} changed"
    return f"{name} is {new}, was {old}"


def _leaves(value: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, each in value.items():
        name = f"{above}: {key}" if above else key
        if isinstance(each, Mapping) and each:
            leaves |= _leaves(each, name)
        else:
            leaves[name] = each
    return leaves


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value, default=str))


def digest_of(value: Any) -> str:
    """The sha256, in hex, of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
