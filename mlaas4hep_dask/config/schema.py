"""The JSON schema of dataset.yaml, for editors."""

from __future__ import annotations

import copy
from typing import Any

from mlaas4hep_dask.config.root import Config

_EXAMPLE: dict[str, Any] = {
    "name": "ttH",
    "tree": "Events",
    "samples": [
        {"name": "ttH", "label": 1, "files": "data/ttH_*.root"},
        {"name": "QCD", "label": 0, "files": ["data/QCD_1.root", "data/QCD_2.root"]},
    ],
    "branches": {"include": ["Jet_*", "MET_pt"], "exclude": ["*_genPartIdx"]},
    "training": {"epochs": 5, "batch_size": 100},
}


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of dataset.yaml, for editors."""
    schema = Config.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "dataset.yaml of mlaas4hep_dask",
        "description": "Samples, branches, model and training of one run.",
        "examples": [copy.deepcopy(_EXAMPLE)],
    }
