"""Report: pictures and tables of a run, from its records alone."""

from typing import TYPE_CHECKING

from mlaas4hep_dask import on_first_use

if TYPE_CHECKING:
    from mlaas4hep_dask.report.card import model_card
    from mlaas4hep_dask.report.records import render

__all__ = ["model_card", "render"]

__getattr__ = on_first_use(__name__, model_card="card", render="records")
