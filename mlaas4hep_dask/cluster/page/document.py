"""The page as a document of bokeh, which draws what the board has."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bokeh.layouts import column, row
from bokeh.models.ranges import DataRange1d
from bokeh.models.sources import ColumnDataSource
from bokeh.models.widgets import DataTable, Div, TableColumn
from bokeh.palettes import Category10_10
from bokeh.plotting import figure
from distributed.dashboard.components.scheduler import env

from mlaas4hep_dask.cluster.page.board import Board, RunBoard

if TYPE_CHECKING:
    from bokeh.document import Document
    from distributed import Scheduler

INTERVAL = 1_000  # milliseconds between two looks at the board
PAGE = 2_000  # pixels: the largest width
HEIGHT = 200  # pixels of a table
WORDS = ("file", "reason", "sample")  # columns that need room
WIDE, NARROW = 300, 80  # pixels of columns, as shares of what there is

TABLES = {
    "stages": ("stage", "events", "of", "events/s", "seconds", "is"),
    "samples": ("sample", "files", "events", "pass 1", "pass 2", "share"),
    "waits": ("epoch", "rank", "waited for data", "share"),
    "jobs": ("group", "state", "jobs", "reason"),
    "lost_ranges": ("stage", "sample", "file", "entries", "events", "reason"),
    "retries": ("file", "attempts that failed"),
}
TITLES = {
    "stages": "Stages",
    "samples": "Samples: events that workers have gone through",
    "waits": "Ranks: time in which they waited for data",
    "jobs": "Jobs of the batch system",
    "lost_ranges": "Bad files: lost to the run",
    "retries": "Attempts to read that were repeated",
}


def make_document(
    board: Board, scheduler: Scheduler, extra: Mapping[str, Any], bokeh_document: Document
) -> None:
    """Fill a document of a browser, and keep it up to date.

    Parameters
    ----------
    board : Board
        What is shown.
    scheduler : Scheduler
        Not used: Dask gives it to all its pages.
    extra : mapping
        For the template that all pages of the dashboard share.
    bokeh_document : Document
        Of bokeh.
    """
    del scheduler
    page = _Page(board)
    bokeh_document.title = "mlaas4hep"
    bokeh_document.add_root(page.root)
    bokeh_document.template = env.get_template("simple.html")
    bokeh_document.template_variables.update(extra)
    bokeh_document.add_periodic_callback(page.update, INTERVAL)
    page.update()


class _Page:
    def __init__(self, board: Board) -> None:
        self._board = board
        self._head = Div(name="head", sizing_mode="stretch_width")
        self._sources = {
            name: ColumnDataSource({title: [] for title in titles}, name=name)
            for name, titles in TABLES.items()
        }
        self._rates = ColumnDataSource({"x": [], "y": [], "stage": [], "color": []}, name="rates")
        rates = figure(
            title="Events per second, by stage",
            x_axis_type="datetime",
            y_range=DataRange1d(start=0),
            height=260,
            sizing_mode="stretch_width",
            tools="pan,xwheel_zoom,reset",
        )
        rates.scatter("x", "y", size=5, color="color", legend_field="stage", source=self._rates)
        rates.legend.location = "top_left"
        tables = {name: _table(name, self._sources[name]) for name in TABLES}
        self.root = column(
            self._head,
            rates,
            row(tables["stages"], tables["samples"], sizing_mode="stretch_width"),
            row(tables["jobs"], tables["waits"], sizing_mode="stretch_width"),
            tables["lost_ranges"],
            tables["retries"],
            sizing_mode="stretch_width",
            max_width=PAGE,
        )

    def update(self) -> None:
        """Take over what the board has now."""
        board, run = self._board, self._board.latest or RunBoard()
        lines = [run.state() if board.latest else "no run has told anything yet"]
        lines += [f"WARNING: {caution}" for caution in run.cautions]
        lines += [f"no more jobs: {board.trouble}"] if board.trouble else []
        content = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
        if self._head.text != content:
            self._head.text = content
        colors = dict(zip(run.stages, Category10_10 * len(run.stages), strict=False))
        times, stages, rates = zip(*run.rates, strict=True) if run.rates else ((), (), ())
        self._fill(
            self._rates,
            {
                "x": [1e3 * each for each in times],
                "y": list(rates),
                "stage": list(stages),
                "color": [colors.get(stage, "gray") for stage in stages],
            },
        )
        for name, rows in _rows(board, run).items():
            cells = list(zip(*rows, strict=True)) or [()] * len(TABLES[name])
            data = {title: list(each) for title, each in zip(TABLES[name], cells, strict=True)}
            self._fill(self._sources[name], data)

    @staticmethod
    def _fill(source: ColumnDataSource, data: dict[str, list[Any]]) -> None:
        if dict(source.data) != data:
            source.data = data


def _rows(board: Board, run: RunBoard) -> dict[str, Sequence[Sequence[Any]]]:
    return {
        "stages": [
            (
                name,
                f"{stage.events:,}",
                f"{stage.total:,}" if stage.total else "",
                "" if stage.rate is None else f"{stage.rate:,.0f}",
                f"{stage.seconds:,.1f}",
                "over" if stage.is_over else "at work",
            )
            for name, stage in run.stages.items()
        ],
        "samples": [_sample(board, name, amounts) for name, amounts in run.samples.items()],
        "waits": [
            (epoch, rank, f"{waited:.3f} s", f"{waited / seconds:.0%}" if seconds else "")
            for epoch, rank, waited, seconds in reversed(run.waits)
        ],
        "jobs": board.jobs_by_state(),
        "lost_ranges": [
            (
                lost.stage,
                lost.sample,
                lost.file,
                "" if lost.entry_stop is None else f"{lost.entry_start:,}-{lost.entry_stop:,}",
                "" if lost.num_events is None else f"{lost.num_events:,}",
                lost.reason,
            )
            for lost in reversed(run.lost_ranges)
        ],
        "retries": [(file, f"{number:,}") for file, number in run.retries.most_common()],
    }


def _sample(board: Board, name: str, amounts: Mapping[str, int]) -> Sequence[Any]:
    measured, encoded = (board.done[stage][name] for stage in ("specs", "blocks"))
    events = amounts.get("events", 0)
    share = f"{min(measured / events, 1):.0%}, {min(encoded / events, 1):.0%}" if events else ""
    files = amounts.get("files", 0)
    return name, f"{files:,}", f"{events:,}", f"{measured:,}", f"{encoded:,}", share


def _table(name: str, source: ColumnDataSource) -> Any:
    columns = [
        TableColumn(field=title, title=title, width=WIDE if title in WORDS else NARROW)
        for title in TABLES[name]
    ]
    table = DataTable(
        source=source,
        columns=columns,
        index_position=None,
        height=HEIGHT,
        sizing_mode="stretch_width",
        reorderable=False,
    )
    return column(Div(text=TITLES[name]), table, sizing_mode="stretch_width")
