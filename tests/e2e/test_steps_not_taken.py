"""lambda moves as often as the optimizer steps: skipped, overflowed, rejected and NaN steps.

Sparsity starts far below its target, so each step that is taken multiplies lambda by alpha. The line
of an iteration shows the lambda that its forward pass used.
"""

import math
import re

import pytest

from commands import RELU_MOE
from forked_commands import pretrain_each

LAMBDA, ALPHA = 1e-3, 1.2
RUN = [*RELU_MOE, "--moe-relu-l1-reg-coeff-init", str(LAMBDA)]
INJECT = ["--error-injection-rate", "1", "--error-injection-type"]  # from the second iteration on


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    saved = str(tmp_path_factory.mktemp("rerun") / "saved")
    words = {
        "skip": "--train-iters 5 --iterations-to-skip 2 3",
        "fp16": "--train-iters 12 --fp16 --initial-loss-scale 4194304 --hysteresis 1",
        "transient": f"--train-iters 4 {' '.join(INJECT)} transient_error",
        "persistent": f"--train-iters 4 {' '.join(INJECT)} persistent_error --save {saved} "
        "--save-interval 4",
        "resumed": f"--train-iters 4 --rerun-mode disabled --load {saved}",
        "nan": "--train-iters 5 --lr 1e37 --clip-grad 0 --no-check-for-nan-in-loss-and-grad",
    }
    done = pretrain_each(*([*RUN, *flags.split()] for flags in words.values()))
    return dict(zip(words, done, strict=True))


def steps(done):
    """By iteration: by how many factors of alpha lambda has moved, and whether it was skipped."""
    found = re.findall(
        r"iteration +(\d+)/.* moe_relu_l1_reg_coeff: (\S+) .* number of skipped iterations: +(\d+)",
        done.stdout,
    )
    rows = {}
    for n, (i, coeff, skipped) in enumerate(found):
        factors = math.log(float(coeff) / LAMBDA, ALPHA)
        assert abs(factors - round(factors)) < 1e-2
        # Megatron's second line counts the first iteration again.
        rows[int(i)] = round(factors), int(skipped) - (int(found[0][2]) if n == 1 else 0)
    return rows


def test_iterations_that_are_skipped_leave_it(runs):
    assert runs["skip"].returncode == 0
    assert steps(runs["skip"]) == {1: (0, 0), 4: (1, 0), 5: (2, 0)}


def test_steps_that_overflow_in_fp16_leave_it(runs):
    rows = steps(runs["fp16"])
    assert runs["fp16"].returncode == 0 and list(rows) == list(range(1, 13))
    skipped = [is_skipped for _, is_skipped in rows.values()]
    assert skipped[0] == 1 and 0 < sum(skipped) < 11, "some steps overflow, others do not"
    for i in range(1, 12):
        assert rows[i + 1][0] == rows[i][0] + 1 - rows[i][1]


def test_a_step_that_is_not_reproducible_ends_the_run_before_it_is_taken(runs):
    assert runs["transient"].returncode == 17
    assert steps(runs["transient"]) == {1: (0, 0)}


def test_a_rejected_step_is_saved_as_not_taken(runs):
    """Megatron repeats the step, saves, and asks to be resumed elsewhere."""
    assert runs["persistent"].returncode == 16
    assert steps(runs["persistent"]) == {1: (0, 0)}
    assert steps(runs["resumed"]) == {2: (1, 0), 3: (2, 0), 4: (3, 0)}


def test_a_run_that_goes_on_over_nan_keeps_lambda_finite(runs):
    """Nothing is active then, so each step that the optimizer takes divides lambda."""
    assert runs["nan"].returncode == 0
    rows = steps(runs["nan"])
    assert "moe_relu_l1_reg_loss: NAN" in runs["nan"].stdout
    changes = [abs(rows[i + 1][0] - rows[i][0]) for i in range(1, 5)]
    assert changes == [1, 1, 1, 1]
