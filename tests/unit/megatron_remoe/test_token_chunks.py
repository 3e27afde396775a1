"""`num_token_chunks` by hand, and what it bounds."""

import pytest
import torch

from megatron.remoe.token_chunks import num_token_chunks
from moe_layers import build_layer, make_config


class OneRank:
    """A process group of one."""

    def size(self):
        """Of it."""
        return 1


def active(num_tokens, each, num_experts=8):
    """Every token goes to the first `each` experts."""
    return (torch.arange(num_experts) < each).expand(num_tokens, num_experts)


@pytest.mark.parametrize(
    ("routing_map", "above", "chunks"),
    [
        (active(10, 2), 2.0, 1),  # as many as allowed
        (active(10, 3), 2.0, 2),  # 1.5, rounded up
        (active(10, 8), 2.0, 4),
        (active(10, 8), 0.5, 16),  # more than there are tokens
        (active(10, 0), 0.5, 1),
        (active(0, 0), 0.5, 1),
    ],
)
def test_chunks_by_hand(routing_map, above, chunks):
    assert num_token_chunks(routing_map, above, 1, OneRank()) == chunks


def test_the_fullest_rank_decides():
    # Two ranks of four experts; the first has all the rows, 3 a token: as if a token had 6 in the mean.
    assert num_token_chunks(active(10, 3), 2.0, 2, OneRank()) == 3


def test_experts_take_no_more_rows_than_the_bound_at_a_time(single_rank, monkeypatch):
    layer = build_layer(make_config(num_experts=8, topk=2, moe_relu_chunk_above=1.5))
    rows, compute = [], layer.routed_experts_compute
    monkeypatch.setattr(
        layer,
        "routed_experts_compute",
        lambda hidden, probs: rows.append(len(hidden)) or compute(hidden, probs),
    )
    with torch.no_grad():
        layer.router.weight.copy_(layer.router.weight.abs())  # all active for positive tokens
    tokens = torch.rand(16, 4, 32, requires_grad=True)
    layer(tokens)[0].sum().backward()
    chunks = 6  # 8 / 1.5, rounded up; forward, and again backward
    assert len(rows) == 2 * chunks and sum(rows) == 2 * 16 * 4 * 8
    assert max(rows) <= 3 * 4 * 8  # 16 positions in 6 chunks: 3 at most
