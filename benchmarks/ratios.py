"""How two sides that took turns compare."""

import itertools
import statistics
from collections.abc import Iterator, Sequence


def ratio(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Median over the rounds of the quotient of two sides' medians, and its quartiles.

    A disturbance that lasts longer than a round meets both sides of its quotient.

    Args:
        first: Seconds by round and step.
        second: The same of the other side.

    Returns:
        Median, first and third quartile; three times the same of a single round.
    """
    pairs = zip(first, second, strict=True)
    values = [statistics.median(a) / statistics.median(b) for a, b in pairs]
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def ratio_lines(
    seconds: dict[str, list[list[float]]], pairs: Sequence[tuple[str, str]]
) -> Iterator[str]:
    """One line for each pair of which both sides are there."""
    for first, second in pairs:
        if first in seconds and second in seconds:
            middle, low, high = ratio(seconds[first], seconds[second])
            spread = f"{low:.3f} to {high:.3f}"
            yield f"{first} / {second}: {middle:.3f} (middle half of the rounds: {spread})"


def median(seconds: Sequence[Sequence[float]]) -> float:
    """Of all steps of all rounds."""
    return statistics.median(itertools.chain.from_iterable(seconds))


def row(cells: Sequence[object]) -> str:
    """Of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"
