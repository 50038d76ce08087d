"""Which installed modules a process has to have to read files."""

from __future__ import annotations

from collections.abc import Iterable

from mlaas4hep_dask.formats import TABLES
from mlaas4hep_dask.reader.access import S3, XROOTD, Access, is_remote
from mlaas4hep_dask.usercode import Need

# What every file is read with: uproot and the decoders of its baskets.
ALWAYS = (
    *("numpy", "awkward", "uproot", "numba", "fsspec"),
    *("cramjam", "deflate", "xxhash", "zstandard"),
)
OF_SCHEME = {
    **dict.fromkeys(XROOTD, ("fsspec_xrootd", "XRootD")),
    **dict.fromkeys(S3, ("s3fs",)),
    **dict.fromkeys(("http", "https"), ("aiohttp",)),
}
OF_TABLES = ("pyarrow",)


def reading_needs(files: Iterable[str], access: Access) -> list[Need]:
    """What reading some files needs, for each kind of them."""
    schemes: set[str] = set()
    formats: set[str] = set()
    for file in files:
        formats.add(access.format_of(file))
        if is_remote(file):
            schemes.update(where.partition("://")[0] for where in access.locations(file))
    needs = [Need.of("reading files", ALWAYS)]
    needs += [
        Need.of(f"reading {scheme}:// files", OF_SCHEME[scheme])
        for scheme in sorted(schemes & OF_SCHEME.keys())
    ]
    needs += [
        Need.of(f"reading {TABLES[name].title} files", OF_TABLES)
        for name in sorted(formats & TABLES.keys())
    ]
    return needs
