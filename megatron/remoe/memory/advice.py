"""Options that let a run fit into memory, each with the value that does and what is then needed."""

from dataclasses import dataclass, replace

from megatron.remoe.memory.estimate import peak
from megatron.remoe.memory.shape import Shape


@dataclass(frozen=True)
class Mend:
    """One way to make a run fit.

    Attributes:
        flags: As to be written on the command line.
        shape: The run with them.
        remark: What it costs or presumes.
    """

    flags: str
    shape: Shape
    remark: str

    @property
    def total(self) -> float:
        """Bytes of the fullest rank at its peak."""
        return peak(self.shape).total


def mends(shape: Shape, limit: float) -> list[Mend]:
    """What makes a run fit, the mildest first; empty if no option alone does.

    Args:
        shape: Of the run as it is.
        limit: Bytes that it may need on a rank.
    """
    tried = (
        chunks,
        cap,
        smaller_warm_up,
        full_recompute,
        smaller_micro_batch,
        more_expert_parallelism,
    )
    return [mend for mend in (try_it(shape, limit) for try_it in tried) if mend]


def chunks(shape: Shape, limit: float) -> Mend | None:
    """`--moe-relu-chunk-above` with the largest whole number from k on that fits."""
    if not shape.can_chunk:
        return None
    return _first_that_fits(
        limit,
        (
            Mend(
                f"--moe-relu-chunk-above {bound}",
                replace(shape, chunk_above=bound),
                "same result; computes experts twice while a token has more active ones",
            )
            for bound in _fewer_experts(shape, shape.chunk_above)
        ),
    )


def cap(shape: Shape, limit: float) -> Mend | None:
    """`--moe-relu-max-active-experts` with the largest number from k on that fits."""
    if shape.topk_warm_up is not None:
        return None
    return _first_that_fits(
        limit,
        (
            Mend(
                f"--moe-relu-max-active-experts {bound} --moe-relu-cap-steps N",
                replace(shape, cap=bound),
                "N: steps until routing is sparse by itself, 100 to 200; other results at first",
            )
            for bound in _fewer_experts(shape, shape.cap)
        ),
    )


def smaller_warm_up(shape: Shape, limit: float) -> Mend | None:
    """`--moe-topk-warmup-experts` with the largest number from k on that fits."""
    if shape.topk_warm_up is None:
        return None
    return _first_that_fits(
        limit,
        (
            Mend(
                f"--moe-topk-warmup-experts {bound}",
                replace(shape, topk_warm_up=bound),
                "other results at first",
            )
            for bound in _fewer_experts(shape, None)
        ),
    )


def full_recompute(shape: Shape, limit: float) -> Mend | None:
    """Recompute of whole layers."""
    if shape.recompute == "uniform" and shape.recompute_layers == 1:
        return None
    mend = Mend(
        "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1",
        replace(shape, recompute="uniform", recompute_layers=1, recomputes_moe=False),
        "same result; computes all layers twice, always",
    )
    return _first_that_fits(limit, [mend])


def smaller_micro_batch(shape: Shape, limit: float) -> Mend | None:
    """The largest smaller `--micro-batch-size` that fits and divides the global batch."""
    replicas = shape.replicas // shape.cp
    sizes = (
        size
        for size in range(shape.micro_batch - 1, 0, -1)
        if shape.global_batch % (size * replicas) == 0
    )
    return _first_that_fits(
        limit,
        (
            Mend(
                f"--micro-batch-size {size}",
                replace(shape, micro_batch=size),
                "balances the load of fewer tokens at a time",
            )
            for size in sizes
        ),
    )


def more_expert_parallelism(shape: Shape, limit: float) -> Mend | None:
    """The smallest larger `--expert-model-parallel-size`: fewer weights on a rank, as many rows."""
    if not shape.can_spread:
        return None
    ranks = shape.ep * shape.expert_replicas
    sizes = (
        size
        for size in range(shape.ep + 1, ranks + 1)
        if ranks % size == 0 and shape.num_experts % size == 0
    )
    return _first_that_fits(
        limit,
        (
            Mend(
                f"--expert-model-parallel-size {size}",
                replace(shape, ep=size),
                "same result; more exchange between ranks",
            )
            for size in sizes
        ),
    )


def least(shape: Shape) -> tuple[str, float]:
    """Options that together save all that can be: a dense stage at k, full recompute, one sequence.

    Args:
        shape: Of the run.

    Returns:
        The options in words, and bytes of the fullest rank at its peak with them.
    """
    small = replace(shape, recompute="uniform", recompute_layers=1, recomputes_moe=False)
    if shape.topk_warm_up is None:
        flag, small = "--moe-relu-chunk-above", replace(small, chunk_above=shape.topk)
    else:
        flag, small = "--moe-topk-warmup-experts", replace(small, topk_warm_up=shape.topk)
    options = f"{flag} {shape.topk}, full recompute and --micro-batch-size 1"
    return options, peak(replace(small, micro_batch=1)).total


def _fewer_experts(shape: Shape, bound: float | None) -> range:
    """Whole numbers below what is active at the start, or below the bound that there is, down to k."""
    most = min(bound or shape.num_experts, shape.dense_active)
    return range(-int(-most // 1) - 1, shape.topk - 1, -1)


def _first_that_fits(limit: float, tried) -> Mend | None:
    return next((mend for mend in tried if mend.total <= limit), None)
