"""Bundle: the on-disk contract between training and serving."""

from typing import TYPE_CHECKING

from mlaas4hep_dask import on_first_use

if TYPE_CHECKING:
    from mlaas4hep_dask.bundle.bundle import Bundle, draft_bundle, open_bundle, write_bundle

__all__ = ["Bundle", "draft_bundle", "open_bundle", "write_bundle"]

__getattr__ = on_first_use(
    __name__, Bundle="bundle", draft_bundle="bundle", open_bundle="bundle", write_bundle="bundle"
)
