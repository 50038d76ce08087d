"""Bundle: the on-disk contract between training and serving."""

from mlaas4hep_dask.bundle.bundle import Bundle, draft_bundle, open_bundle, write_bundle

__all__ = ["Bundle", "draft_bundle", "open_bundle", "write_bundle"]
