"""The table of hash routing: balanced, random, and the same wherever it is computed."""

import hashlib

import pytest
import torch

from remoe.baselines import balanced_hash_table


@pytest.mark.parametrize("vocab_size", [1, 7, 8, 127, 4096])
@pytest.mark.parametrize(("num_experts", "topk"), [(2, 1), (8, 1), (8, 2), (8, 8), (32, 4)])
def test_experts_of_an_id_differ_and_every_expert_has_its_share(vocab_size, num_experts, topk):
    table = balanced_hash_table(vocab_size, num_experts, topk, seed=0, layer=1)
    assert table.shape == (vocab_size, topk)
    assert table.dtype == torch.int64
    assert all(len(set(row)) == topk for row in table.tolist())
    ids = torch.bincount(table.flatten(), minlength=num_experts)
    whole, rest = divmod(vocab_size, num_experts)
    assert ids.min() >= whole * topk
    assert ids.max() <= whole * topk + min(rest, topk)


def test_another_seed_or_layer_is_another_table():
    tables = [balanced_hash_table(4096, 8, 1, seed, layer) for seed in (0, 1) for layer in (1, 2)]
    for i, a in enumerate(tables):
        for b in tables[:i]:
            # Independent tables agree on one id in eight.
            assert 0.08 < (a == b).float().mean() < 0.17


def test_pairs_of_experts_are_mixed():
    """With k = 2 each pair should be somebody's, not only the neighbours of one deal."""
    table = balanced_hash_table(4096, 8, 2, seed=0, layer=1).sort(dim=-1).values
    pairs = torch.bincount(table[:, 0] * 8 + table[:, 1], minlength=64)
    assert (pairs > 0).sum() == 28


def test_neighbouring_ids_are_unrelated():
    table = balanced_hash_table(4096, 8, 1, seed=0, layer=1).flatten()
    assert 0.08 < (table[1:] == table[:-1]).float().mean() < 0.17


def test_it_never_changes():
    """A trained model relies on it: another machine, or another version of torch, has the same."""
    table = balanced_hash_table(1000, 8, 2, seed=3, layer=5)
    digest = hashlib.sha256(table.to(torch.uint8).numpy().tobytes()).hexdigest()
    assert digest[:16] == "2d3a710f3163c062"
