"""Numbers as people write them."""

import math

NOT_THERE = "–"
_SPACE = "\N{NO-BREAK SPACE}"  # a number keeps its unit
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count(value: float | None) -> str:
    """A whole number with its digits in groups: 24,000."""
    return NOT_THERE if _lacks(value) else f"{round(float(value)):,}"


def decimal(value: float | None, digits: int = 3) -> str:
    """A fixed number of digits after the point."""
    return NOT_THERE if _lacks(value) else f"{value:,.{digits}f}".replace("-", "−")


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage: 0.125 is 12.5 %."""
    return NOT_THERE if _lacks(share) else f"{100 * share:.{digits}f}{_SPACE}%"


def scientific(value: float | None, digits: int = 2) -> str:
    """A number with its power of ten: 1.58 × 10⁻²."""
    if _lacks(value):
        return NOT_THERE
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    power = str(int(exponent)).translate(_SUPERSCRIPTS)
    return f"{mantissa}{_SPACE}×{_SPACE}10{power}".replace("-", "−")


def large(value: float | None) -> str:
    """A large count in thousands, millions or billions: 3.1 million."""
    if _lacks(value):
        return NOT_THERE
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if value >= size:
            return f"{value / size:.3g}{_SPACE}{unit}"
    return count(value)


def _lacks(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
