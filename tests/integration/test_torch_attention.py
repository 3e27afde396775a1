"""`TorchAttention` equals softmax(q k^T) v written out, whole or split over context-parallel ranks."""

import math
from itertools import product

import pytest
import torch

from ranks_attention import attention_of_parts, own_chunks

BATCH, HEADS, WIDTH = 2, 4, 8
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
LENGTHS = {1: (1, 16), 2: (4, 16), 4: (8, 32)}  # by context-parallel ranks; the least, and more


def naive_attention(query, key, value, hidden_from):
    """`[s, b, heads, d]` each; `hidden_from` is `[s, s]` or `[b, 1, s, s]`, True = do not look."""
    repeats = query.shape[2] // key.shape[2]
    key, value = (x.repeat_interleave(repeats, dim=2) for x in (key, value))
    scores = torch.einsum("sbhd,tbhd->bhst", query, key) / math.sqrt(query.shape[3])
    weights = scores.masked_fill(hidden_from, -torch.inf).softmax(dim=-1)
    return torch.einsum("bhst,tbhd->sbhd", weights, value).flatten(2)


def make_case(length, groups, masked):
    """Query, key, value, direction and mask of whole sequences."""
    generator = torch.Generator().manual_seed(length + groups)

    def randn(*shape):
        return torch.randn(length, BATCH, *shape, generator=generator)

    inputs = randn(HEADS, WIDTH), randn(groups, WIDTH), randn(groups, WIDTH)
    return (*inputs, randn(HEADS * WIDTH), document_mask(length) if masked else None)


def document_mask(length):
    """Causal, and not across a border that differs by sample: what --reset-attention-mask gives."""
    causal = torch.ones(length, length).triu(1).bool()
    masks = []
    for border in (length // 3, length // 2):
        document = (torch.arange(length) >= border).int()
        masks.append(causal | (document[:, None] != document[None, :]))
    return torch.stack(masks).unsqueeze(1)


@pytest.mark.parametrize("size", LENGTHS, ids=lambda size: f"CP {size}")
def test_context_and_gradients_are_those_of_the_formula(world, size):
    cases = [make_case(*case) for case in product(LENGTHS[size], (1, 2, 4), (False, True))]
    by_rank = world.run(attention_of_parts, size, cases, timeout=60)
    for number, (*inputs, direction, mask) in enumerate(cases):
        length = len(direction)
        hidden_from = torch.ones(length, length).triu(1).bool() if mask is None else mask
        leaves = [x.clone().requires_grad_() for x in inputs]
        expected = naive_attention(*leaves, hidden_from)
        expected.backward(direction)
        for rank, results in by_rank:
            context, *gradients = results[number]
            own = own_chunks(expected.detach(), rank, size)
            torch.testing.assert_close(context, own, **TOLERANCE)
            for ours, leaf in zip(gradients, leaves, strict=True):
                torch.testing.assert_close(ours, own_chunks(leaf.grad, rank, size), **TOLERANCE)
