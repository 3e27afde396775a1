"""What the ranks of a world run for tests of throughput."""

import resource
from types import SimpleNamespace
from unittest import mock

import torch

from harness import layout
from moe_layers import build_layer, make_config


def count_routing(tokens, weight):
    """Route this rank's tokens in evaluation; the last rank has no router, as a stage may.

    Args:
        tokens: ``[s, b, hidden]`` by rank.
        weight: Of the router.

    Returns:
        The means that the rank knows afterwards.
    """
    from megatron.remoe.throughput.evaluation import RoutingCounter

    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    with layout():
        layer = build_layer(make_config()).eval()
        with torch.no_grad():
            layer.router.weight.copy_(weight)
        model = [torch.nn.Identity() if rank == size - 1 else layer]
        with torch.no_grad(), RoutingCounter(model) as routing:
            layer(tokens[rank])
        return routing.means()


def most_memory():
    """What each rank is told where rank r holds r + 1 GiB at its peak."""
    from megatron.remoe.throughput.peak_memory import peak_memory_gib

    peak = SimpleNamespace(ru_maxrss=(torch.distributed.get_rank() + 1) * 2**20)
    with mock.patch.object(resource, "getrusage", lambda who: peak):
        return peak_memory_gib()
