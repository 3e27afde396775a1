"""The regulariser over a TP x CP group: load and T are the group's, the parts add up to the whole.

Two groups of two ranks (context parallelism 2 beside data parallelism 2). The truth is one process
with the valid tokens of both ranks of a group.
"""

from itertools import product

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


GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(E, HIDDEN, generator=GENERATOR)
TOKENS = [torch.randn(T, HIDDEN, generator=GENERATOR) for _ in range(RANKS)]


def make_cases():
    """Name -> (options of the config, masks by rank or None)."""
    cases = {}
    for (kind, padding), per_token, load in product(
        PADDING.items(), (False, True), ("micro-batch", "none")
    ):
        masks = None
        if padding is not None:
            masks = [torch.zeros(T, dtype=torch.bool) for _ in range(RANKS)]
            for mask, rows in zip(masks, padding, strict=True):
                mask[rows] = True
        options = {"num_experts": E, "topk": TOPK, "hidden": HIDDEN}
        options |= {"calculate_per_token_loss": per_token, "moe_relu_load_balancing": load}
        scaling = "per token" if per_token else "by micro-batch"
        cases[f"{kind}, {scaling}, load {load}"] = (options, masks)
    return cases


CASES = make_cases()


@pytest.fixture(scope="module")
def results(world):
    return world.run(routers_of_a_group, {"context_parallel_size": 2}, WEIGHT, TOKENS, CASES)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_the_group_are_those_of_one_process(results, name):
    options, masks = CASES[name]
    for group in GROUPS:
        rows = [TOKENS[r] if masks is None else TOKENS[r][~masks[r]] for r in group]
        leaf = WEIGHT.clone().requires_grad_()
        probs = (torch.cat(rows) @ leaf.T).relu()
        counts, load = (probs > 0).sum(0), None
        if options["moe_relu_load_balancing"] == "micro-batch":
            load = expert_load(counts, TOPK, len(probs))
        loss = l1_loss(probs, load)
        # Megatron divides by the valid tokens of the global batch where the loss is per token.
        (LAMBDA * loss * (len(probs) if options["calculate_per_token_loss"] else 1)).backward()

        gradients, part_counts, losses, shares = zip(
            *(results[r][name] for r in group), strict=True
        )
        assert_parity({"router": sum(gradients)}, {"router": leaf.grad})
        assert torch.equal(sum(part_counts)[:E], counts)
        assert [part[E].item() for part in part_counts] == [len(part) for part in rows]
        torch.testing.assert_close(sum(losses).float(), loss.detach(), rtol=1e-5, atol=1e-7)
        assert sum(shares) == 1, "the parts count as one loss in the log"
