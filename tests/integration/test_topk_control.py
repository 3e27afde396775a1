"""Our MoE layer and dispatcher around Megatron's TopK router are Megatron's own, bit for bit."""

import pytest
import torch

from ranks_moe import topk_layers


@pytest.mark.parametrize("dispatcher", ["alltoall", "allgather"])
@pytest.mark.parametrize("experts", [1, 2, 4], ids=lambda size: f"EP {size}")
def test_topk_is_megatrons_own(world, experts, dispatcher):
    sizes = {"expert_model_parallel_size": experts}
    for stock, ours in world.run(topk_layers, sizes, dispatcher):
        assert stock.keys() == ours.keys()
        assert all(torch.equal(stock[name], ours[name]) for name in stock)
        assert all(value.abs().sum() > 0 for name, value in ours.items() if "expert" not in name)
