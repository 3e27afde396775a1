"""Where the stages of ReMoE lie in a curve of sparsity."""

import numpy as np
import pytest

from run_log.scalars import RunLog
from run_log.stages import stage_spans


def log(steps, sparsity, target=0.875):
    curves = {"moe_relu_sparsity": (np.array(steps), np.array(sparsity))}
    return RunLog(curves, target_sparsity=target)


@pytest.mark.parametrize(
    "steps, sparsity, spans",
    [
        pytest.param(
            range(1, 7),
            [0.4, 0.5, 0.6, 0.8, 0.87, 0.9],
            [("I", 1, 2), ("II", 3, 4), ("III", 5, 6)],
            id="each step logged, the stages fill the run",
        ),
        pytest.param(
            [10, 20, 30, 40],
            [0.3, 0.6, 0.87, 0.88],
            [("I", 1, 19), ("II", 20, 29), ("III", 30, 40)],
            id="every tenth step logged, stage I begins with the run",
        ),
        pytest.param(
            [501, 502, 503],
            [0.87, 0.87, 0.88],
            [("III", 501, 503)],
            id="events of a resumed run begin where they begin",
        ),
        pytest.param(range(1, 4), [0.3, 0.3, 0.4], [("I", 1, 3)], id="never left stage I"),
        pytest.param(
            range(1, 4), [0.3, 0.6, 0.7], [("I", 1, 1), ("II", 2, 3)], id="never reached the target"
        ),
        pytest.param([1], [0.3], [("I", 1, 1)], id="one step"),
    ],
)
def test_the_stages_of_a_run(steps, sparsity, spans):
    assert stage_spans(log(list(steps), sparsity)) == spans


def test_a_target_below_one_half_has_no_stage_two():
    spans = stage_spans(log([1, 2, 3], [0.1, 0.2, 0.25], target=0.25))
    assert spans == [("I", 1, 2), ("III", 3, 3)]


def test_a_run_without_target_has_no_stages():
    assert stage_spans(log([1], [0.5], target=None)) == []
    assert stage_spans(RunLog({}, target_sparsity=0.5)) == []
