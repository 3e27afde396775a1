"""Whether experts are chosen by the domain of a text, or by the token."""

import math

import numpy as np

from remoe.analysis.ratios import ratio


def by_domain(domain_tokens_per_expert: np.ndarray, domain_tokens: np.ndarray) -> np.ndarray:
    """Share of each domain's tokens that visit each expert.

    Args:
        domain_tokens_per_expert: ``[D, L, E]`` counts.
        domain_tokens: ``[D]`` tokens.

    Returns:
        ``[D, L, E]``: over E they add up to the active experts a token; NaN for a domain without tokens.
    """
    return ratio(domain_tokens_per_expert, domain_tokens[:, None, None])


def by_token(token_tokens_per_expert: np.ndarray, token_count: np.ndarray) -> np.ndarray:
    """Share of each token id's occurrences that visit each expert.

    Args:
        token_tokens_per_expert: ``[N, L, E]`` counts of N token ids.
        token_count: ``[N]`` occurrences of these.

    Returns:
        ``[N, L, E]``; NaN for an id that does not occur.
    """
    return ratio(token_tokens_per_expert, token_count[:, None, None])


def divergence_from_uniform(weights: np.ndarray, axis: int = -1) -> np.ndarray:
    """Kullback-Leibler divergence from the uniform distribution, ``log2 n - H(p)``, in bits.

    0 is even use, ``log2 n`` all on one of n. With ``weights[D, L, E]`` axis 2 asks how much a domain
    prefers some experts, axis 0 how much an expert prefers some domains (give shares there, not counts,
    or a large domain counts as preferred). Of few observations it is too large: by about
    ``(n - 1) / (2 m ln 2)`` for m of them.

    Args:
        weights: Counts or shares, not negative; made to add up to 1 along `axis`.
        axis: Of the n alternatives.

    Returns:
        The shape of `weights` without `axis`; NaN where the weights are all 0.
    """
    p = ratio(weights, weights.sum(axis, keepdims=True))
    terms = p * np.log2(p, out=np.zeros_like(p), where=p > 0)
    return np.maximum(math.log2(weights.shape[axis]) + terms.sum(axis), 0.0)


def mutual_information(counts: np.ndarray) -> float:
    """What the row (domain, token id) says of the expert, in bits for each visit of an expert.

    ``I = sum p(r, e) log2(p(r, e) / (p(r) p(e)))``, less its bias of ``(R - 1)(E - 1) / (2 n ln 2)`` for
    n visits, R rows and E columns that are not empty (Miller and Madow, 1955), and not below 0. Visits
    are taken as independent, though a token's several experts are not.

    Args:
        counts: ``[R, E]`` visits.

    Returns:
        0 where the expert does not depend on the row; NaN without visits.
    """
    total = counts.sum()
    if total == 0:
        return math.nan
    joint = counts / total
    rows, columns = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    odds = ratio(joint, rows * columns)
    plain = (joint * np.log2(odds, out=np.zeros_like(odds), where=joint > 0)).sum()
    freedom = (np.count_nonzero(rows) - 1) * (np.count_nonzero(columns) - 1)
    return max(float(plain - freedom / (2 * total * math.log(2))), 0.0)
