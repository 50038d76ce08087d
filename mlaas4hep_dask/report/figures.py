"""Figures of the run report as SVG text: step histograms, line charts, ROC curves and bars.

They are our own because matplotlib costs 1.8 s to import and to draw one report, a sixth of a
small run, while these take milliseconds. The page colours them: elements carry the classes
``c0``, ``c1``, … so that one figure serves light mode, dark mode and print. Values that are not
finite are left out; those beyond ±1e300 are drawn at ±1e300.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from statistics import median
from typing import NamedTuple

from mlaas4hep_dask.report.axes import NUM_COLOURS, Axis, Frame, drawable, empty_svg, label, pixel

_CHART_FONT = 12  # pixels, of a line chart
_FEW = 20  # curves of at most so many points show each of them


class Line(NamedTuple):
    """One curve of a line chart; None, NaN and infinities interrupt it."""

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]


class _Bin(NamedTuple):
    number: int
    low: float
    high: float


def step_histogram(
    edges: Sequence[float],
    contents: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    density: bool = True,
    log: bool | None = None,
    legend: bool = True,
    size: tuple[int, int] = (400, 240),
    font: int = 11,
) -> str:
    """SVG of histograms that share their bins; the first is filled, the others are outlines.

    Parameters
    ----------
    edges : sequence of float, length bins + 1
        Edges of the bins; those without a finite, positive width are not drawn.
    contents : mapping of str to sequence of float, length bins
        By name: the content of each bin.
    title, x_label, y_label : str
        Name of the figure for screen readers, and of its axes.
    density : bool
        Draw each histogram with an area of 1.
    log : bool, optional
        Logarithmic y axis; by default when the highest bin is 100 times the median one.
    legend : bool
        Write the names above the figure.
    size : (int, int)
        Width and height in SVG units, which are pixels when the figure is not scaled.
    font : int
        Font size in the same units.
    """
    bins = list(_bins(edges))
    heights = {name: _heights(bins, values, density) for name, values in contents.items()}
    all_heights = [value for values in heights.values() for value in values]
    if not any(all_heights):
        return empty_svg(title, _why_empty(edges, contents), size, font)
    positive = [value for value in all_heights if value > 0]
    if log is None:
        steep = len(positive) > 3 and max(positive) / 100 > median(positive)
        log = steep and min(all_heights) >= 0
    log = log and bool(positive)
    x_axis = Axis.around([bins[0].low, bins[-1].high])
    if log:  # the lowest bin stands clear of the base line, the highest one of the top
        y_axis = Axis.around([min(positive) / 2, max(positive) * 1.1], log=True)
    else:
        y_axis = Axis.around([0.0, *all_heights, max(all_heights) * 1.06])
    names = list(contents) if legend else []
    frame = Frame(x_axis, y_axis, size=size, font=font, names=names, labels=(x_label, y_label))
    paths = [
        f'<path class="c{index % NUM_COLOURS}{" fill" if index == 0 else ""}" '
        f'd="{_steps(frame, bins, values)}"/>'
        for index, values in enumerate(heights.values())
    ]
    totals = (f"{name}: {label(sum(_clean(values)))}" for name, values in contents.items())
    return frame.svg(title, f"Entries: {'; '.join(totals)}.", "".join(paths))


def _bins(edges: Sequence[float]) -> Iterator[_Bin]:
    last = -float("inf")
    for index, (a, b) in enumerate(pairwise(map(drawable, edges))):
        if a is not None and b is not None and last <= a < b:
            yield _Bin(index, a, b)
            last = b


def _clean(values: Sequence[float]) -> list[float]:
    return [drawable(value) or 0.0 for value in values]


def _heights(bins: Sequence[_Bin], values: Sequence[float], density: bool) -> list[float]:
    """What is drawn in each bin: its content, or its share of the total per unit of x."""
    content = _clean(values)
    content += [0.0] * (max((bin_.number for bin_ in bins), default=0) + 1 - len(content))
    total = abs(sum(content)) or 1.0
    if not density:
        return [content[bin_.number] for bin_ in bins]
    return _clean([content[n] / total / (high - low) for n, low, high in bins])


def _why_empty(edges: Sequence[float], contents: Mapping[str, Sequence[float]]) -> str:
    values = {drawable(edge) for edge in edges}
    value = values.pop() if len(values) == 1 else None
    filled = any(any(_clean(values)) for values in contents.values())
    return f"all values are {label(value)}" if filled and value is not None else "no entries"


def _steps(frame: Frame, bins: Sequence[_Bin], values: Sequence[float]) -> str:
    log = frame.y_axis.log
    base = pixel(frame.bottom if log else frame.y(0.0))
    parts, right, level = [], None, base
    for (_, low, high), value in zip(bins, values, strict=True):
        if low != right:
            parts.append(f"{'' if right is None else f'V{base}'}M{pixel(frame.x(low))} {base}")
            level = base
        now = base if log and value <= 0 else pixel(frame.y(value))
        parts.append(f"{'' if now == level else f'V{now}'}H{pixel(frame.x(high))}")
        right, level = high, now
    return "".join(parts) + f"V{base}"


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log_y: bool = False,
    whole_x: bool = False,
    reference: Line | None = None,
    size: tuple[int, int] = (440, 300),
) -> str:
    """SVG of one or more curves, with a marker at each point while there are few.

    Parameters
    ----------
    lines : sequence of Line
        The curves. On a logarithmic axis, values that are not positive interrupt them.
    title, x_label, y_label : str
        Name of the figure for screen readers, and of its axes.
    x_range, y_range : (float, float), optional
        Extremes of the axes; by default those of the curves.
    log_y : bool
        Logarithmic y axis.
    whole_x : bool
        Ticks at whole numbers only on the x axis.
    reference : Line, optional
        A thin dashed curve without markers, such as the diagonal under a ROC curve.
    size : (int, int)
        Width and height in SVG units, which are pixels when the figure is not scaled.
    """
    curves = [_segments(line, log_y) for line in lines]
    points = [point for curve in curves for segment in curve for point in segment]
    if not points:
        return empty_svg(title, "no values", size, _CHART_FONT)
    x_axis = Axis.around(x_range or [x for x, _ in points], whole=whole_x)
    margin = 0.0 if y_range else 0.06
    y_axis = Axis.around(y_range or [y for _, y in points], log=log_y, margin=margin)
    names = [line.name for line in lines]
    frame = Frame(
        x_axis, y_axis, size=size, font=_CHART_FONT, names=names, labels=(x_label, y_label)
    )
    body = [] if reference is None else [_curve(frame, "reference", _segments(reference, log_y))]
    ends = []
    for index, (name, curve) in enumerate(zip(names, curves, strict=True)):
        body.append(_curve(frame, f"c{index % NUM_COLOURS} line", curve))
        few = sum(map(len, curve)) <= _FEW
        markers = [point for segment in curve if few or len(segment) == 1 for point in segment]
        body += [_marker(index, frame.x(x), frame.y(y)) for x, y in markers]
        if curve:
            ends.append(f"{name} ends at {label(curve[-1][-1][1])}")
    return frame.svg(title, f"{y_label} against {x_label}: {'; '.join(ends)}.", "".join(body))


def _segments(line: Line, log_y: bool) -> list[list[tuple[float, float]]]:
    """Uninterrupted runs of points."""
    segments: list[list[tuple[float, float]]] = [[]]
    for raw_x, raw_y in zip(line.x, line.y, strict=False):
        x, y = drawable(raw_x), drawable(raw_y)
        if x is None or y is None or (log_y and y <= 0):
            segments.append([])
        else:
            segments[-1].append((x, y))
    return [segment for segment in segments if segment]


def _curve(frame: Frame, style: str, curve: Sequence[Sequence[tuple[float, float]]]) -> str:
    path = ""
    for segment in curve:
        pixels = (f"{pixel(frame.x(x))} {pixel(frame.y(y))}" for x, y in segment)
        path += "M" + "L".join(position for position, _ in groupby(pixels))
    return f'<path class="{style}" d="{path}"/>' if path else ""


def _marker(index: int, x: float, y: float) -> str:
    """A disc, a square or a diamond, so that curves differ by more than their colour."""
    shape = (
        f"M{pixel(x - 3)} {pixel(y)}a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
        f"M{pixel(x - 2.7)} {pixel(y - 2.7)}h5.4v5.4h-5.4z",
        f"M{pixel(x)} {pixel(y - 3.8)}l3.8 3.8l-3.8 3.8l-3.8-3.8z",
    )[index % 3]
    return f'<path class="c{index % NUM_COLOURS} marker" d="{shape}"/>'


def roc_curves(lines: Sequence[Line], *, title: str, x_label: str, y_label: str) -> str:
    """SVG of ROC curves over the diagonal, which is what guessing gives; see `line_chart`."""
    return line_chart(
        lines,
        title=title,
        x_label=x_label,
        y_label=y_label,
        x_range=(0.0, 1.0),
        y_range=(0.0, 1.0),
        reference=Line("guessing", (0.0, 1.0), (0.0, 1.0)),
        size=(400, 400),
    )


def bar(fraction: float | None, *, colour: int = 0) -> str:
    """SVG of a bar that is filled up to ``fraction``, beside its number; empty if unknown."""
    if fraction is None:
        return ""
    filled = 100 * min(max(drawable(fraction) or 0.0, 0.0), 1.0)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" class="bar" viewBox="0 0 100 4" '
        'preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" '
        f'height="4"/><rect class="c{colour % NUM_COLOURS}" width="{filled:.4g}" height="4"/></svg>'
    )
