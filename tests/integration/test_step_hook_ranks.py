"""lambda is one number in the whole world, to the bit, and that of a single process."""

import pytest
import torch

from ranks_moe import steps_of_the_hook
from remoe import sparsity, target_sparsity, update_reg_coeff

E, TOPK, START = 8, 2, 1.2345678e-8

# By rank, the MoE layers that it holds; by step and rank, the active experts of each token.
WORLDS = {
    "every rank has every layer": (
        {},
        [(1, 2, 3, 4)] * 4,
        [[[[8, 3]], [[0, 1, 2]], [[5]], [[2]]], [[[0]], [[0]], [[1]], [[0]]]],
    ),
    # micro-batches of other sizes on each rank: a mean of ratios would go the other way
    "one token against many": (
        {},
        [(1,)] * 4,
        [[[[8]], [[0] * 9], [[0] * 9], [[0] * 9]], [[[0]], [[3] * 9], [[3] * 9], [[3] * 9]]],
    ),
    "a pipeline stage without MoE layers": (
        {"pipeline_model_parallel_size": 2},
        [(1, 2), (1, 2), (), ()],
        [[[[8, 8]], [[1]], [], []], [[[2]], [[2]], [], []], [[[0]], [[2, 1]], [], []]],
    ),
    "stages with other numbers of MoE layers": (
        {"pipeline_model_parallel_size": 2},
        [(1,), (1,), (2, 3, 4), (2, 3, 4)],
        [[[[8]], [[8]], [[0]], [[1]]]],
    ),
    "expert parallelism": (
        {"expert_model_parallel_size": 4},
        [(2,)] * 4,
        [[[[3, 3]], [[2, 2]], [[2, 2]], [[2, 2]]], [[[2]], [[2]], [[2]], [[2]]]],
    ),
    "several micro-batches, a rank without any": (
        {},
        [(1, 4)] * 4,
        [[[[8], [1, 1]], [], [[4]], [[2], [2], [2]]]],
    ),
}


@pytest.mark.parametrize(("sizes", "layers", "active"), WORLDS.values(), ids=WORLDS)
def test_lambda_is_that_of_one_process_on_every_rank(world, sizes, layers, active):
    results = world.run(steps_of_the_hook, sizes, layers, active, START)
    coeff = torch.tensor(START)
    for step, by_rank in enumerate(active):
        pairs = [sum(map(sum, batches)) * len(layers[r]) for r, batches in enumerate(by_rank)]
        slots = [sum(map(len, batches)) * len(layers[r]) * E for r, batches in enumerate(by_rank)]
        value = sparsity(torch.tensor(sum(pairs)), torch.tensor(sum(slots)))
        coeff = update_reg_coeff(coeff, value, target_sparsity(TOPK, E), 1.2)
        for table, pending, own, calls in (rank[step] for rank in results):
            assert torch.equal(table, results[0][step][0]), "all ranks have one table"
            assert table[:, :E].sum() == sum(pairs) and table[:, E].sum() * E == sum(slots)
            assert torch.equal(pending, coeff)
            assert all(torch.equal(mine, coeff) for mine in own)
            assert calls == [(4 * (E + 8), (), {})], "one all-reduce, over the default group"
        assert [len(rank[step][2]) for rank in results] == [len(held) for held in layers]
