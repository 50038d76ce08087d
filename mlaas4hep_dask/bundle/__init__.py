"""Bundle: the on-disk contract between training and serving."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep_dask.bundle.bundle import Bundle, draft_bundle, open_bundle, write_bundle

__all__ = ["Bundle", "draft_bundle", "open_bundle", "write_bundle"]


def __getattr__(name: str) -> Any:
    # Found on first use, so that the command line can print a line before numba is imported.
    if name in __all__:
        from mlaas4hep_dask.bundle import bundle

        return getattr(bundle, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
