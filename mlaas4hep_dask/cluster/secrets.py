"""Removes certificates, keys and copies of credentials, which are of no use any more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

SECRETS = ("*.pem", "proxy*", "token*")  # all that this package writes into such a folder


def remove_secrets(folder: Path) -> None:
    """Remove them from a folder, and the folder if nothing else is in it."""
    for pattern in SECRETS:
        for file in folder.glob(pattern):
            with suppress(OSError):
                file.unlink()
    with suppress(OSError):
        folder.rmdir()
