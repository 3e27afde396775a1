"""GPU hours of a sweep, from its FLOPs and the assumptions that its file names."""

from dataclasses import dataclass

from sweeping.errors import SweepError
from sweeping.flops import Model, model_of
from sweeping.markdown import markdown_row
from sweeping.runs import Run
from sweeping.sweep_file import Sweep
from sweeping.vocabulary import RELU_METHODS

# Stages I and II of ReMoE: how many steps they last, and the mean share of experts active in them. The
# paper's settle after 110 steps (E=8, k=1), from most experts at first over half of them to k.
DEFAULTS = {"tflops_per_gpu": None, "dense_steps": 110, "dense_share": 0.5}


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        flops: Of the whole run.
        dense_flops: Of these, what the near-dense stages add.
    """

    flops: float
    dense_flops: float


def cost_of(run: Run, model: Model, dense_steps: int, dense_share: float) -> Cost:
    """FLOPs of a run, with what stages I and II add to a ReLU-routed one."""
    plain = model.steps * model.step(model.topk)
    extra = 0.0
    if run.settings["method"] in RELU_METHODS:
        active = max(dense_share * model.num_experts, model.topk)
        extra = min(dense_steps, model.steps) * (model.step(active) - model.step(model.topk))
    return Cost(plain + extra, extra)


def estimate_table(sweep: Sweep) -> str:
    """GPU hours of each configuration and of all, as Markdown.

    Raises:
        SweepError: The file's `estimate` lacks tflops_per_gpu, or has an unknown key.
    """
    assumed = _checked(sweep.estimate)
    per_hour = assumed["tflops_per_gpu"] * 1e12 * 3600
    costs = _costs(sweep, assumed)
    lines = [
        markdown_row("configuration runs FLOP/run GPU-hours/run near-dense GPUs hours/run".split())
    ]
    lines.append(markdown_row(["---", *["---:"] * 6]))
    for name, (count, cost, gpus) in costs.items():
        hours = cost.flops / per_hour
        lines.append(
            markdown_row(
                [
                    name,
                    count,
                    f"{cost.flops:.2e}",
                    _hours(hours),
                    _hours(cost.dense_flops / per_hour),
                    gpus,
                    _hours(hours / gpus),
                ]
            )
        )
    total = sum(count * cost.flops for count, cost, _ in costs.values()) / per_hour
    lines += [
        "",
        f"{len(sweep.runs)} runs, {_hours(total)} GPU hours in all, if each GPU sustains "
        f"{assumed['tflops_per_gpu']:g} TFLOP/s; near-dense is what ReMoE's stages I and II add in "
        f"{assumed['dense_steps']} steps with {assumed['dense_share']:.0%} of the experts active. "
        "Evaluation, saving and waiting for data are not counted.",
    ]
    return "\n".join(lines) + "\n"


def _hours(hours: float) -> str:
    """Whole hours where there are many, else tenths or hundredths."""
    digits = 0 if hours >= 100 else 1 if hours >= 1 else 2
    return f"{hours:,.{digits}f}"


def _costs(sweep: Sweep, assumed: dict) -> dict[str, tuple[int, Cost, int]]:
    """By configuration: how many runs, what one costs, on how many GPUs."""
    costs: dict[str, tuple[int, Cost, int]] = {}
    for run in sweep.runs:
        if run.configuration in costs:
            count, cost, gpus = costs[run.configuration]
        else:
            model = model_of(run)
            cost = cost_of(run, model, assumed["dense_steps"], assumed["dense_share"])
            count, gpus = 0, model.gpus * sweep.slurm.get("nodes", 1)
        costs[run.configuration] = (count + 1, cost, gpus)
    return costs


def _checked(given: dict) -> dict:
    for key, value in given.items():
        if key not in DEFAULTS:
            raise SweepError(f"estimate: unknown key {key!r}; known are {', '.join(DEFAULTS)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise SweepError(f"estimate: {key} must be a positive number, got {value!r}")
    assumed = DEFAULTS | given
    if assumed["tflops_per_gpu"] is None:
        raise SweepError("estimate: tflops_per_gpu is missing: what does a GPU sustain?")
    if assumed["dense_share"] > 1:
        raise SweepError(f"estimate: dense_share is a share, got {assumed['dense_share']}")
    return assumed
