"""The whole of `pretrain_gpt.py` in each rank of a fresh world."""

import sys
from dataclasses import dataclass
from unittest import mock


@dataclass(frozen=True)
class Step:
    """One training step as a rank sees it after the optimizer.

    Attributes:
        iteration: Counts from 1.
        loss: Mean token loss, fp32; None on ranks without the last pipeline stage.
        grad_norm: Of the whole model.
        sparsity: Of the whole step; None without ReLU routing.
        lambdas: One of each of this rank's routers, for the next step.
        skipped: Whether the optimizer left the step out.
    """

    iteration: int
    loss: float | None
    grad_norm: float | None
    sparsity: float | None
    lambdas: tuple[float, ...]
    skipped: bool


def run_pretrain(flags):
    """Run the command with these flags in this process; return its steps."""
    from megatron.training import training

    import pretrain_gpt

    steps = []
    training_log = training.training_log

    def record(
        loss_dict, total, rate, iteration, scale, memory, skipped, grad_norm, *args, **kwargs
    ):
        steps.append(_step(loss_dict, iteration, grad_norm, skipped))
        return training_log(
            loss_dict, total, rate, iteration, scale, memory, skipped, grad_norm, *args, **kwargs
        )

    with (
        mock.patch.object(sys, "argv", ["pretrain_gpt.py", *flags]),
        # The writer process of an asynchronous save imports what was started as the command.
        mock.patch.dict(sys.modules, {"__main__": pretrain_gpt}),
        mock.patch.object(training, "training_log", record),
    ):
        try:
            pretrain_gpt.main()
        except SystemExit as end:  # --exit-interval
            if end.code:
                raise
    return steps


def _step(loss_dict, iteration, grad_norm, skipped):
    from megatron.core.transformer.moe.moe_logging import get_moe_metrics_tracker

    hook = getattr(get_moe_metrics_tracker(), "source", None)
    loss = loss_dict.get("lm loss")
    return Step(
        iteration=iteration,
        loss=None if loss is None else float(loss),
        grad_norm=None if grad_norm is None else float(grad_norm),
        sparsity=None if hook is None else hook.stats.sparsity.item(),
        lambdas=() if hook is None else tuple(r.state.reg_coeff.item() for r in hook.routers),
        skipped=bool(skipped),
    )
