"""The keys derive, objects and select: quantities and conditions over branches, as text."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator

from mlaas4hep_dask.config.fields import Text, listed, texts_schema

Expressions = dict[Text, Text]
Conditions = Annotated[
    list[Text],
    BeforeValidator(listed),
    texts_schema("nJet >= 4 & MET_pt > 100", ["nJet >= 4", "MET_pt > 100"]),
]
