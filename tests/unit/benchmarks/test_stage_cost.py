"""What `experiments/stage_cost` makes of the steps of two runs."""

import runpy

import pytest

from data_tools import REPOSITORY

MIB = 2**20


@pytest.fixture(scope="module")
def study():
    return runpy.run_path(str(REPOSITORY / "experiments/stage_cost/run.py"))


def test_each_stage_is_beside_the_same_steps_of_topk(study):
    # E=8: the first step warms up, then 4 and 2 active experts a token, then 1
    relu = [
        [2.0, s, t, m * MIB]
        for s, t, m in [(0.5, 9, 1), (0.5, 6, 80), (0.75, 3, 60), (0.875, 1, 20)]
    ]
    topk = [[2.0, None, t, m * MIB] for t, m in [(9, 1), (2, 20), (1, 30), (1, 40)]]
    assert study["rows"](topk, relu, 8) == {
        "dense": {
            "steps": 1,
            "active_experts": 4,
            "seconds": 6,
            "seconds_ratio": 3,
            "mib": 80,
            "mib_ratio": 4,
            "extra_topk_steps": pytest.approx(5),  # a TopK step takes 1 s
        },
        "sparsifying": {
            "steps": 1,
            "active_experts": 2,
            "seconds": 3,
            "seconds_ratio": 3,
            "mib": 60,
            "mib_ratio": 2,
            "extra_topk_steps": pytest.approx(2),
        },
        "sparse": {
            "steps": 1,
            "active_experts": 1,
            "seconds": 1,
            "seconds_ratio": 1,
            "mib": 20,
            "mib_ratio": 0.5,
            "extra_topk_steps": pytest.approx(0),
        },
        "dense and sparsifying": {
            "steps": 2,
            "active_experts": 3,
            "seconds": 4.5,
            "seconds_ratio": 3,
            "mib": 80,
            "mib_ratio": pytest.approx(80 / 30),
            "extra_topk_steps": pytest.approx(7),
        },
    }


def test_the_table_has_means_and_standard_errors_over_the_seeds_that_have_the_stage(study):
    figures = dict.fromkeys(study["DIGITS"], 1.0)
    seeds = [
        {"dense": {**figures, "steps": 4}, "sparse": figures},
        {"dense": {**figures, "steps": 8}},
    ]
    dense, sparse = study["lines"](seeds)
    # the mean of 4 and 8 is 6, s is 2.83, over sqrt(2) is 2
    assert dense.startswith("dense | 6 ± 2 | 1.00 ± 0.00 | ")
    assert sparse == "sparse (1 of 2 seeds) | 1 | 1.00 | 1.000 | 1.00 | 1 | 1.00 | 1"


def test_missing_text_is_told_with_what_makes_it(study, tmp_path):
    with pytest.raises(SystemExit, match=r"build the data first: bash experiments/families"):
        study["text_flags"](tmp_path)
