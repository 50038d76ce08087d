"""ROOT itself, in a Python of its own: it writes files for tests, and opens those that we write."""

import subprocess

import pytest
from paths import REPOSITORY

PYTHON = REPOSITORY / ".venv-root" / "bin" / "python"


def run_in_root(script: str, *arguments: str) -> str:
    """What a script prints that runs with ``import ROOT``; skips the test without ROOT."""
    if not PYTHON.exists():
        pytest.skip("ROOT is missing: make root")
    command = [PYTHON, "-W", "ignore", "-c", f"import sys, ROOT\n{script}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout
