"""Report: pictures and tables of a run, from its records alone."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep_dask.report.card import model_card
    from mlaas4hep_dask.report.records import render

__all__ = ["model_card", "render"]


def __getattr__(name: str) -> Any:
    if name == "render":
        from mlaas4hep_dask.report.records import render

        return render
    if name == "model_card":
        from mlaas4hep_dask.report.card import model_card

        return model_card
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
