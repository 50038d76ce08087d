"""What a run is known by stands in the reference."""

import re

from paths import REPOSITORY

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.run.facts import keys_of

PAGE = REPOSITORY / "docs" / "reference" / "run-directory.md"
CONFIG = Config.from_mapping(
    {
        "name": "t",
        "samples": [
            {"name": "a", "label": 1, "files": "a.root"},
            {"name": "b", "label": 0, "files": "b.root"},
        ],
    }
)


def test_the_keys_that_may_differ_are_those_of_the_reference():
    whole, facts = CONFIG.model_dump(mode="json"), keys_of(CONFIG)
    expected = {"at the top": set(whole) - set(facts)}
    for section, keys in whole.items():
        if (
            isinstance(keys, dict)
            and section in facts
            and (less := set(keys) - set(facts[section]))
        ):
            expected[f"`{section}`"] = less
    (table,) = re.findall(r"keys that may differ \|\n\|.*?\n(.*?)\n\n", PAGE.read_text(), re.DOTALL)
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert {row: set(re.findall(r"`(\w+)`", keys)) for row, keys in rows} == expected
