"""Writes, opens and verifies bundles: a model with all that is needed to feed it raw events."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask import __version__
from mlaas4hep_dask.bundle.archive import MANIFEST, naming, require_bounded, unpack
from mlaas4hep_dask.bundle.golden import GOLDEN, Golden
from mlaas4hep_dask.bundle.members import open_member, read_member, require_unaltered, strict_json
from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.errors import BundleError, EncodeError, ExpressionError, SpecsError, writing
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.objective import BINARY, Objective, objective_from_json
from mlaas4hep_dask.specs import Specs

if TYPE_CHECKING:
    from mlaas4hep_dask.derive.recipe import Recipe

logger = logging.getLogger(__name__)

FORMAT = "mlaas4hep_dask/bundle"
VERSION = 1
SPECS = "specs.json"
MODEL = "model.pt"
CARD = "model_card.md"
LIBRARIES = ("torch", "numpy", "awkward", "uproot", "dask")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files match their checksums.

    Parameters
    ----------
    path : Path
        Folder with the files.
    manifest : mapping
        Content of manifest.json.
    specs : Specs
        Specs of the data that the model was trained on.
    encoding : Encoding
        How prepared events become the model's input.
    recipe : Recipe or None
        Derived branches and object cuts that prepare raw events; None when there are none.
    objective : Objective
        What the scores mean.
    source : Path
        What was opened: the folder, or an archive of it.
    """

    path: Path
    manifest: Mapping[str, Any]
    specs: Specs
    encoding: Encoding
    recipe: Recipe | None = None
    objective: Objective = BINARY
    source: Path = Path()

    @property
    def reads(self) -> tuple[Branch, ...]:
        """The branches of raw events that the model needs."""
        if self.recipe is None:
            return self.encoding.reads
        return _reads(self.recipe, self.encoding)

    def prepared(self, events: Events) -> Events:
        """Raw events with derived branches and without the objects that were cut, to be encoded.

        Raises
        ------
        ExpressionError
            When a null made numbers of the conditions or flags that an expression needs.
        """
        if self.recipe is None:
            return events
        keep = [branch.name for branch in self.encoding.reads]
        return self.recipe.prepare(events, keep, select=False).events

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.manifest["name"])

    @property
    def model_path(self) -> Path:
        """The TorchScript file: raw padded columns in, scores out."""
        return self.path / MODEL

    def golden(self) -> Golden | None:
        """The golden events; None, which is noted, in a bundle of an earlier version.

        Raises
        ------
        BundleError
            When the file does not hold any.
        """
        if GOLDEN in self.manifest["files"]:
            with naming(self.source, self.path):
                return Golden.read(self.path)
        logger.warning(
            "the bundle of model %r has no golden events, as those of earlier versions: whether "
            "it gives the scores of its training cannot be told",
            self.name,
        )
        return None


def draft_bundle(
    name: str,
    *,
    specs: Specs,
    encode: Mapping[str, Any],
    recipe: Recipe | None = None,
    objective: Objective = BINARY,
) -> Bundle:
    """A bundle that no folder holds yet, to score events as it will; as in `write_bundle`."""
    encoding = Encoding.from_specs(specs, **encode)
    recipe = recipe.narrowed([branch.name for branch in encoding.reads]) if recipe else None
    return Bundle(Path(), {"name": name}, specs, encoding, recipe, objective)


def write_bundle(
    path: Path,
    *,
    name: str,
    model: bytes,
    specs: Specs,
    encode: Mapping[str, Any],
    metrics: Mapping[str, Any],
    data: Mapping[str, Any],
    card: str,
    recipe: Recipe | None = None,
    example: Mapping[str, Any] | None = None,
    objective: Objective = BINARY,
    golden: Golden | None = None,
    others: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Write a bundle folder, whole or not at all, and open it.

    Parameters
    ----------
    path : Path
        Folder to make; an earlier bundle there is replaced.
    name : str
        Name of the model, as the server's URL has it.
    model : bytes
        A TorchScript file.
    specs : Specs
        Specs of the training data.
    encode : mapping
        Options of `Encoding.from_specs` that the model was trained with.
    metrics, data : mapping
        Performance and provenance, JSON values.
    card : str
        Text of model_card.md.
    recipe : Recipe, optional
        Derived branches and object cuts, which the server applies, and the selection, which it
        does not.
    example : mapping, optional
        A raw event that was selected, as a client would send it.
    objective : Objective
        What the scores mean.
    golden : Golden, optional
        Raw events with their scores, which everybody who loads the model compares.
    others : mapping of str to bytes, optional
        The model in other formats, by the names of their files.

    Raises
    ------
    WriteError
        When the system cannot write it, as on a full disk.
    """
    draft = draft_bundle(name, specs=specs, encode=encode, recipe=recipe, objective=objective)
    encoding, recipe = draft.encoding, draft.recipe
    contents = {SPECS: specs.to_json().encode(), MODEL: model, CARD: card.encode()}
    contents |= others or {}
    if golden is not None:
        contents[GOLDEN] = golden.to_json()
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": __version__,
        "libraries": _library_versions(),
        "files": {
            member: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for member, content in contents.items()
        },
        "encode": _with_rest(encode, "auto", specs.branches),
        "input": {
            "branches": [
                {
                    "name": branch.name,
                    "kind": branch.kind,
                    "dtype": branch.dtype,
                    "collection": branch.collection,
                    "unit": branch.unit,
                }
                for branch in draft.reads
            ],
            "columns": encoding.columns(),
            "shape": list(encoding.row_shape),
        },
        **({} if recipe is None else {"recipe": recipe.to_json(), "example": example}),
        "output": objective.as_json(),
        "metrics": dict(metrics),
        "data": dict(data),
    }
    text = json.dumps(manifest, indent=1, allow_nan=False) + "\n"
    with writing(path):
        _write(path, {**contents, MANIFEST: text.encode()})
    return open_bundle(path)


def _write(path: Path, contents: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for member, content in contents.items():
            (part / member).write_bytes(content)
        part.chmod(0o755)
        earlier = None
        if path.exists():
            earlier = part.with_suffix(".earlier")
            path.rename(earlier)
        part.rename(path)
        if earlier is not None:
            shutil.rmtree(earlier)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _library_versions() -> dict[str, str]:
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions


def open_bundle(path: str | Path, *, unpack_to: Path | None = None) -> Bundle:
    """The verified bundle in a folder, or in a tar.gz that is unpacked to ``unpack_to``.

    Raises
    ------
    BundleError
        When a file is missing, has another checksum or another format, or when an archive holds
        anything but plain files.
    """
    source = Path(path)
    folder = _unpacked(source, unpack_to) if source.is_file() else source
    if not folder.is_dir():
        raise BundleError.at(source, "no such bundle (a folder or a .tar.gz)")
    with naming(source, folder):
        return replace(_opened(folder), source=source)


def _opened(path: Path) -> Bundle:
    """The verified bundle in a folder."""
    manifest = _read_manifest(path)
    require_unaltered(path, manifest["files"])
    _require_bounded_model(path)
    specs = _read_specs(path)
    try:
        encoding = Encoding.from_specs(specs, **_encode_options(manifest["encode"]))
    except (EncodeError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise BundleError.at(path, f"encode options do not fit ({error})") from error
    try:
        objective = objective_from_json(manifest.get("output", {}))
    except (EncodeError, TypeError, AttributeError) as error:
        text = f"the section 'output' does not fit ({error})"
        raise BundleError.at(path, text, member=MANIFEST) from error
    columns = manifest["input"].get("columns")
    # Their number first: the specs may speak of more columns than memory has room for.
    has_as_many = isinstance(columns, list) and len(columns) == encoding.row_shape[0]
    if not has_as_many or encoding.columns() != columns:
        raise BundleError.at(
            path, f"the columns in {MANIFEST} are not those that {SPECS} gives", member=MANIFEST
        )
    recipe = _recipe(path, manifest, encoding)
    return Bundle(path, manifest, specs, encoding, recipe, objective)


def _reads(recipe: Recipe, encoding: Encoding) -> tuple[Branch, ...]:
    keep = [branch.name for branch in encoding.reads]
    return tuple(recipe.branches[name] for name in recipe.steps(keep, select=False).read)


def _recipe(path: Path, manifest: Mapping[str, Any], encoding: Encoding) -> Recipe | None:
    texts = manifest.get("recipe")
    if texts is None:
        return None
    from mlaas4hep_dask.derive.recipe import Recipe  # and its parser, which few servers need

    try:
        branches = [Branch(**branch) for branch in manifest["input"]["branches"]]
        recipe = Recipe.of(
            {branch.name: branch for branch in branches},
            derive=texts["derive"],
            objects=texts["objects"],
            early=texts.get("early", ()),
            counters={str(n): str(each) for n, each in texts.get("counters", {}).items()},
        )
        outcome = {branch.name: recipe.branches[branch.name] for branch in encoding.reads}
    except (ExpressionError, TypeError, KeyError, AttributeError) as error:
        raise BundleError.at(path, f"the recipe does not fit ({error})") from error
    for branch in encoding.reads:
        if not outcome[branch.name].same_shape(branch):
            raise BundleError.at(
                path,
                f"the recipe makes {branch.name!r} {outcome[branch.name].described()}, "
                f"{SPECS} has it {branch.described()}",
            )
    return recipe


def _unpacked(archive: Path, folder: Path | None) -> Path:
    if folder is None:
        raise BundleError.at(archive, "give a folder to unpack it to")
    unpack(archive, folder)
    return folder


def _require_bounded_model(path: Path) -> None:
    with open_member(path, MODEL) as file:
        try:
            require_bounded(file, size=os.fstat(file.fileno()).st_size)
        except ValueError as error:
            raise BundleError.at(path, f"{MODEL}: {error}", member=MODEL) from error


def _read_specs(path: Path) -> Specs:
    content = read_member(path, SPECS)
    try:
        strict_json(content)
        return Specs.from_json(content.decode(), source=str(path / SPECS))
    except (SpecsError, ValueError, OverflowError) as error:
        raise BundleError.at(path, f"{SPECS} cannot be read ({error})", member=SPECS) from error


def _encode_options(record: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `Encoding.from_specs`; the first bundles had one ``max_width``, or null."""
    options = dict(record)
    if "max_width" in options:
        options["width"] = options.pop("max_width") or "max"
    # Earlier versions named no normalisation for branches that they scaled by the extremes.
    return _with_rest(options, "minmax")


def _with_rest(
    encode: Mapping[str, Any], rest: str, branches: Iterable[str] = ("*",)
) -> dict[str, Any]:
    """The options, with a normalisation for those of the branches for which they name none."""
    rules = encode.get("normalisation", rest)
    if isinstance(rules, list | dict):
        rules = [*rules] if isinstance(rules, list) else [rules]
        if not {name for rule in rules for name in rule}.issuperset(branches):
            rules.append({"*": rest})
    return {**encode, "normalisation": rules}


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = strict_json(read_member(path, MANIFEST))
    except (BundleError, ValueError) as error:
        inner = path / "bundle"  # of a run directory
        near = f"; did you mean {str(inner)!r}?" if (inner / MANIFEST).is_file() else ""
        raise BundleError.at(
            path, f"{MANIFEST} cannot be read ({error}){near}", member=MANIFEST
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError.at(path, f"{MANIFEST} is not that of a bundle")
    if manifest.get("version") != VERSION:
        raise BundleError.at(
            path, f"bundle version {manifest.get('version')!r}; this version reads {VERSION}"
        )
    files = manifest.get("files")
    needed = {SPECS, MODEL}
    if not isinstance(files, dict) or not needed <= files.keys():
        raise BundleError.at(path, f"{MANIFEST} does not list {sorted(needed)}")
    for key, kind in (("name", str), ("encode", dict), ("input", dict)):
        if not isinstance(manifest.get(key), kind):
            raise BundleError.at(path, f"{MANIFEST} has no {key!r}", member=MANIFEST)
    return manifest
