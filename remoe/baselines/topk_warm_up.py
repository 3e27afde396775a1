"""TopK routing that starts nearly dense: the schedule of k."""


def default_warm_up_experts(topk: int, num_experts: int) -> int:
    """Experts a token while warming up where nothing is said: 3/4 of all, rounded down, at least k.

    Source: arXiv 2412.14711, which warms TopK up with 6 of 8 experts to ask how much of ReMoE's lead
    its own dense stage explains.
    """
    return max(topk, 3 * num_experts // 4)


def topk_at_step(topk: int, warm_up_experts: int, warm_up_steps: int, step: int) -> int:
    """Experts a token at a training step: `warm_up_experts` in the first `warm_up_steps`, then k.

    Args:
        topk: ``k``.
        warm_up_experts: From k to ``E``.
        warm_up_steps: Steps that are warm; 0 for none.
        step: Counts from 0.
    """
    return warm_up_experts if step < warm_up_steps else topk
