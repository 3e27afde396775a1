"""What a sweep keeps of a finished run."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from run_log.scalars import RunLog, RunLogError, read_scalars
from run_log.stages import find_stages
from sweeping import status as kept
from sweeping.errors import SweepError
from sweeping.runs import Run

Curve = tuple[np.ndarray, np.ndarray]  # steps, values
LAST_PART = 10  # sparsity and active experts are means over the last tenth of the steps


@dataclass(frozen=True)
class Measured:
    """A run's results.

    Attributes:
        loss: Validation loss after the last step, nats a token.
        validation: Validation loss at each evaluation.
        training: Training loss at each logged step.
        sparsity: Mean over the last tenth of the steps; None where the run logged none.
        active_experts: As `sparsity`, experts a token and layer.
        settled: First step with the sparsity at its target; None where it never was, or has none.
        relu_routed: Whether it logged a sparsity that could settle.
        wall_seconds: Of all its attempts, with the start of the program.
        origin: Commit, hardware, date of its last start, threads.
    """

    loss: float
    validation: Curve
    training: Curve
    sparsity: float | None
    active_experts: float | None
    settled: int | None
    relu_routed: bool
    wall_seconds: float
    origin: dict


def measure(run: Run, folder: Path) -> Measured:
    """Read a finished run.

    Raises:
        SweepError: It is not finished, has other settings, logged no loss, or diverged.
    """
    status = kept.read_status(folder)
    if not kept.is_finished(run, folder):
        raise SweepError(status.get("state", "missing"))
    try:
        log = read_scalars(folder / "tensorboard")
    except RunLogError as error:
        raise SweepError(str(error)) from None
    for tag, words in (("lm loss validation", "validation loss"), ("lm loss", "training loss")):
        if tag not in log.curves:
            raise SweepError(f"no {words} in {folder / 'tensorboard'}")
    if not math.isfinite(loss := log.last("lm loss validation")):
        raise SweepError(f"its last validation loss is {loss}: it diverged")
    return Measured(
        loss=loss,
        validation=log.curves["lm loss validation"],
        training=log.curves["lm loss"],
        sparsity=_late_mean(log, "moe_relu_sparsity"),
        active_experts=_late_mean(log, "moe_relu_active_experts"),
        settled=_settled(log),
        relu_routed="moe_relu_sparsity" in log.curves,
        wall_seconds=status["wall_seconds"],
        origin={key: status[key] for key in ("commit", "hardware", "date", "threads")},
    )


def _late_mean(log: RunLog, tag: str) -> float | None:
    if tag not in log.curves:
        return None
    values = log.curves[tag][1]
    return float(values[-max(len(values) // LAST_PART, 1) :].mean())


def _settled(log: RunLog) -> int | None:
    if "moe_relu_sparsity" not in log.curves or log.target_sparsity is None:
        return None
    return find_stages(*log.curves["moe_relu_sparsity"], log.target_sparsity).settled
