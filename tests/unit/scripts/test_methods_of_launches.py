"""METHOD takes every word of --moe-routing."""

import pytest

from launch_scripts import dry_run
from megatron.remoe.baselines.methods import METHODS

TINY = "train_llama_tiny.sh"


@pytest.mark.parametrize("method", METHODS)
def test_a_word_of_the_flag_is_a_method(method):
    flags = dry_run(TINY, "", "", "", 16, METHOD=method).flags
    assert flags["--moe-routing"] == [method]
    assert flags["--num-experts"] == ["16"]
    assert f"{method}_E16_k1_G1" in flags["--save"][0]


def test_topk_takes_the_coefficient_of_its_loss():
    assert dry_run(TINY, METHOD="topk", AUX_LOSS_COEFF="0.1").flags["--moe-aux-loss-coeff"] == [
        "0.1"
    ]


@pytest.mark.parametrize("method", ["relu", "relu-l1"])
def test_relu_takes_the_controllers_settings(method):
    flags = dry_run(TINY, METHOD=method, L1_COEFF_INIT="1e-5", L1_COEFF_MULTIPLIER="1.05").flags
    assert flags["--moe-relu-l1-reg-coeff-init"] == ["1e-5"]
    assert flags["--moe-relu-l1-reg-coeff-multiplier"] == ["1.05"]
