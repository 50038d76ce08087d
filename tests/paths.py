"""Where things lie that tests use."""

from pathlib import Path

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent
DATA = TESTS / "data"
FAULTS = DATA / "faults"  # odd files, with a manifest
TUTORIAL = REPOSITORY / "workflows" / "heptutorial"  # CMS open data and a configuration
