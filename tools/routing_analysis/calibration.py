"""The calibration text: a fixed number of token sequences from each domain, spread over its text."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evaluation.errors import EvaluationError


@dataclass(frozen=True)
class TokenStream:
    """The tokens of a domain's text, one document after another.

    Attributes:
        name: Of the domain.
        length: Tokens.
        read: Gives `count` tokens from a position.
    """

    name: str
    length: int
    read: Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Calibration:
    """Sequences of tokens on which all checkpoints are looked at.

    Attributes:
        token_ids: ``[S, n]`` int32.
        domains: ``[S]`` int32, index into `names`.
        names: Of the domains.
        source: Where the text is from, in words.
    """

    token_ids: np.ndarray
    domains: np.ndarray
    names: list[str]
    source: str


def sample(streams: list[TokenStream], num_tokens: int, length: int, source: str) -> Calibration:
    """Sequences of equal number from each domain, evenly spread over its text.

    Neighbouring sequences do not overlap; a sequence may begin within a document, as in training.

    Args:
        streams: One a domain.
        num_tokens: Of all domains together, at most.
        length: Tokens of a sequence.
        source: In words.

    Raises:
        EvaluationError: If a domain has not one sequence, or `num_tokens` is too small.
    """
    wanted = num_tokens // len(streams) // length
    if wanted < 1:
        least = len(streams) * length
        raise EvaluationError(
            f"--tokens {num_tokens}: {len(streams)} domains of one sequence of {length} tokens are "
            f"{least}: give as many, or a smaller --sequence-length"
        )
    rows, domains = [], []
    for index, stream in enumerate(streams):
        there = stream.length // length
        if there < 1:
            raise EvaluationError(
                f"{source}: {stream.name} has {stream.length} tokens, and a sequence is {length}: "
                "give more text, or a smaller --sequence-length"
            )
        num = min(wanted, there)
        chosen = (np.arange(num) * there) // num
        rows += [stream.read(int(i) * length, length) for i in chosen]
        domains += [index] * num
    return Calibration(
        np.stack(rows).astype(np.int32),
        np.array(domains, np.int32),
        [stream.name for stream in streams],
        source,
    )
