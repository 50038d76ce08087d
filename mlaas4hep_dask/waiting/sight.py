"""Whether workers see a folder of this machine."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlaas4hep_dask.waiting.handle import ClusterHandle


def readers_that_see(cluster: ClusterHandle, folder: Path) -> dict[str, bool]:
    """By address: whether a reader sees a folder and may write to it; those that answer in time.

    A file is made there for that, for a moment: a folder of the same name may be another.

    Raises
    ------
    OSError
        When it cannot be written from here.
    """
    mark = folder / f".seen-{uuid.uuid4().hex}"
    mark.touch()
    try:
        readers = list(cluster.alive("readers"))
        return cluster.on_workers(_sees, str(mark), workers=readers, what=f"a look at {folder}")
    finally:
        mark.unlink(missing_ok=True)


def _sees(mark: str) -> bool:
    path = Path(mark)
    return path.exists() and os.access(path.parent, os.W_OK | os.X_OK)
