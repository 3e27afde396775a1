"""Sums routing maps to the counts that a record of training or evaluation has."""

import numpy as np

from remoe.analysis.experts_per_token import histogram
from remoe.analysis.maps import RoutingMaps
from remoe.analysis.record import FORMAT, RoutingRecord

FOLLOWED_IDS = 1024


def record_of(maps: RoutingMaps, num_followed: int = FOLLOWED_IDS) -> RoutingRecord:
    """The counts of routing maps, as of an evaluation.

    Args:
        maps: Of one checkpoint.
        num_followed: Token ids that are followed expert by expert: the most frequent ones.

    Returns:
        A record. Without gates in the maps its gate sums are NaN.
    """
    routing_map = maps.routing_map()
    num_layers, num_tokens, num_experts = routing_map.shape
    tokens = maps.token_ids.ravel()
    vocab_size, names = maps.meta["vocab_size"], maps.meta["domain_names"]
    token_count = np.bincount(tokens, minlength=vocab_size)
    followed = np.argsort(-token_count, kind="stable")[:num_followed]
    by_domain = np.zeros((len(names), num_layers, num_experts), np.int64)
    by_token = np.zeros((vocab_size, num_layers, num_experts), np.int64)
    for layer, active in enumerate(routing_map):
        np.add.at(by_domain[:, layer], maps.token_domains(), active)
        rows, experts = np.nonzero(active)
        places = tokens[rows].astype(np.int64) * num_experts + experts
        counts = np.bincount(places, minlength=vocab_size * num_experts)
        by_token[:, layer] = counts.reshape(vocab_size, num_experts)
    gates = np.full((num_layers, 1, num_experts), np.nan) if maps.gates is None else maps.gates
    gates = gates.astype(np.float64)
    shared = ("step", "method", "topk", "moe_layers", "domain_names", "vocab_size")
    return RoutingRecord(
        meta={
            "format": FORMAT,
            "phase": "valid",
            "num_steps": 1,
            **{name: maps.meta[name] for name in shared},
        },
        num_tokens=np.array(num_tokens, np.int64),
        tokens_per_expert=routing_map.sum(1),
        experts_per_token=histogram(routing_map),
        gate_sum=gates.sum(1),
        gate_square_sum=(gates**2).sum(1),
        gate_max=gates.max(1, initial=0.0).astype(np.float32),
        domain_tokens=np.bincount(maps.token_domains(), minlength=len(names)),
        domain_tokens_per_expert=by_domain,
        token_count=token_count,
        token_active=by_token.sum(2),
        token_expert_ids=followed,
        token_tokens_per_expert=by_token[followed],
    )
