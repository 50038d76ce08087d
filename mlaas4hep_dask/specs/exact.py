"""Sums that are kept exactly, so that the order of adding makes no difference.

Every float64 is a whole multiple of 2**-1074, and sums of such are whole numbers of Python. Only
what is shown of a sum is rounded.
"""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

LARGEST = sys.float_info.max
UNIT = 1074  # float64 are whole multiples of 2 ** -UNIT
_MAX_DIGITS = 4_000  # hexadecimal ones in a text


class Sums(NamedTuple):
    """Of n values the n * mean and, with ``squares`` from their mean, squares + n * mean**2.

    The first is in units of 2**-1074, the second of 2**-2148. Both just add, whatever the means.
    """

    first: int
    second: int

    def plus(self, other: Sums) -> Sums:
        """Those of the values of both."""
        return Sums(self.first + other.first, self.second + other.second)

    def mean_and_squares(self, count: int) -> tuple[float, float]:
        """The mean of ``count`` values and their squared deviations from it, each rounded once."""
        mean = self.first / (count << UNIT)
        try:
            squares = (self.second * count - self.first * self.first) / (count << 2 * UNIT)
        except OverflowError:
            squares = LARGEST
        return mean, min(squares, LARGEST)


def sums_of(count: int, mean: float, squares: float) -> Sums:
    """The sums of values of which number, mean and squares are known."""
    numerator, denominator = mean.as_integer_ratio()
    shift = UNIT + 1 - denominator.bit_length()
    square, of = squares.as_integer_ratio()
    second = (count * numerator * numerator) << 2 * shift  # small numbers until the end
    second += square << (2 * UNIT + 1 - of.bit_length())
    return Sums((count * numerator) << shift, second)


def whole(value: float) -> int:
    """A finite float in units of 2**-1074."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (UNIT + 1 - denominator.bit_length())


def added(a: float, a_exact: int | None, b: float, b_exact: int | None) -> tuple[float, int | None]:
    """The sum of two sums, and exactly if that says more; None stands for a float that is exact."""
    if any(
        exact is None and not math.isfinite(value) for value, exact in ((a, a_exact), (b, b_exact))
    ):
        return a + b, None
    total = (whole(a) if a_exact is None else a_exact) + (whole(b) if b_exact is None else b_exact)
    try:
        number = total / (1 << UNIT)
    except OverflowError:
        return (math.inf if total > 0 else -math.inf), total
    return number, None if whole(number) == total else total


def to_text(total: int) -> str:
    """A whole number as hexadecimal digits and a power of two, such as ``-1a2bp52``."""
    shift = max((total & -total).bit_length() - 1, 0)
    return f"{total >> shift:x}p{shift}"


def from_text(text: str) -> int:
    """What `to_text` made a text of.

    Raises
    ------
    ValueError
        When it is no such text.
    """
    digits, mark, shift = text.partition("p")
    if not mark or len(digits) > _MAX_DIGITS or not 0 <= int(shift) <= 4 * _MAX_DIGITS:
        raise ValueError(f"{text[:40]!r} is no exact sum")
    return int(digits, 16) << int(shift)
