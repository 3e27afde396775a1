"""Ways between layouts: a tour through many of them, other checkpoint formats, bf16."""

import pytest

from layout_runs import TOLERANCE, deviation
from layouts import DISTRIBUTED, LAYOUTS, MODELS, RELU, TOPK

BY_NAME = {layout.name: layout for layout in LAYOUTS}
TOUR = (
    "PP 2, stages of 1 and 3 layers",
    "EP 4, alltoall",
    "TP 2 x PP 2",
    "CP 2 x EP 2",
    "DP 4 x EP 2, distributed optimizer, overlapped",
    "TP 2 x EP 2, experts TP 2",
    "PP 2, virtual stages",
    "TP 2 x CP 2 x EP 4, experts TP 1, distributed optimizer",
    "PP 4",
)

# Megatron saves at once without the worker, and its other strategy needs a package.
ASYNC = "--async-save --use-persistent-ckpt-worker --async-strategy mcore"


def test_a_run_may_change_its_layout_at_every_stop(runs, tmp_path):
    """Each leg loads what the leg before saved in another layout, and trains two steps."""
    load, steps = runs.start("four layers", distributed=True), []
    for number, name in enumerate(TOUR):
        layout, save = BY_NAME[name], tmp_path / str(number)
        ends = f"--load {load} --save {save} --save-interval 1000 --exit-interval 2"
        by_rank = runs.train(
            layout.ranks, RELU, MODELS["four layers"], layout.flags, DISTRIBUTED, ends
        )
        assert len({lambdas for rank in by_rank for lambdas in rank[-1].lambdas}) == 1
        steps += by_rank[-1]
        load = save
    expected = runs.steps("four layers", distributed=True)[: len(steps)]
    assert len(steps) == 2 * len(TOUR) and deviation(steps, expected) < TOLERANCE
    assert [set(step.lambdas) for step in steps] == [set(step.lambdas) for step in expected]


@pytest.mark.parametrize(
    "kind",
    ["--ckpt-format torch", ASYNC, f"{ASYNC} {DISTRIBUTED}"],
)
def test_other_ways_to_save_resume_to_the_bit_too(runs, tmp_path, kind):
    flags = (RELU, BY_NAME["EP 2, alltoall"].flags, kind, "--exit-interval 20")
    whole = runs.train(2, *flags, f"--save {tmp_path} --save-interval 15")
    resumed = runs.train(2, *flags, f"--load {tmp_path} --ckpt-step 15")
    assert resumed == [steps[15:] for steps in whole]


def test_in_bf16_relu_routing_strays_no_further_than_topk_does(runs):
    """Where rounding differs from one process: other sums of gradients, of products, of keys."""
    weights = "--bf16 --no-load-optim --no-load-rng --exit-interval 40"
    strays = {RELU: 0.0, TOPK: 0.0}
    for name in ("DP 2", "TP 2 x EP 2", "CP 2"):
        for routing in strays:
            load = f"--load {runs.start('', routing=routing)}"
            steps = runs.train(2, routing, BY_NAME[name].flags, load, weights)[-1]
            truth = runs.steps("", routing=routing, flags=weights)
            differences = [a.loss / b.loss - 1 for a, b in zip(steps, truth, strict=True)]
            strays[routing] += sum(x * x for x in differences)
    assert 0 < strays[RELU] <= 2**2 * strays[TOPK], strays
