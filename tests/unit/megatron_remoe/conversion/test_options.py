"""Numbers that a conversion cannot be asked for are refused by the flag's name."""

from pathlib import Path

import pytest

from megatron.remoe.conversion.architecture import ConversionError
from megatron.remoe.conversion.options import Options, bytes_of


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_that_nothing_or_everything_keeps_is_refused(tolerance):
    with pytest.raises(ConversionError, match=r"--tolerance .*: give a number above 0"):
        Options(Path("a"), Path("b"), tolerance=tolerance)


@pytest.mark.parametrize("divisor", [0, -128])
def test_a_vocabulary_divisible_by_no_number_is_refused(divisor):
    with pytest.raises(ConversionError, match=f"--make-vocab-size-divisible-by {divisor}: give"):
        Options(Path("a"), Path("b"), divisible_by=divisor)


def test_an_output_within_the_input_is_refused(tmp_path):
    with pytest.raises(ConversionError, match=r"is in .*: name another folder"):
        Options(tmp_path / "run", tmp_path / "other" / ".." / "run" / "hf")
    Options(tmp_path / "run", tmp_path / "run-hf")


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("5GB", 5 * 10**9), ("1.5 kb", 1500)])
def test_sizes_are_read(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["0", "0.1", "-5GB", "GB", "5PB", ""])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConversionError, match=r"--max-shard-size .*: give a size"):
        bytes_of(text)
