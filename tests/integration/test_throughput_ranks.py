"""Figures of the log that are summed, or compared, over ranks."""

import torch

from ranks_throughput import count_routing, most_memory


def test_every_rank_knows_the_routing_of_all(world):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 32, generator=generator)
    tokens = [torch.randn(3 + rank, 2, 32, generator=generator) for rank in range(4)]
    routing_map = torch.cat([x.flatten(0, 1) for x in tokens[:-1]]) @ weight.T > 0
    active = routing_map.sum().item() / len(routing_map)
    without = (~routing_map.any(1)).sum().item() / len(routing_map)
    assert world.run(count_routing, tokens, weight) == [(active, without)] * 4


def test_the_peak_is_that_of_the_rank_that_holds_most(world):
    assert world.run(most_memory) == [4.0] * 4
