"""The tokens of the micro-batch that runs, for routers, which see hidden states only."""

import contextlib
from argparse import Namespace
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor
from torch.distributed import ProcessGroup

from megatron.remoe.recording.schedule import is_recorded


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass of a pipeline stage runs on.

    Attributes:
        token_ids: Of this context-parallel rank, ``[b, s]`` int64.
        domains: Which data set of the blend each sample is from, ``[b]`` int64; 0 without a blend.
    """

    token_ids: Tensor
    domains: Tensor


_current: ContextVar[MicroBatch | None] = ContextVar("remoe_micro_batch", default=None)


def routers_need_tokens(args: Namespace) -> bool:
    """Whether an option asks for token ids in the routers, so that every pipeline stage reads data."""
    records = getattr(args, "record_routing", None) is not None
    return records or _routes_by_token(args)


def routers_need_these_tokens(args: Namespace, is_training: bool) -> bool:
    """Whether it asks for those of this forward pass."""
    return _routes_by_token(args) or is_recorded(args, is_training)


def _routes_by_token(args: Namespace) -> bool:
    return getattr(args, "moe_routing", None) == "hash"


@contextlib.contextmanager
def in_forward(micro_batch: MicroBatch | None) -> Iterator[None]:
    """Let `current` be `micro_batch` in the block. Outside, so in recomputation, there is none."""
    token = _current.set(micro_batch)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> MicroBatch | None:
    """The micro-batch of the forward pass that runs, or None."""
    return _current.get()


def tokens_of_rank(micro_batch: MicroBatch, num_tokens: int, tp_group: ProcessGroup) -> Tensor:
    """Token ids in the order in which a router flattens ``[s, b, h]``.

    Args:
        micro_batch: `current()`.
        num_tokens: Tokens that the router sees: all, or with sequence parallelism its slice of ``s``.
        tp_group: Tensor-parallel ranks.

    Returns:
        ``[num_tokens]`` int64.

    Raises:
        ValueError: If the router sees another number of tokens.
    """
    return _of_rank(micro_batch.token_ids, num_tokens, tp_group)


def domains_of_rank(micro_batch: MicroBatch, num_tokens: int, tp_group: ProcessGroup) -> Tensor:
    """The domain of each token, as `tokens_of_rank` orders them: ``[num_tokens]`` int64."""
    domains = micro_batch.domains[:, None].expand_as(micro_batch.token_ids)
    return _of_rank(domains, num_tokens, tp_group)


def _of_rank(values: Tensor, num_tokens: int, tp_group: ProcessGroup) -> Tensor:
    by_position = values.t()  # [b, s] -> [s, b]
    if num_tokens * tp_group.size() == values.numel():
        by_position = by_position.chunk(tp_group.size())[tp_group.rank()]
    elif num_tokens != values.numel():
        raise ValueError(
            f"a router saw {num_tokens} tokens of a micro-batch of {values.numel()}: token ids are "
            "known of whole sequences and of their sequence-parallel slices alone"
        )
    return by_position.reshape(-1)
