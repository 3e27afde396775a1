"""The Triton kernels of the permutation, on the CPU in Triton's interpreter.

There run all tests of the op, and below what only kernels have (the blocks they cut their work into).
"""

from pathlib import Path

import pytest
import torch

from triton_interpreter import from_outside, inside, needs_triton, num_passed

HERE = Path(__file__)
pytestmark = needs_triton


@from_outside
def test_the_interpreted_kernels_pass_the_tests_of_the_op():
    assert num_passed(HERE.with_name("test_permute.py"), HERE) > 50, "it ran them"


@inside
@pytest.mark.parametrize("num_tokens", [1, 8, 21])
def test_blocks_of_any_size_give_the_same(monkeypatch, num_tokens):
    """Up to eleven tiles of two tokens; three programs for the columns of a row."""
    from remoe.kernels import permute_triton as kernels
    from remoe.kernels.permute import permute, permute_reference, unpermute

    monkeypatch.setattr(kernels, "TILE", 16)
    monkeypatch.setattr(kernels, "COLUMNS", 4)
    generator = torch.Generator().manual_seed(num_tokens)
    routing_map = torch.rand(num_tokens, 6, generator=generator) < 0.5
    hidden_states = torch.randn(num_tokens, 11, generator=generator)
    case = hidden_states, routing_map.float(), routing_map, int(routing_map.sum())
    rows, gates, ids = permute(*case)
    expected_rows, expected_gates, expected_ids = permute_reference(*case)
    assert torch.equal(rows, expected_rows) and torch.equal(gates, expected_gates)
    for ours, theirs in zip(ids, expected_ids, strict=True):
        assert torch.equal(ours, theirs)
    counts = routing_map.sum(1, keepdim=True)
    torch.testing.assert_close(unpermute(rows, ids), hidden_states * counts)
