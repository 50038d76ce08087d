"""Axes of the report's figures: scales, ticks, and the frame that turns values into pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

NUM_COLOURS = 6
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
_GLYPH = 0.58  # mean width of a character next to the font size
_LONGEST_NAME = 44


def drawable(value: float | None) -> float | None:
    """The number within ±1e300 and without subnormals, or None when there is nothing to draw."""
    if value is None or not math.isfinite(value):
        return None
    if 1e-300 <= abs(value) <= 1e300:
        return float(value)
    return 0.0 if abs(value) < 1 else math.copysign(1e300, value)


def pixel(value: float) -> str:
    """Text of a coordinate, to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def xml_text(text: str) -> str:
    """The text escaped for XML, with U+FFFD for what XML cannot hold."""
    return escape(NOT_XML.sub("\ufffd", text))


def label(value: float, step: float = 0.0) -> str:
    """Text of a number with the digits that tell multiples of ``step`` apart, or four digits."""
    size = abs(value)
    if size <= 1e-6 * step:
        return "0"
    power = math.floor(math.log10(size))
    finest = math.floor(math.log10(step)) if step else power - 3
    if -4 < power < 5:
        text = f"{value:.{max(0, -finest)}f}"
        text = text if step or "." not in text else text.rstrip("0").rstrip(".")
    else:
        mantissa, _, exponent = f"{value:.{min(max(power - finest, 0), 6)}e}".partition("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        tens = _power_of_ten(int(exponent))
        text = {"1": tens, "-1": f"-{tens}"}.get(mantissa, f"{mantissa}{TIMES}{tens}")
    return text.replace("-", MINUS)


def _power_of_ten(power: int) -> str:
    return {0: "1", 1: "10"}.get(power) or f"10{str(power).translate(_SUPERSCRIPTS)}"


@dataclass(frozen=True, slots=True)
class Axis:
    """Scale between two different extremes.

    Parameters
    ----------
    low, high : float
        Extremes; both are powers of ten when the axis is logarithmic.
    log : bool
        Logarithmic scale.
    whole : bool
        Ticks at whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @classmethod
    def around(
        cls, values: Iterable[float], *, log: bool = False, whole: bool = False, margin: float = 0.0
    ) -> Axis:
        """Axis that holds all values, which are positive if ``log``, with a relative margin."""
        values = list(values)
        low, high = min(values), max(values)
        if log:
            low, high = 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))
            return cls(low if low < high else low / 10, high, log=True)
        size = max(abs(low), abs(high))
        if high - low <= 1e-9 * size:  # one value, as far as a reader can tell
            padding = 1.0 if whole else 0.05 * size or 0.5
            low, high = low - max(padding, 1e-9 * size), high + max(padding, 1e-9 * size)
        span = high - low
        return cls(low - margin * span, high + margin * span, whole=whole)

    def fraction(self, value: float) -> float:
        """Where the value lies between the extremes: 0 at the low one, 1 at the high one."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def ticks(self, number: int = 5) -> list[tuple[float, str]]:
        """Round values within the extremes, ``number`` or nearly so many, with their texts."""
        if self.log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            stride = -(-(last - first) // (number - 1))
            return [(10.0**n, _power_of_ten(n)) for n in range(first, last + 1, stride)]
        power = math.floor(math.log10((self.high - self.low) / number))
        steps = [n * 10.0**p for p in (power, power + 1) for n in (1.0, 2.0, 5.0)]
        if self.whole:
            steps = [step for step in steps if step >= 1] or [1.0]
        ranges = [(step, self._multiples(step)) for step in steps]
        step, multiples = min(ranges, key=lambda entry: abs(len(entry[1]) - number))
        return [(n * step, label(n * step, step)) for n in multiples]

    def _multiples(self, step: float) -> range:
        slack = 1e-9 * (self.high - self.low)
        first = math.ceil((self.low - slack) / step)
        return range(first, math.floor((self.high + slack) / step) + 1)


class Frame:
    """Axes, grid, labels and legend of one figure.

    Parameters
    ----------
    x_axis, y_axis : Axis
        Scales.
    size : (int, int)
        Width and height in SVG units.
    font : int
        Font size in SVG units.
    names : sequence of str
        Curves in the legend above the figure.
    labels : (str, str)
        What the axes show; an empty one takes no space.
    """

    def __init__(
        self,
        x_axis: Axis,
        y_axis: Axis,
        *,
        size: tuple[int, int],
        font: int,
        names: Sequence[str] = (),
        labels: tuple[str, str] = ("", ""),
    ) -> None:
        self.x_axis, self.y_axis = x_axis, y_axis
        self.size, self.font, self.labels = size, font, labels
        self.x_ticks = x_axis.ticks(5 if size[0] > 200 else 4)
        self.y_ticks = y_axis.ticks(5 if size[1] > 160 else 4)
        widest = max((len(text) for _, text in self.y_ticks), default=0)
        self.left = 6 + widest * font * _GLYPH + (1.6 * font if labels[1] else 0)
        self.right = size[0] - 1.1 * font
        self.bottom = size[1] - font * (3.2 if labels[0] else 1.7)
        self.legend, rows = self._legend(names)
        self.top = font * (0.7 + 1.7 * rows)

    def x(self, value: float) -> float:
        """Horizontal position of a value."""
        return self.left + self.x_axis.fraction(value) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Vertical position of a value."""
        return self.bottom - self.y_axis.fraction(value) * (self.bottom - self.top)

    def _legend(self, names: Sequence[str]) -> tuple[str, int]:
        if not names:
            return "", 0
        font, entries = self.font, []
        x, row = self.left, 1
        for index, name in enumerate(names):
            short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
            width = 3.1 * font + len(short) * font * _GLYPH
            if x > self.left and x + width > self.right:
                x, row = self.left, row + 1
            middle = font * (1.6 * row - 0.6)
            entries.append(
                f'<path class="c{index % NUM_COLOURS} line" '
                f'd="M{pixel(x)} {pixel(middle)}h{pixel(1.7 * font)}"/>'
                f'<text x="{pixel(x + 2.1 * font)}" y="{pixel(middle + 0.35 * font)}">'
                f"{xml_text(short)}</text>"
            )
            x += width
        return "".join(entries), row

    def svg(self, title: str, description: str, body: str) -> str:
        """The whole figure around ``body``, which is drawn over the grid."""
        grid, texts = [], []
        below = pixel(self.bottom + 1.3 * self.font)
        for value, text in self.x_ticks:
            x = pixel(self.x(value))
            grid.append(f"M{x} {pixel(self.bottom)}v4")
            texts.append(f'<text x="{x}" y="{below}" text-anchor="middle">{text}</text>')
        for value, text in self.y_ticks:
            y = self.y(value)
            grid.append(f"M{pixel(self.left)} {pixel(y)}H{pixel(self.right)}")
            texts.append(
                f'<text x="{pixel(self.left - 5)}" y="{pixel(y + 0.35 * self.font)}" '
                f'text-anchor="end">{text}</text>'
            )
        x_label, y_label = map(xml_text, self.labels)
        if x_label:
            middle, low = (self.left + self.right) / 2, self.size[1] - 0.4 * self.font
            texts.append(
                f'<text x="{pixel(middle)}" y="{pixel(low)}" text-anchor="middle">{x_label}</text>'
            )
        if y_label:
            middle = (self.top + self.bottom) / 2
            texts.append(
                f'<text transform="translate({self.font} {pixel(middle)}) rotate(-90)" '
                f'text-anchor="middle">{y_label}</text>'
            )
        return open_svg(title, description, self.size, self.font) + (
            f'<path class="grid" d="{"".join(grid)}"/>'
            f'<path class="axis" d="M{pixel(self.left)} {pixel(self.bottom)}'
            f'H{pixel(self.right)}"/>{"".join(texts)}{self.legend}{body}</svg>'
        )


def open_svg(title: str, description: str, size: tuple[int, int], font: int) -> str:
    """The start tag of a figure with its name and description for screen readers."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" role="img" '
        f'viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" height="{size[1]}" '
        f'font-size="{font}" fill="none"><title>{xml_text(title)}</title>'
        f"<desc>{xml_text(description)}</desc>"
    )


def empty_svg(title: str, what: str, size: tuple[int, int], font: int) -> str:
    """A figure without axes that says why it is empty."""
    return open_svg(title, what, size, font) + (
        f'<rect class="empty" x="1" y="1" width="{size[0] - 2}" height="{size[1] - 2}" rx="4"/>'
        f'<text x="{size[0] // 2}" y="{size[1] // 2}" text-anchor="middle">{xml_text(what)}</text>'
        "</svg>"
    )
