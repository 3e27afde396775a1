"""A whole GPT under each parallel layout has the gradients, and the lambda, of one process.

Megatron's builder, DDP, schedules and finalize step are in between: what reaches a parameter is the
gradient of the mean loss plus lambda * L_reg of each layer, averaged over the same micro-batches.
"""

import pytest
import torch

from moe_layers import LAMBDA, assert_parity
from ranks_gpt import gpt_step

LAYOUTS = {
    "DP 4": {},
    "EP 2, DP 4": {"expert_model_parallel_size": 2},
    "EP 4, DP 4": {"expert_model_parallel_size": 4},
    # the second stage has no MoE layer
    "PP 2, DP 2": {"pipeline_model_parallel_size": 2},
    "PP 2, EP 2": {"pipeline_model_parallel_size": 2, "expert_model_parallel_size": 2},
    "PP 4": {"pipeline_model_parallel_size": 4},
    # each rank holds a stage with and one without MoE
    "PP 2, VPP 2, DP 2": {
        "pipeline_model_parallel_size": 2,
        "virtual_pipeline_model_parallel_size": 2,
    },
}
LOSSES = {"by micro-batch": {}, "per token": {"calculate_per_token_loss": True}}


@pytest.fixture(scope="module")
def single(single_rank):
    return {name: gpt_step(None, changes) for name, changes in LOSSES.items()}


def compare(results, expected):
    gradients, table, pending, _ = expected
    seen = set()
    for ours, our_table, our_pending, own in results:
        assert_parity(ours, {name: gradients[name] for name in ours})
        seen |= set(ours)
        # what was counted; losses are sums in another order
        assert torch.equal(our_table[:, :-5], table[:, :-5])
        torch.testing.assert_close(our_table[:, -5:-3], table[:, -5:-3])
        assert torch.equal(our_pending, pending)
        assert all(torch.equal(coeff, pending) for coeff in own)
    assert seen == set(gradients)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", LAYOUTS.values(), ids=LAYOUTS)
def test_the_layout_changes_neither_gradients_nor_lambda(world, single, sizes, loss):
    results = world.run(gpt_step, sizes, LOSSES[loss], timeout=120)
    compare(results, single[loss])


@pytest.mark.parametrize(
    ("changes", "overlap"),
    [
        ({"moe_token_dispatcher_type": "allgather"}, False),
        (
            {
                "recompute_granularity": "full",
                "recompute_method": "uniform",
                "recompute_num_layers": 1,
            },
            False,
        ),
        ({"recompute_granularity": "selective", "recompute_modules": ["moe"]}, False),
        ({}, True),
    ],
    ids=["allgather", "full recompute", "recompute of MoE layers", "overlapped reduction"],
)
def test_how_it_is_computed_changes_nothing(world, single, changes, overlap):
    sizes = {"expert_model_parallel_size": 2}
    results = world.run(gpt_step, sizes, changes, overlap, timeout=120)
    compare(results, single["by micro-batch"])


@pytest.mark.parametrize("sizes", [LAYOUTS["EP 2, DP 4"], LAYOUTS["PP 2, EP 2"]], ids=str)
def test_a_cap_drops_the_same_pairs_in_every_layout(world, single_rank, sizes):
    changes = {"moe_relu_max_active_experts": 3, "moe_relu_cap_steps": 10}
    expected = gpt_step(None, changes)
    compare(world.run(gpt_step, sizes, changes, timeout=120), expected)
    assert (expected[1][:2, -6] > 0).all(), "dropped pairs, summed over all ranks"


def test_the_regulariser_is_in_these_gradients(single_rank, single):
    """The test above can fail: without lambda the routers' gradients differ, and only those before."""
    without = gpt_step(None, {"moe_relu_l1_reg_coeff_init": 1e-30})[0]
    for name, gradient in single["by micro-batch"][0].items():
        if "router" in name:
            assert (gradient - without[name]).norm() > 0.1 * without[name].norm(), name


def test_the_loss_normalisation_changes_nothing_here(single):
    """Micro-batches are equally long: per token and by micro-batch are one thing."""
    assert_parity(single["per token"][0], single["by micro-batch"][0])


def test_lambda_moved_once(single):
    _, table, pending, own = single["by micro-batch"]
    density = (table[:, :8].sum() / (table[:, 8].sum() * 8)).item()
    assert density > 0.25, "a dense start"
    torch.testing.assert_close(pending, torch.tensor(LAMBDA * 1.2))
    assert len(own) == 2 and all(torch.equal(coeff, pending) for coeff in own)
    assert table[2:].abs().sum() == 0, "dense layers have empty rows"
