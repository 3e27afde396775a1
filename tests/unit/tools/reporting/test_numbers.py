"""Numbers of the report."""

import math

import numpy as np
import pytest

from reporting import numbers

SPACE = "\N{NO-BREAK SPACE}"


@pytest.mark.parametrize(
    "written, expected",
    [
        (numbers.count(24_000), "24,000"),
        (numbers.count(np.array(1500)), "1,500"),  # as records hold them
        (numbers.count(0), "0"),
        (numbers.decimal(4.5748), "4.575"),
        (numbers.decimal(-0.05, 2), "−0.05"),
        (numbers.percent(0.125), f"12.5{SPACE}%"),
        (numbers.percent(0.0), f"0.0{SPACE}%"),
        (numbers.scientific(0.0158), f"1.58{SPACE}×{SPACE}10⁻²"),
        (numbers.scientific(0.0), f"0.00{SPACE}×{SPACE}10⁰"),
        (numbers.large(3_072_000), f"3.07{SPACE}million"),
        (numbers.large(31.5e9), f"31.5{SPACE}billion"),
        (numbers.large(24_000), "24,000"),
    ],
)
def test_a_number_is_written_for_people(written, expected):
    assert written == expected


@pytest.mark.parametrize(
    "write", [getattr(numbers, n) for n in "count decimal percent large".split()]
)
@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_what_is_not_known_is_a_dash(write, value):
    assert write(value) == "–"
    assert numbers.scientific(value) == "–"
