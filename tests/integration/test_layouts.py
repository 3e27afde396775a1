"""The same model, batch and flags in every layout: one loss, one lambda; it resumes and reshards.

The truth is one process. Every layout starts from the checkpoint that one process saved at step 30,
optimizer included, trains to step 50 by the whole command and saves at 45 on its way.
"""

from itertools import pairwise
from pathlib import Path

import pytest

from layout_runs import FEW, SAVED, START, TOLERANCE, deviation
from layouts import DISTRIBUTED, LAYOUTS, MODELS, RELU, TOPK


@pytest.fixture(scope="module", params=LAYOUTS, ids=str)
def layout(request):
    return request.param


@pytest.fixture(scope="module")
def flags(layout):
    return (RELU, MODELS[layout.model], layout.flags)


@pytest.fixture(scope="module")
def run(layout, flags, runs, tmp_path_factory):
    """Steps by rank, and the folder with the checkpoints of steps 45 and 50."""
    folder = tmp_path_factory.mktemp("layout")
    load = f"--load {runs.start(layout.model, layout.is_distributed)}"
    save = f"--save {folder} --save-interval {SAVED}"
    return runs.train(layout.ranks, *flags, load, save), folder


def test_the_loss_is_that_of_one_process(layout, run, runs, table):
    ours, theirs = run[0][-1], runs.steps(layout.model, layout.is_distributed)
    for steps in run[0]:  # ranks of the last stage agree, the others have none
        assert [step.loss for step in steps] in ([step.loss for step in ours], [None] * len(ours))
    off = deviation(ours, theirs)
    assert off < TOLERANCE
    assert deviation(ours, theirs, "grad_norm") < 10 * TOLERANCE
    assert deviation(ours, theirs, "sparsity") < 1e-3, "all but a rare pair at the edge of zero"
    table.put(layout, "loss", f"{off:.0g}")


def test_lambda_is_that_of_one_process_on_every_rank(layout, run, runs, table):
    expected = [set(step.lambdas) for step in runs.steps(layout.model, layout.is_distributed)]
    assert all(len(lambdas) == 1 for lambdas in expected)
    path = [min(lambdas) for lambdas in expected]
    ups = [after > before for before, after in pairwise(path)]
    assert any(ups) and not all(ups), "sparsity is around its target: lambda goes both ways"
    holders = 0
    for steps in run[0]:
        for step, lambdas in zip(steps, expected, strict=True):
            assert set(step.lambdas) <= lambdas
        holders += bool(steps[0].lambdas)
    assert holders, "some rank has routers"
    table.put(layout, "lambda", "same bits")


def test_a_resumed_run_has_the_same_bits(layout, flags, run, runs, table):
    steps, folder = run
    resumed = runs.train(layout.ranks, *flags, f"--load {folder} --ckpt-step {SAVED}")
    assert resumed == [by_rank[SAVED - START :] for by_rank in steps]
    table.put(layout, "resume", "same bits")


def test_one_process_goes_on_from_its_checkpoint(layout, run, runs, table):
    _, folder = run
    kind = DISTRIBUTED if layout.is_distributed else ""
    load = f"--load {folder} --ckpt-step {SAVED}"
    (steps,) = runs.train(1, RELU, MODELS[layout.model], kind, load)
    theirs = runs.steps(layout.model, layout.is_distributed)[SAVED - START :]
    off = deviation(steps, theirs)
    assert off < TOLERANCE
    assert [step.lambdas for step in steps] == [step.lambdas for step in theirs]
    table.put(layout, "reshard", f"{off:.0g}")


def test_topk_routing_is_layout_free_too(layout, runs, table):
    """The control: Megatron's router and dispatchers in the same layouts, from weights alone."""
    if "moe-relu" in MODELS[layout.model]:
        pytest.skip("a model of ReLU routing")
    model = MODELS[layout.model]
    few = f"--exit-interval {START + FEW} --no-load-optim --no-load-rng"
    load = f"--load {runs.start(layout.model, routing=TOPK)}"
    steps = runs.train(layout.ranks, TOPK, model, layout.flags, load, few)[-1]
    off = deviation(steps, runs.steps(layout.model, routing=TOPK, flags=few))
    assert off < TOLERANCE
    table.put(layout, "TopK", f"{off:.0g}")


def test_the_table_in_the_docs_is_of_these_layouts():
    """`make layouts` writes it; a cell that no test filled is empty."""
    lines = (Path(__file__).parents[2] / "docs/layouts.md").read_text().splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == [layout.name for layout in LAYOUTS]
    for row, layout in zip(rows, LAYOUTS, strict=True):
        relu_only = "moe-relu" in MODELS[layout.model]
        assert len(row) == (6 if relu_only else 7) and all(cell.strip() for cell in row)
