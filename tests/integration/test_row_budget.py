"""Runs with a budget of rows have the bits of a run without one, also where steps are run twice."""

import pytest

from commands import MOCK_DATA, RELU_MOE, TINY_MODEL
from ranks_budget import run_with_budget

STEPS = 8  # dense in the first half, sparse in the second
RUN = [
    *TINY_MODEL,
    *MOCK_DATA,
    *RELU_MOE,
    *"--moe-token-dispatcher-type alltoall --moe-grouped-gemm --bf16 --moe-router-dtype fp32".split(),
    # Random numbers and a loss for the log that a second run of a step must not draw or add again.
    *"--attention-dropout 0.1 --hidden-dropout 0.1 --moe-z-loss-coeff 1e-3".split(),
    *"--use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather".split(),
    *"--moe-relu-l1-reg-coeff-init 0.3 --moe-relu-l1-reg-coeff-multiplier 1.6".split(),
    *f"--train-iters {STEPS}".split(),
    # Two micro-batches on each of two ranks.
    *"--micro-batch-size 2".split(),
]
BUDGET = ["--moe-relu-row-budget", "2"]
SAVED = 3


@pytest.fixture(scope="module")
def train(launcher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget")

    def run(*flags, always=False, ranks=2):
        words = [str(folder / word[1:]) if word[0] == "@" else word for word in (*RUN, *flags)]
        return launcher.ranks(ranks).run(run_with_budget, words, always)

    return run


@pytest.fixture(scope="module")
def plain(train):
    return train("--save", "@plain", "--save-interval", str(SAVED))


def steps(result):
    return [steps for steps, _ in result]


def test_steps_that_overflow_are_run_again_to_the_same_bits(train, plain):
    ours = train(*BUDGET, always=True)
    assert steps(ours) == steps(plain)
    for _, armed in ours:
        assert armed == ours[0][1], "all ranks decide alike"
        again = armed.count(False)
        assert 2 <= again <= STEPS - 2, "some steps overflow, others do not"
        assert armed.count(True) == STEPS
    assert all(armed == [] for _, armed in plain), "not there without the flag"


def test_it_is_left_off_while_routing_is_dense(train, plain):
    ours = train(*BUDGET)
    assert steps(ours) == steps(plain)
    armed = ours[0][1]
    assert armed[:3] == [False] * 3 and armed[-2:] == [True] * 2


@pytest.mark.parametrize("always", [False, True], ids=["first step exact", "with the budget"])
def test_a_resumed_run_has_the_same_bits(train, plain, always):
    """In the dense stage, so that the budget of the first step overflows where it is tried."""
    flags = ["--load", "@plain", "--ckpt-step", str(SAVED)]
    ours = train(*BUDGET, *flags, always=always)
    assert steps(ours) == [rows[SAVED:] for rows in steps(plain)]
    assert ours[0][1][0] == always


def test_pipeline_stages_run_again_together(train):
    pipeline = ["--pipeline-model-parallel-size", "2"]
    plain, ours = train(*pipeline), train(*pipeline, *BUDGET, always=True)
    assert steps(ours) == steps(plain)
    assert ours[0][1] == ours[1][1] and 0 < ours[0][1].count(False) < STEPS
