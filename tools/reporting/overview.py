"""The table that compares the runs, and the key numbers of a single one."""

from collections.abc import Callable

import numpy as np

from reporting import numbers
from reporting.parts import Section, Table
from reporting.runs import Run
from run_log.stages import stage_spans

LAST_STEPS = 0.05  # share of the logged steps whose mean is the final training loss


def final_training_loss(run: Run) -> float | None:
    """Mean over the last twentieth of the logged steps: single steps are noisy."""
    curve = run.curve("lm loss")
    return None if curve is None else float(_last_part(curve[1]).mean())


def validation_loss(run: Run) -> float | None:
    """The last one that was logged."""
    curve = run.curve("lm loss validation")
    return None if curve is None else float(curve[1][-1])


def settling_step(run: Run) -> int | None:
    """Where stage III begins."""
    return next((start for name, start, _ in _spans(run) if name == "III"), None)


def active_experts(run: Run) -> float | None:
    """Mean a token and layer, of the last record, else of the last part of the log."""
    if run.record is not None:
        return float(run.record.active_experts.mean())
    return _last_mean(run, "moe_relu_active_experts")


def tokens_without_expert(run: Run) -> float | None:
    """Share of (token, layer) pairs that no expert sees."""
    if run.record is not None:
        return float(run.record.tokens_without_expert.mean())
    return _last_mean(run, "moe_relu_tokens_without_expert")


def dead_experts(run: Run) -> int | None:
    """Experts of all layers that no token reached."""
    if run.record is not None:
        return int(run.record.dead_experts.sum())
    curve = run.curve("moe_relu_dead_experts")
    return None if curve is None else int(curve[1][-1])


def last_step(run: Run) -> int | None:
    """The last step that was logged or recorded."""
    if curve := run.curve("lm loss"):
        return int(curve[0][-1])
    return int(run.record.step) if run.record is not None else None


def tokens_seen(run: Run) -> int | None:
    """Tokens of all steps."""
    step, tokens = last_step(run), run.settings.tokens_a_step
    return None if step is None or tokens is None else step * tokens


ROWS: dict[str, Callable[[Run], str]] = {
    "method": lambda run: run.method,
    "experts a layer (E)": lambda run: numbers.count(run.settings.number("num_experts")),
    "experts a token, target (k)": lambda run: _target(run),
    "granularity (G)": lambda run: numbers.count(run.settings.number("moe_granularity")),
    "layers": lambda run: numbers.count(run.settings.number("num_layers")),
    "hidden size": lambda run: numbers.count(run.settings.number("hidden_size")),
    "seed": lambda run: run.settings.arguments.get("seed", numbers.NOT_THERE),
    "steps": lambda run: _steps(run),
    "tokens seen": lambda run: numbers.large(tokens_seen(run)),
    "validation loss, last (nats a token)": lambda run: numbers.decimal(validation_loss(run)),
    "training loss, mean of the last 5 % (nats a token)": lambda run: numbers.decimal(
        final_training_loss(run)
    ),
    "active experts a token and layer": lambda run: numbers.decimal(active_experts(run)),
    "(token, layer) pairs without expert": lambda run: numbers.percent(tokens_without_expert(run)),
    "dead experts": lambda run: numbers.count(dead_experts(run)),
    "step at which stage III begins": lambda run: numbers.count(settling_step(run)),
    "lambda at the end": lambda run: numbers.scientific(_last(run, "moe_relu_l1_reg_coeff")),
    "speed, median (tokens a second)": lambda run: numbers.count(_median(run, "tokens-per-second")),
    "peak memory (GiB)": lambda run: numbers.decimal(_largest(run, "peak-memory-gib"), 2),
}


def build(runs: list[Run]) -> Section:
    """A row for each number that at least one run has, a column for each run."""
    cells = {name: [value(run) for run in runs] for name, value in ROWS.items()}
    rows = [[name, *row] for name, row in cells.items() if set(row) != {numbers.NOT_THERE}]
    many = len(runs) > 1
    return Section(
        "Comparison of the runs" if many else "The run in numbers",
        "Active and dead experts and pairs without expert are those of the last record (of an "
        "evaluation, else of training, else of the calibration text); without one, means over the last "
        "5 % of the logged steps, dead experts at the last.",
        tables=[Table(["", *(run.name for run in runs)], rows)],
    )


def _target(run: Run) -> str:
    if run.settings.number("num_experts") is None:
        return numbers.NOT_THERE
    return numbers.count(run.settings.number("moe_router_topk"))


def _steps(run: Run) -> str:
    """The last one; of how many, where more are to come than those between two logged ones."""
    last, asked, curve = last_step(run), run.settings.number("train_iters"), run.curve("lm loss")
    if last is None or asked is None or curve is None or len(curve[0]) < 2:
        return numbers.count(last)
    unfinished = asked - last >= curve[0][-1] - curve[0][-2]
    return numbers.count(last) + (f" of {numbers.count(asked)}" if unfinished else "")


def _spans(run: Run) -> list[tuple[str, int, int]]:
    return stage_spans(run.log) if run.log else []


def _last_part(values: np.ndarray) -> np.ndarray:
    return values[-max(1, round(len(values) * LAST_STEPS)) :]


def _last_mean(run: Run, tag: str) -> float | None:
    curve = run.curve(tag)
    return None if curve is None else float(_last_part(curve[1]).mean())


def _last(run: Run, tag: str) -> float | None:
    curve = run.curve(tag)
    return None if curve is None else float(curve[1][-1])


def _median(run: Run, tag: str) -> float | None:
    curve = run.curve(tag)
    return None if curve is None else float(np.median(curve[1]))


def _largest(run: Run, tag: str) -> float | None:
    curve = run.curve(tag)
    return None if curve is None else float(curve[1].max())
