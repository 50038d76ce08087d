"""The section of the report on images: the mean image of every class, channel by channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from statistics import median
from typing import Any, NamedTuple

from mlaas4hep_dask.report.axes import Axis, drawable, empty_svg, label, open_svg, pixel, xml_text
from mlaas4hep_dask.report.quantities import mapping, number, ratio, sequence

_FONT = 11
_PANEL = 190  # width and height of a plane
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 22, 36  # around it
_SCALE = 100  # width of the colour scale with its texts
_COLUMNS = 4  # planes beside each other
_LEVELS = 24  # of colour
_FAINTEST = 0.08  # opacity of the lowest level
_DECADES = 4  # that a logarithmic scale has at most


def mean_images(
    images: Mapping[str, Any], counts: Mapping[str, Any], labels: Mapping[str, str]
) -> dict[str, Any]:
    """Figures and tables of the section; empty for a run without images.

    Parameters
    ----------
    images : mapping of str to Any
        Mean images by label, and what their cells mean.
    counts : mapping of str to Any
        The counts of the summary.
    labels : mapping of str to str
        What the page calls each label.
    """
    if not images:
        return {}
    num_events = mapping(images, "num_events")
    return {
        "num_events": [(labels.get(key, key), number) for key, number in num_events.items()],
        "without_mean": [labels.get(key, key) for key in sequence(images, "without_mean")],
        "channels": [_channel(channel, labels) for channel in sequence(images, "channels")],
        "flat": [
            {"name": row["name"], "means": [row["means"].get(key) for key in num_events]}
            for row in sequence(images, "flat")
        ],
        "axes": [
            {**axis, "width": (axis["high"] - axis["low"]) / axis["num_cells"]}
            for axis in sequence(images, "axes")
        ],
        "granularity": [_granularity(row, counts) for row in sequence(images, "granularity")],
    }


def _granularity(row: Mapping[str, Any], counts: Mapping[str, Any]) -> dict[str, Any]:
    share, factor = ratio(row["shared"], row["inside"]), row["factor"]
    advice = "none of the numbers of cells that were tried"
    if factor is not None:
        advice = "as many, or fewer" if factor == 1 else f"{number(factor)} times as many"
    numbers = {
        key: None if key not in counts else mapping(counts, key).get(row["plane"], 0)
        for key in ("off_image", "shared_cell")
    }
    percent = None if share is None else 100 * share
    return {"plane": row["plane"], **numbers, "percent": percent, "advice": advice}


def _channel(channel: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    scale = Scale.of(list(_means(channel)))
    return {
        "name": channel["name"],
        "scale": "logarithmic" if scale.axis.log else "linear",
        "figure": channel_figure(channel, labels),
    }


def _means(channel: Mapping[str, Any]) -> Iterator[float]:
    for plane in channel["planes"]:
        for rows in plane["means"].values():
            for row in rows:
                yield from (drawable(value) or 0.0 for value in row)


class Scale(NamedTuple):
    """From means to levels of colour: 0 for a mean of 0, negative ones in another colour.

    Parameters
    ----------
    axis : Axis
        From the lowest to the highest mean that is told apart.
    """

    axis: Axis

    @classmethod
    def of(cls, means: Sequence[float]) -> Scale:
        """Logarithmic if none is negative and the highest is 100 times the median positive one."""
        positive = [mean for mean in means if mean > 0]
        size = max((abs(mean) for mean in means), default=0.0)
        if min(means, default=0.0) < 0:
            return cls(Axis.around([-size, size]))
        if positive and size / 100 > median(positive):
            low = max(min(positive), size / 10**_DECADES)
            return cls(Axis.around([low, size], log=True))
        return cls(Axis.around([0.0, size]))

    def level(self, mean: float) -> int:
        """From -`_LEVELS` to `_LEVELS`."""
        if mean == 0:
            return 0
        if self.axis.log:
            return 1 + int(self.axis.fraction(mean) * (_LEVELS - 1))
        size = min(abs(mean) / self.axis.high, 1.0)
        level = 1 + min(int(size * _LEVELS), _LEVELS - 1)
        return level if mean > 0 else -level


def _style(level: int) -> str:
    opacity = _FAINTEST + (1 - _FAINTEST) * (abs(level) - 1) / (_LEVELS - 1)
    return f'class="heat{" negative" if level < 0 else ""}" fill-opacity="{opacity:.3g}"'


def channel_figure(channel: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """SVG of the mean images of one channel: a plane beside the other, a row for each class.

    Several classes of one plane stand beside each other.

    Parameters
    ----------
    channel : mapping of str to Any
        ``name`` and ``planes``: each with the axes ``x`` and ``y`` and the ``means`` by label.
    labels : mapping of str to str
        What the page calls each label.
    """
    planes = channel["planes"]
    names = list(planes[0]["means"]) if planes else []
    title = f"Mean of {channel['name']} in every cell"
    means = list(_means(channel))
    if not any(means):
        return empty_svg(title, "no object in any cell", (400, 80), _FONT)
    scale = Scale.of(means)
    panels = [(name, place, plane) for name in names for place, plane in enumerate(planes)]
    columns = min(_COLUMNS, len(planes) if len(planes) > 1 else len(names))
    per_name = len(planes) if len(planes) == 1 else -(-len(planes) // columns) * columns
    body, num_rows = [], 1
    for name, place, plane in panels:
        row, column = divmod(names.index(name) * per_name + place, columns)
        left = column * (_LEFT + _PANEL + _RIGHT) + _LEFT
        top = row * (_TOP + _PANEL + _BOTTOM) + _TOP
        body.append(_panel(plane, plane["means"][name], scale, left=left, top=top))
        if place == 0:
            room = 1 if len(planes) == 1 else columns
            text = _short(labels.get(name, name), room * (_LEFT + _PANEL))
            body.append(_text(left, top - 7, text))
        num_rows = row + 1
    width = columns * (_LEFT + _PANEL + _RIGHT)
    body.append(_colours(scale, f"mean of {channel['name']}", left=width + 8))
    size = (width + _SCALE, num_rows * (_TOP + _PANEL + _BOTTOM))
    highest = f"The highest mean is {label(max(means))}, the lowest {label(min(means))}."
    labels_of_classes = "; ".join(labels.get(name, name) for name in names)
    return (
        open_svg(title, f"{highest} Classes: {labels_of_classes}.", size, _FONT)
        + "".join(body)
        + "</svg>"
    )


def _panel(
    plane: Mapping[str, Any],
    means: Sequence[Sequence[float]],
    scale: Scale,
    *,
    left: float,
    top: float,
) -> str:
    x, y = plane["x"], plane["y"]
    bottom, right = top + _PANEL, left + _PANEL
    across, up = _PANEL / x["num_cells"], _PANEL / y["num_cells"]
    paths: dict[int, list[str]] = {}
    for row, values in enumerate(means):
        low = bottom - row * up
        high = max(low - up, top)
        start = 0
        for level, run in groupby(scale.level(drawable(value) or 0.0) for value in values):
            stop = start + len(list(run))
            if level:
                a, b = left + start * across, min(left + stop * across, right)
                box = f"M{pixel(a)} {pixel(high)}H{pixel(b)}V{pixel(low)}H{pixel(a)}z"
                paths.setdefault(level, []).append(box)
            start = stop
    cells = "".join(f'<path {_style(n)} d="{"".join(paths[n])}"/>' for n in sorted(paths))
    ticks, texts = [], []
    for value, text in Axis(x["low"], x["high"]).ticks(4):
        at = left + _PANEL * (value - x["low"]) / (x["high"] - x["low"])
        ticks.append(f"M{pixel(at)} {bottom}v4")
        texts.append(_text(at, bottom + 1.4 * _FONT, text, anchor="middle"))
    for value, text in Axis(y["low"], y["high"]).ticks(4):
        at = bottom - _PANEL * (value - y["low"]) / (y["high"] - y["low"])
        ticks.append(f"M{left} {pixel(at)}h-4")
        texts.append(_text(left - 6, at + 0.35 * _FONT, text, anchor="end"))
    middle, height = left + _PANEL / 2, top + _PANEL / 2
    texts.append(
        _text(middle, bottom + 2.7 * _FONT, _short(x["name"], _PANEL), anchor="middle")
        + _text(left - 46, height, _short(y["name"], _PANEL), anchor="middle", upright=True)
    )
    frame = f"M{left} {top}h{_PANEL}v{_PANEL}h-{_PANEL}z"
    return f'{cells}<path class="axis" d="{frame}{"".join(ticks)}"/>{"".join(texts)}'


def _colours(scale: Scale, name: str, *, left: float) -> str:
    """The colour scale, which says how it is divided."""
    axis, top, bottom = scale.axis, _TOP, _TOP + _PANEL
    num = _LEVELS if axis.low >= 0 else 2 * _LEVELS
    levels = [n for n in range(_LEVELS - num, _LEVELS + 1) if n]
    height = _PANEL / num
    parts = [
        f'<path {_style(level)} d="M{left} {pixel(bottom - (place + 1) * height)}h14'
        f'V{pixel(bottom - place * height)}h-14z"/>'
        for place, level in enumerate(levels)
    ]
    ticks = []
    for value, text in axis.ticks():
        at = bottom - axis.fraction(value) * _PANEL
        ticks.append(f"M{left + 14} {pixel(at)}h4")
        parts.append(_text(left + 21, at + 0.35 * _FONT, text))
    kind = "logarithmic" if axis.log else "linear"
    texts = _text(left + 84, (top + bottom) / 2, _short(name, 140), anchor="middle", upright=True)
    kinds = _text(left, bottom + 1.4 * _FONT, kind)
    return f'{"".join(parts)}<path class="axis" d="{"".join(ticks)}"/>{texts}{kinds}'


def _text(x: float, y: float, text: str, *, anchor: str = "start", upright: bool = False) -> str:
    turn = " rotate(-90)" if upright else ""
    return (
        f'<text transform="translate({pixel(x)} {pixel(y)}){turn}" text-anchor="{anchor}">'
        f"{xml_text(text)}</text>"
    )


def _short(text: str, room: float) -> str:
    """The text, or as much of it as there is room for."""
    most = int(room / (0.58 * _FONT))
    return text if len(text) <= most else f"{text[: most - 1]}…"
