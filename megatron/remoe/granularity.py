"""Granularity: splits each expert into G narrower ones, for ReLU and TopK routing alike."""

from argparse import Namespace


def apply_granularity(args: Namespace) -> None:
    """Split experts: ``E*G`` experts of width ``d_ffn/G``, top-``k*G``; the sparsity stays.

    Args:
        args: Parsed, not yet validated by Megatron. Changed in place.

    Source: arXiv 2412.14711, eq. 12 and 13.
    """
    if args.moe_granularity == 1:
        return
    args.moe_ffn_hidden_size = expert_width(args) // args.moe_granularity
    args.num_experts *= args.moe_granularity
    args.moe_router_topk *= args.moe_granularity


def expert_width(args: Namespace) -> int | None:
    """Width of one expert before it is split, by Megatron's own defaults; None if nothing says."""
    width = args.moe_ffn_hidden_size or args.ffn_hidden_size
    if width or not args.hidden_size:
        return width
    # validate_args: 4h, or with SwiGLU 2/3 of it in multiples of 64
    return int((4 * args.hidden_size * 2 / 3) / 64) * 64 if args.swiglu else 4 * args.hidden_size
