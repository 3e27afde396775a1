"""Figures of counts: of a record of training or evaluation, or of maps summed to one."""

import numpy as np

from remoe.analysis import divergence, experts_per_token, load_balance, specialisation
from remoe.analysis.record import RoutingRecord

RANKS = (2, 4, 8)
# Visits of a token id's experts in a layer: fewer look specialised by chance.
LEAST_VISITS = 50


def figures_of_counts(record: RoutingRecord) -> dict:
    """All figures that need counts alone, as nested dictionaries of arrays and numbers."""
    return {
        **_experts_per_token(record),
        "load_balance": _load_balance(record),
        "token_frequency": _token_frequency(record),
        "specialisation": _specialisation(record),
        "divergence": _divergence(record),
    }


def _experts_per_token(record: RoutingRecord) -> dict:
    by_layer = experts_per_token.by_layer(record.tokens_per_expert, int(record.num_tokens))
    return {
        "num_tokens": int(record.num_tokens),
        "active_experts": by_layer.mean(),
        "sparsity": 1 - by_layer.mean() / record.num_experts,
        "active_experts_by_layer": by_layer,
        "active_experts_by_domain": experts_per_token.by_domain(
            record.domain_tokens_per_expert, record.domain_tokens
        ),
        "tokens_without_expert_by_layer": record.tokens_without_expert,
        "experts_per_token": record.experts_per_token,
    }


def _load_balance(record: RoutingRecord) -> dict:
    loads = record.tokens_per_expert
    ranks = [num for num in RANKS if record.num_experts % num == 0]
    return {
        "tokens_per_expert": loads,
        "coefficient_of_variation": load_balance.coefficient_of_variation(loads),
        "max_over_mean": load_balance.max_over_mean(loads),
        "fraction_below": load_balance.fraction_below(loads, int(record.num_tokens)),
        "dead_experts": record.dead_experts,
        "over_ranks": {str(num): _over_ranks(loads, num) for num in ranks},
    }


def _over_ranks(loads: np.ndarray, num_ranks: int) -> dict:
    rows = load_balance.over_ranks(loads, num_ranks)
    return {
        "coefficient_of_variation": load_balance.coefficient_of_variation(rows),
        "max_over_mean": load_balance.max_over_mean(rows),
    }


def _token_frequency(record: RoutingRecord) -> dict:
    found = experts_per_token.mean_by_token_frequency(record.token_count, record.token_active)
    return {"bins": vars(found)}


def _specialisation(record: RoutingRecord) -> dict:
    shares = specialisation.by_domain(record.domain_tokens_per_expert, record.domain_tokens)
    of_tokens = record.token_tokens_per_expert
    layers = range(record.num_layers)
    return {
        "domain_shares": shares,
        "domain_divergence": specialisation.divergence_from_uniform(shares),
        "expert_divergence": specialisation.divergence_from_uniform(shares, axis=0),
        "domain_information": [
            specialisation.mutual_information(record.domain_tokens_per_expert[:, layer])
            for layer in layers
        ],
        "load_divergence": specialisation.divergence_from_uniform(record.tokens_per_expert),
        "token_divergence": [_token_divergence(of_tokens[:, layer]) for layer in layers],
        "token_information": [
            specialisation.mutual_information(of_tokens[:, layer]) for layer in layers
        ],
    }


def _token_divergence(visits: np.ndarray) -> float:
    """Divergence from uniform of token ids with enough visits, mean over their visits."""
    visits = visits[visits.sum(1) >= LEAST_VISITS]
    if not len(visits):
        return np.nan
    found = specialisation.divergence_from_uniform(visits)
    return float(np.average(found, weights=visits.sum(1)))


def _divergence(record: RoutingRecord) -> dict:
    by_layer = np.stack(
        [
            divergence.jensen_shannon(record.domain_tokens_per_expert[:, layer])
            for layer in range(record.num_layers)
        ]
    )
    return {"expert_loads": by_layer}


def correlate_domains(unigrams: np.ndarray, expert_loads: np.ndarray) -> dict:
    """Whether domains whose tokens differ use different experts.

    Args:
        unigrams: ``[D, D]`` divergences of the domains' tokens.
        expert_loads: ``[L, D, D]`` divergences of their experts' loads.
    """
    found = divergence.correlation(unigrams, expert_loads.mean(0))
    layers = [divergence.correlation(unigrams, layer) for layer in expert_loads]
    return {
        "unigrams": unigrams,
        "correlation": vars(found),
        "correlation_by_layer": [vars(layer) for layer in layers],
    }
