"""The regulariser over a TP x CP group: load and T are the group's, the parts add up to the whole.

Two groups of two ranks (context parallelism 2 beside data parallelism 2). The truth is one process
with the valid tokens of both ranks of a group.
"""

import pytest
import torch

from moe_layers import LAMBDA, assert_parity
from ranks_moe import routers_of_a_group
from remoe import expert_load, l1_loss

T, E, TOPK, HIDDEN, RANKS = 6, 8, 2, 16, 4
GROUPS = [(0, 1), (2, 3)]
PADDING = {
    "no mask": None,
    "no padding": [[], [], [], []],
    "other numbers of valid tokens": [[0], [1, 2, 3], [], [0, 1, 2, 3, 4]],
    "a rank of padding alone": [list(range(T)), [], [2], list(range(T))],
    "nothing but padding": [list(range(T))] * RANKS,
}


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(E, HIDDEN, generator=generator)
    return weight, [torch.randn(T, HIDDEN, generator=generator) for _ in range(RANKS)]


@pytest.mark.parametrize("load_balancing", ["micro-batch", "none"])
@pytest.mark.parametrize("per_token", [False, True], ids=["by micro-batch", "per token"])
@pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)
def test_gradients_of_the_group_are_those_of_one_process(
    world, inputs, padding, per_token, load_balancing
):
    weight, tokens = inputs
    masks = None
    if padding is not None:
        masks = [torch.zeros(T, dtype=torch.bool) for _ in range(RANKS)]
        for mask, rows in zip(masks, padding, strict=True):
            mask[rows] = True
    options = {"num_experts": E, "topk": TOPK, "hidden": HIDDEN}
    options |= {"calculate_per_token_loss": per_token, "moe_relu_load_balancing": load_balancing}
    sizes = {"context_parallel_size": 2}
    results = world.run(routers_of_a_group, sizes, options, weight, tokens, masks)

    for group in GROUPS:
        rows = [tokens[r] if masks is None else tokens[r][~masks[r]] for r in group]
        leaf = weight.clone().requires_grad_()
        probs = (torch.cat(rows) @ leaf.T).relu()
        counts = (probs > 0).sum(0)
        load = expert_load(counts, TOPK, len(probs)) if load_balancing == "micro-batch" else None
        loss = l1_loss(probs, load)
        # Megatron divides by the valid tokens of the global batch where the loss is per token.
        (LAMBDA * loss * (len(probs) if per_token else 1)).backward()
        total = sum(results[r][0] for r in group)
        assert_parity({"router": total}, {"router": leaf.grad})
        assert torch.equal(sum(results[r][1][:E] for r in group), counts)
        assert [results[r][1][E].item() for r in group] == [len(part) for part in rows]
        part_losses = sum(results[r][2] for r in group).float()
        torch.testing.assert_close(part_losses, loss.detach(), rtol=1e-5, atol=1e-7)
        assert sum(results[r][3] for r in group) == 1, "the parts count as one loss in the log"
