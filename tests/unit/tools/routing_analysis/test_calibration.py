"""Sequences from the texts of domains."""

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from routing_analysis.calibration import TokenStream, sample


def stream(name, length, first=0):
    tokens = np.arange(first, first + length)
    return TokenStream(name, length, lambda start, count: tokens[start : start + count])


def test_each_domain_gives_as_many_sequences_spread_over_its_text():
    found = sample([stream("a", 100), stream("b", 20, 1000)], 40, 5, "here")
    assert found.token_ids[:, 0].tolist() == [0, 25, 50, 75, 1000, 1005, 1010, 1015]
    assert found.token_ids[0].tolist() == [0, 1, 2, 3, 4]
    assert found.domains.tolist() == [0] * 4 + [1] * 4
    assert (found.names, found.source) == (["a", "b"], "here")
    assert found.token_ids.dtype == np.int32


def test_a_domain_with_less_text_gives_what_it_has():
    found = sample([stream("a", 100), stream("b", 12)], 40, 5, "here")
    assert found.domains.tolist() == [0] * 4 + [1] * 2


def test_no_token_is_taken_twice():
    found = sample([stream("a", 103)], 100, 7, "here")
    assert len(np.unique(found.token_ids)) == found.token_ids.size == 98


def test_fewer_tokens_than_a_sequence_a_domain_are_refused():
    with pytest.raises(EvaluationError, match=r"--tokens 9: 2 domains of one sequence of 5 .* 10:"):
        sample([stream("a", 100), stream("b", 100)], 9, 5, "here")


def test_a_domain_without_one_sequence_is_refused():
    with pytest.raises(EvaluationError, match="here: b has 4 tokens, and a sequence is 5"):
        sample([stream("a", 100), stream("b", 4)], 40, 5, "here")
