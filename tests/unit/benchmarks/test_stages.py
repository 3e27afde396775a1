"""Where `stages.py` sees the three stages, and what it prints of one."""

import sys

import pytest

from data_tools import REPOSITORY

MIB = 2**20
# [loss, sparsity, seconds, bytes] at E=8: 4 active, 4, 3, 1.6, 1.08, 1.2
RUN = [
    [2.0, sparsity, seconds, mib * MIB]
    for sparsity, seconds, mib in [
        (0.5, 9.0, 90),
        (0.5, 0.4, 80),
        (0.625, 0.3, 60),
        (0.8, 0.2, 50),
        (0.865, 0.1, 40),
        (0.85, 0.1, 44),
    ]
]


@pytest.fixture(scope="module")
def bench():
    """The benchmark; it imports from beside itself."""
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    import stages

    yield stages
    sys.path.remove(str(REPOSITORY / "benchmarks"))


def test_the_first_step_warms_up_and_sparse_is_from_the_first_step_near_k(bench):
    assert {stage: RUN[part] for stage, part in bench.stages(RUN, 8).items()} == {
        "dense": [RUN[1]],
        "sparsifying": [RUN[2], RUN[3]],
        "sparse": [RUN[4], RUN[5]],
    }


def test_a_stage_that_never_comes_is_empty(bench):
    assert RUN[:3][bench.stages(RUN[:3], 8)["sparse"]] == []
    assert bench.figures_of([], [], MIB).startswith("0 |")


def test_figures_are_medians_and_the_largest_memory(bench):
    other = [[1.0, *step[1:]] for step in RUN]
    assert (
        bench.figures_of(RUN[2:4], other[2:4], 40 * MIB) == "2 | 0.713 | 0.25 | 60 | 1.50 | 1e+00"
    )
