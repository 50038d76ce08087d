"""The run directory: everything a run made, each file whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from mlaas4hep_dask.errors import ConfigError, writing
from mlaas4hep_dask.journal.read import STARTING
from mlaas4hep_dask.places import BLOCKS
from mlaas4hep_dask.run.changes import changes, digest_of

STATE = "run.json"
LOCK = ".lock"
PASSING = (LOCK, STARTING)  # what a process leaves that has not begun to write results
EPOCHS = "checkpoints/epochs.json"
UNDER_WAY = "checkpoints/under-way.json"


class RunDirectory:
    """A folder that one run at a time writes to; use it in a ``with`` statement.

    Parameters
    ----------
    path : Path
        The folder.

    Attributes
    ----------
    resumed : bool
        True when an interrupted run is taken up again.
    moved_to : Path or None
        Where an earlier run was moved.
    changed : str
        Why an interrupted run was not taken up; empty if there was none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = {}
        self.resumed = False
        self.moved_to: Path | None = None
        self.changed = ""
        self._lock: int | None = None

    def __enter__(self) -> Self:
        check_output(self.path)
        self._take_lock()
        (self.path / STARTING).unlink(missing_ok=True)  # of a process that ended too early
        return self

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Take up what is there, or make room for a new run.

        Of an earlier run there, one that was interrupted and has the same facts is taken up again;
        any other is moved aside to ``path.1``, ``path.2``, ….

        Parameters
        ----------
        facts : mapping of str to JSON value
            What decides the result, as far as it is known.
        """
        self.facts = dict(facts)
        state = _state(self.path)
        is_there = any(entry.name not in PASSING for entry in self.path.iterdir())
        if state.get("status") == "running":
            earlier = state.get("facts", {})
            self.changed = changes(self.facts, {key: earlier.get(key) for key in self.facts})
            if not earlier:
                self.changed = "it was made by an earlier version"
            if not self.changed:
                self.resumed = any((self.path / name).exists() for name in (EPOCHS, UNDER_WAY))
                self.facts = {**earlier, **self.facts}
        if is_there and (self.changed or state.get("status") != "running"):
            self._move_aside()
        self._write_state("running")

    def settle(self, facts: Mapping[str, Any]) -> bool:
        """Add what is known by now of what decides the result; False if it fits no earlier run.

        An interrupted run that was to be taken up is moved aside then.
        """
        if self.resumed:
            earlier = {key: self.facts.get(key) for key in facts}
            self.changed = changes(facts, earlier)
        self.facts |= facts
        if self.changed and self.resumed:
            self.resumed = False
            self._move_aside()
            self._write_state("running")
            return False
        self._write_state("running")
        return True

    def complete(self) -> None:
        """Write down that the run is complete."""
        self._write_state("complete")
        _remove_blocks(self.path)

    def __exit__(self, *_: object) -> None:
        self._drop_lock()

    def _take_lock(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(
                f"output {self.path} cannot be written ({error.strerror})", key="output"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ConfigError(
                f"another run is writing to {self.path}; choose another output", key="output"
            ) from error

    def _drop_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _move_aside(self) -> None:
        number = 1
        while (target := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        self._drop_lock()
        self.path.rename(target)
        _remove_blocks(target)  # no run will be taken up there
        self.moved_to = target
        self._take_lock()

    def _write_state(self, status: str) -> None:
        state = {"status": status, "fingerprint": digest_of(self.facts), "facts": self.facts}
        self.write_json(STATE, state)

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file, whole or not at all; its path.

        Raises
        ------
        WriteError
            When the system cannot, as on a full disk.
        """
        path = self.path / name
        with writing(path):
            return self._write(path, content)

    def _write(self, path: Path, content: str | bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(part).chmod(0o644)
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file, whole or not at all; its path."""
        return self.write(name, json.dumps(value, indent=1, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:
        """The content of a JSON file of this run."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))


def check_output(path: Path) -> None:
    """Raise a ConfigError unless a run may write to ``path``.

    The folder is new, empty, or holds an earlier run, which will be moved aside: a folder with
    anything else in it is somebody's own.
    """
    exists = True
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        exists = False
    except OSError as error:  # such as a name that is too long, of which exists() says no more
        raise ConfigError(
            f"output {path} cannot be written: {error.strerror or error}", key="output"
        ) from error
    if exists and not path.is_dir():
        raise ConfigError(f"output {path} is a file, expected a folder", key="output")
    if path.is_dir():
        others = sorted(entry.name for entry in path.iterdir() if entry.name not in PASSING)
        if others and not _state(path):
            raise ConfigError(
                f"output {path} holds {others[0]!r} and no run; choose a new or empty folder",
                key="output",
            )
    path = path.absolute()
    existing = next(each for each in (path, *path.parents) if each.exists())
    try:
        if not existing.is_dir():
            raise NotADirectoryError(f"{existing} is a file")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(f"{existing} is read-only")
        # What nothing tells before it is tried: a full disk, a quota.
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"0" * 4096)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"output {path} cannot be written: {reason}", key="output") from error


def _remove_blocks(path: Path) -> None:
    """Remove what only a run that goes on would need."""
    for folder in path.glob(f"{BLOCKS}-*"):
        if folder.is_symlink():  # they are elsewhere
            if (target := folder.readlink()).name == folder.name:
                shutil.rmtree(target, ignore_errors=True)
            folder.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _state(path: Path) -> dict[str, Any]:
    """The state of the run in a folder; empty when there is none."""
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and {"status", "fingerprint"} <= state.keys() else {}
