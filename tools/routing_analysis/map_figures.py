"""Figures of whole routing maps: of one checkpoint, and from one to the next."""

import warnings

import numpy as np

from remoe.analysis import chunks, coactivation, divergence, experts_per_token, stability
from remoe.analysis.counting import record_of
from remoe.analysis.maps import RoutingMaps
from routing_analysis.count_figures import correlate_domains, figures_of_counts


def figures_of_maps(maps: RoutingMaps) -> dict:
    """All figures of one checkpoint."""
    routing_map = maps.routing_map()
    figures = {"step": maps.step, **_losses(maps), **figures_of_counts(record_of(maps))}
    figures["divergence"] |= correlate_domains(
        divergence.jensen_shannon(_unigrams(maps)), figures["divergence"]["expert_loads"]
    )
    figures["token_frequency"] |= _frequency_correlations(maps.token_ids.ravel(), routing_map)
    length = maps.sequence_length
    return figures | {
        "coactivation": coactivation.coactivation(routing_map),
        "coactivation_lift": coactivation.lift(routing_map),
        "chunks": {
            str(size): {
                "chunk_sparsity": chunks.chunk_sparsity(routing_map, length, size),
                "independent_sparsity": chunks.independent_sparsity(routing_map, size),
            }
            for size in chunks.SIZES
        },
    }


def _frequency_correlations(token_ids: np.ndarray, routing_map: np.ndarray) -> dict:
    """Of the experts that a token uses in all layers, and of each layer."""
    active = routing_map.sum(-1)  # [L, T]
    of_all = experts_per_token.frequency_correlation(token_ids, active.sum(0))
    of_layers = [experts_per_token.frequency_correlation(token_ids, layer) for layer in active]
    return {
        "correlation": vars(of_all),
        "correlation_by_layer": [vars(layer) for layer in of_layers],
    }


def _losses(maps: RoutingMaps) -> dict:
    if maps.losses is None:
        return {}
    domains = range(len(maps.meta["domain_names"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a domain, or sequences, of one token
        return {
            "loss": np.nanmean(maps.losses, dtype=np.float64),
            "loss_by_domain": [
                np.nanmean(maps.losses[maps.domains == d], dtype=np.float64) for d in domains
            ],
        }


def _unigrams(maps: RoutingMaps) -> np.ndarray:
    """How often each token id occurs in each domain, ``[D, V]``."""
    size = maps.meta["vocab_size"]
    return np.stack(
        [
            np.bincount(maps.token_ids[maps.domains == d].ravel(), minlength=size)
            for d in range(len(maps.meta["domain_names"]))
        ]
    )


class Course:
    """What changes over checkpoints: two maps are in memory at a time.

    Args:
        last: The maps of the last checkpoint.
    """

    def __init__(self, last: RoutingMaps) -> None:
        self._last = last.routing_map()
        self._earlier: tuple[int, np.ndarray] | None = None
        self.flips: list[dict] = []
        self.saturation: list[dict] = []

    def add(self, maps: RoutingMaps) -> None:
        """Compare the next checkpoint, in the order of steps, with the one before and the last."""
        routing_map = maps.routing_map()
        if self._earlier is not None:
            step, earlier = self._earlier
            self.flips.append(
                {
                    "from_step": step,
                    "to_step": maps.step,
                    "flip_rate": stability.flip_rate(routing_map, earlier),
                    "flip_count": stability.flip_count(routing_map, earlier),
                    "flip_rate_by_layer": stability.flips_by_layer(routing_map, earlier),
                }
            )
        self._earlier = (maps.step, routing_map)
        self.saturation.append(
            {
                "step": maps.step,
                "saturation": stability.saturation(routing_map, self._last),
                "kept": stability.saturation(self._last, routing_map),
            }
        )
