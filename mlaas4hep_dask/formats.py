"""Formats: those of data files, by name and suffix, and those of networks in bundles.

Each of data files but ROOT is read by a module of its name in `mlaas4hep_dask.reader.formats`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Format(NamedTuple):
    """A format of data files.

    ``title`` is its name in sentences, ``suffixes`` are those of its files, in lower case. A text
    may be compressed too, see `COMPRESSIONS`, and does not tell the types of its columns.
    """

    title: str
    suffixes: tuple[str, ...]
    is_text: bool = False


ROOT = "root"  # of files whose suffix tells no other
FORMATS = {
    ROOT: Format("ROOT", (".root",)),
    "parquet": Format("Parquet", (".parquet", ".pq")),
    "csv": Format("CSV", (".csv", ".tsv"), is_text=True),
    "jsonl": Format("JSON lines", (".jsonl", ".ndjson"), is_text=True),
}
TABLES = {name: format_ for name, format_ in FORMATS.items() if name != ROOT}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}  # of texts, by their last suffix

RootFormat = Literal["auto", "ttree", "rntuple"]  # what a ROOT file that is written holds
OnBadFile = Literal["error", "skip"]  # what happens when a file cannot be read
ExportFormat = Literal["torchscript", "onnx", "torch_export"]
# Of a network beside TorchScript, which every bundle has: by the word of export.formats, the file.
EXPORTS = {"onnx": "model.onnx", "torch_export": "model.pt2"}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # of the extra onnx
# Schemas of coffea's NanoEvents: by the word of function.events, the class.
SCHEMAS = {
    "base": "BaseSchema",
    "nanoaod": "NanoAODSchema",
    "pfnano": "PFNanoAODSchema",
    "scoutingnano": "ScoutingNanoAODSchema",
    "delphes": "DelphesSchema",
    "physlite": "PHYSLITESchema",
    "treemaker": "TreeMakerSchema",
    "edm4hep": "EDM4HEPSchema",
    "fcc": "FCCSchema",
    "fcc-edm4hep1": "FCCSchema_edm4hep1",
}


def format_of(suffix: str) -> str:
    """The name of the format of files with a suffix."""
    return next((name for name, each in TABLES.items() if suffix in each.suffixes), ROOT)
