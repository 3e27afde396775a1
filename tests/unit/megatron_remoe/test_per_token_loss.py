"""`--calculate-per-token-loss`: the regulariser's gradient is the same after Megatron's division.

Two micro-batches of two tokens, E = 2, k = 1, lambda = 1/2, router weight = identity, so that logits
are the tokens themselves:

    micro-batch 1   ( 1, -1) ( 2,  3)    tokens per expert 2 1    f = 2 1    f/T = 1    1/2
    micro-batch 2   (-1, -2) ( 4, -1)    tokens per expert 1 0    f = 1 0    f/T = 1/2  0

    dL1/dW_0 = 1 * ((1,-1) + (2,3)) = (3, 2)      dL1/dW_1 = 1/2 * (2,3) = (1, 3/2)
    dL2/dW_0 = 1/2 * (4,-1)         = (2, -1/2)   dL2/dW_1 = (0, 0)

    lambda * mean over micro-batches:  dW_0 = 1/4 * (5, 3/2)   dW_1 = 1/4 * (1, 3/2)
"""

import pytest
import torch
from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler

from moe_layers import build_layer, make_config

MICRO_BATCHES = ([[1.0, -1.0], [2.0, 3.0]], [[-1.0, -2.0], [4.0, -1.0]])
EXPECTED = torch.tensor([[5.0, 1.5], [1.0, 1.5]]) / 4


def gradient(per_token, micro_batches, padding=0):
    """The router's gradient after Megatron's scaling, as its schedule and finalize step do it."""
    config = make_config(2, 1, hidden=2, calculate_per_token_loss=per_token)
    router = build_layer(config).router
    with torch.no_grad():
        router.weight.copy_(torch.eye(2))
    # schedules.py: forward_step_calc_loss; without a grad scaler and context parallelism
    scale = 1.0 if per_token else 1.0 / len(micro_batches)
    MoEAuxLossAutoScaler.set_loss_scale(torch.tensor(scale))
    num_tokens = 0
    for rows in micro_batches:
        x = torch.tensor(rows + [[7.0, 7.0]] * padding).view(-1, 1, 2)
        mask = torch.tensor([False] * len(rows) + [True] * padding).view(-1, 1)
        probs, _ = router(x, mask if padding else None)
        probs.backward(torch.zeros_like(probs))
        num_tokens += len(rows)
    # finalize_model_grads.py: scale_gradients(1 / total tokens)
    return router.weight.grad / num_tokens if per_token else router.weight.grad


@pytest.mark.parametrize("padding", [0, 3], ids=["no padding", "padding"])
@pytest.mark.parametrize("per_token", [False, True], ids=["by micro-batch", "per token"])
def test_both_ways_give_the_worked_gradient(single_rank, per_token, padding):
    torch.testing.assert_close(gradient(per_token, MICRO_BATCHES, padding), EXPECTED)


def test_per_token_weighs_a_longer_micro_batch_more(single_rank):
    """The other half of the contract: tokens, not micro-batches, have equal weight."""
    long, short = [[1.0, -1.0]] * 3, [[1.0, -1.0]]
    # f_0 = E = 2, f_1 = 0; dL/dW_0 = 2 * (1, -1) in either micro-batch
    by_token = gradient(True, (long, short))
    torch.testing.assert_close(by_token[0], 0.5 * 2 * torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(by_token, gradient(False, (long, short)))
    uneven = gradient(True, (long, [[-1.0, 1.0]]))
    # dW_0 = 1/2 * 3/4 * 2 (1,-1), dW_1 = 1/2 * 1/4 * 2 (-1,1)
    torch.testing.assert_close(uneven, torch.tensor([[0.75, -0.75], [-0.25, 0.25]]))
