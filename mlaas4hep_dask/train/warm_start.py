"""Finds the parameters from which a network starts, in a bundle or a checkpoint."""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.bundle import Bundle, open_bundle
from mlaas4hep_dask.errors import BundleError, ModelError, did_you_mean

if TYPE_CHECKING:
    import torch

KEY = "training.warm_start"
MANIFEST = "manifest.json"
INNER = "network."  # the module of a bundle that holds what a user has made
COUNT = "n_averaged"  # beside the network in torch's AveragedModel
SHOWN = 3  # names of parameters


@dataclass(frozen=True)
class WarmStart:
    """Parameters in a form that reaches workers without the user's folder.

    Parameters
    ----------
    path : str
        The bundle or checkpoint, as the user wrote it.
    content : bytes
        A TorchScript file, or a checkpoint.
    patterns : tuple of str
        Of the names of parameters and buffers that are taken.
    columns : tuple of str, optional
        The columns that the network of a bundle was trained on.
    """

    path: str
    content: bytes = field(repr=False)
    patterns: tuple[str, ...] = ("*",)
    columns: tuple[str, ...] | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """The sha256 of the content, in hex."""
        return hashlib.sha256(self.content).hexdigest()

    def fill(self, network: torch.nn.Module) -> None:
        """Give a network these parameters and buffers.

        Raises
        ------
        ModelError
            When there are none, or they do not fit; names the first that do not.
        """
        own = network.state_dict()
        wanted = [name for name in own if any(fnmatchcase(name, each) for each in self.patterns)]
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in own):
                near = did_you_mean(pattern, own)
                raise self._error(f"no parameter's name matches {pattern!r}{near}")
        tensors = self._tensors()
        prefix = self._prefix(tensors, wanted, own)
        found = {
            name[len(prefix) :]: each for name, each in tensors.items() if name.startswith(prefix)
        }
        faults = [fault for name in wanted if (fault := _fault(name, own[name], found.get(name)))]
        if tuple(self.patterns) == ("*",):
            # TorchScript keeps the buffers too that a network leaves out of its checkpoints.
            known = {*own, *(name for name, _ in network.named_buffers(remove_duplicate=False))}
            others = [name for name in found if name not in known]
            beside = {COUNT} if prefix == "module." else set()
            others += [
                name
                for name in self._of_users(tensors)
                if not name.startswith(prefix) and name not in beside
            ]
            faults += [f"{name} is there and not here" for name in others]
        if faults:
            more = len(faults) - SHOWN
            rest = f" and {more} more" if more > 0 else ""
            raise self._error(
                f"the parameters of {self.path} do not fit: {'; '.join(faults[:SHOWN])}{rest}; "
                "warm_start.parameters may name those to take"
            )
        network.load_state_dict({**own, **{name: found[name] for name in wanted}})

    def difference(self, columns: Sequence[str]) -> str:
        """How the columns differ from those that the network has learned; empty if they do not."""
        if self.columns is None or list(self.columns) == list(columns):
            return ""
        pairs = enumerate(zip(columns, self.columns, strict=False))
        first = next(((n, *pair) for n, pair in pairs if pair[0] != pair[1]), None)
        where = f"there are {len(self.columns)} there and {len(columns)} here"
        if first is not None:
            number, here, there = first
            where = f"column {number} is {there!r} there and {here!r} here"
        return f"starts from {self.path}, which has learned other columns: {where}"

    def _tensors(self) -> dict[str, torch.Tensor]:
        import torch

        try:
            if _is_script(self.content):
                with warnings.catch_warnings():
                    # torch.jit is deprecated in favour of torch.export; bundles are TorchScript.
                    for kind in (DeprecationWarning, FutureWarning):
                        warnings.simplefilter("ignore", kind)
                    script: Any = torch.jit.load(  # type: ignore[no-untyped-call]
                        io.BytesIO(self.content), map_location="cpu"
                    )
                return dict(script.state_dict())
            state = torch.load(io.BytesIO(self.content), map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds
            reason = str(error).strip().partition("\n")[0]
            raise self._error(f"{self.path} holds no parameters ({reason})") from error
        state = state if isinstance(state, dict) else {}
        inner = state.get("network")  # of a checkpoint; a network may have a parameter of that name
        state = inner if isinstance(inner, dict) else state
        tensors = {name: each for name, each in state.items() if isinstance(each, torch.Tensor)}
        if not tensors:
            raise self._error(f"{self.path} holds no parameters")
        return tensors

    def _of_users(self, tensors: Iterable[str]) -> list[str]:
        """Names of a user's network: a bundle has its own, such as those of a normalisation."""
        is_script = _is_script(self.content)
        return [name for name in tensors if not is_script or name.startswith(INNER)]

    def _prefix(self, tensors: Iterable[str], wanted: Sequence[str], own: Iterable[str]) -> str:
        """What stands before the names of a network that is part of another.

        A bundle's TorchScript has its network between normalisation and activation.
        """
        there, own = set(tensors), list(own)
        found: dict[tuple[int, int], list[str]] = {}
        for prefix in {name.removesuffix(each) for name in there for each in own}:
            if not prefix or prefix.endswith("."):
                number = sum(f"{prefix}{each}" in there for each in wanted)
                of_all = sum(f"{prefix}{each}" in there for each in own)
                found.setdefault((number, of_all), []).append(prefix)
        best = sorted(found[max(found)]) if found else [""]
        if len(best) > 1 and best[0]:  # else they are there under their own names
            names = " and ".join(repr(each.rstrip(".")) for each in best[:2])
            raise self._error(
                f"{self.path} has these parameters more than once, such as in {names}; write the "
                "state_dict of one of them to a file"
            )
        return best[0]

    def _error(self, text: str) -> ModelError:
        return ModelError(f"{KEY}: {text}", key=KEY)


def find_warm_start(
    path: str, patterns: Sequence[str], *, resolve: Callable[[str], Path], where: str
) -> WarmStart:
    """The parameters that a path names: a bundle, its archive, a run's folder or a checkpoint.

    Of a run's folder they are those of its bundle, or of its last checkpoint where it is not
    complete.

    Raises
    ------
    ModelError
        When there are none.
    """
    place = resolve(path)
    try:
        if place.is_file() and zipfile.is_zipfile(place):
            return WarmStart(path, place.read_bytes(), tuple(patterns))
        if place.is_file():
            with tempfile.TemporaryDirectory() as made:
                bundle = open_bundle(place, unpack_to=Path(made) / "bundle")
                return _of_bundle(path, bundle, patterns)
        for folder in (place, place / "bundle"):
            if (folder / MANIFEST).is_file():
                return _of_bundle(path, open_bundle(folder), patterns)
        checkpoint = _last_checkpoint(place / "checkpoints")
        if checkpoint is not None:
            return WarmStart(path, checkpoint.read_bytes(), tuple(patterns))
    except (BundleError, OSError) as error:
        raise ModelError(f"{where}: {KEY}: {error}", path=path) from error
    what = "has neither a bundle nor a checkpoint" if place.is_dir() else "does not exist"
    raise ModelError(
        f"{where}: {KEY}: {place} {what}; expected a bundle, a run's folder or a checkpoint",
        path=path,
    )


def _of_bundle(path: str, bundle: Bundle, patterns: Sequence[str]) -> WarmStart:
    columns = tuple(bundle.encoding.columns())
    return WarmStart(path, bundle.model_path.read_bytes(), tuple(patterns), columns)


def _last_checkpoint(folder: Path) -> Path | None:
    numbered = {
        int(found[1]): file
        for file in folder.glob("epoch-*.pt")
        if (found := re.fullmatch(r"epoch-(\d+)\.pt", file.name))
    }
    return numbered[max(numbered)] if numbered else None


def _is_script(content: bytes) -> bool:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return False
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return any("/code/" in name for name in archive.namelist())


def _fault(name: str, own: torch.Tensor, other: torch.Tensor | None) -> str:
    if other is None:
        return f"{name} is not there"
    if other.shape != own.shape:
        return f"{name} is {tuple(other.shape)} there and {tuple(own.shape)} here"
    return ""
