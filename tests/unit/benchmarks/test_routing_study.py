"""What `experiments/routing` prints of several seeds."""

import runpy

import pytest

from data_tools import REPOSITORY


@pytest.fixture(scope="module")
def study():
    return runpy.run_path(str(REPOSITORY / "experiments/routing/run.py"))


def test_an_error_is_that_of_the_mean(study):
    assert study["mean_and_error"]([1.0, 2.0, 3.0]) == "2.000 ± 0.577"  # 1 / sqrt(3)


def test_each_seed_has_a_line_with_all_layers_first(study):
    def rho(value):
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    run = {
        "frequency_correlation": rho(-0.2),
        "frequency_correlation_by_layer": [rho(0.5), rho(0.25)],
    }
    lines = study["frequency_table"]([run]).strip().splitlines()
    assert lines[0] == "| seed | all layers | layer 1 | layer 2 |"
    assert lines[2] == "| 1 | -0.20 [-0.30, -0.10] | 0.50 [0.40, 0.60] | 0.25 [0.15, 0.35] |"
