"""The keys derive, objects and select: quantities and conditions over branches, as text."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from mlaas4hep_dask.config.fields import Text

_CONDITIONS_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}},
    ],
    "examples": ["nJet >= 4 & MET_pt > 100", ["nJet >= 4", "MET_pt > 100"]],
}


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Expressions = dict[Text, Text]
Conditions = Annotated[
    list[Text],
    BeforeValidator(_as_list),
    WithJsonSchema(_CONDITIONS_SCHEMA, mode="validation"),
]
