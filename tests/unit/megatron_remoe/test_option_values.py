"""Values of our own flags that mean nothing, each refused with the value and the mend."""

import pytest

from command_line import MODEL, MOE, REMOE, complaints
from remoe.controller import REG_COEFF_MAX, REG_COEFF_MIN

REFUSED = [
    # (model, words, what the message must say)
    (REMOE, "--moe-granularity 0", "--moe-granularity 0: give a whole number of at least 1"),
    (REMOE, "--moe-granularity -2", "--moe-granularity -2: give a whole number of at least 1"),
    (
        REMOE,
        "--moe-granularity 3 --ffn-hidden-size 256",
        "--moe-granularity 3: does not divide the expert width 256",
    ),
    (
        REMOE,
        "--moe-granularity 3 --ffn-hidden-size 300 --moe-ffn-hidden-size 128",
        "--moe-granularity 3: does not divide the expert width 128",
    ),
    # no width is given: Megatron's own default is 4 * 64, with SwiGLU 2/3 of it in multiples of 64
    (REMOE, "--moe-granularity 3", "--moe-granularity 3: does not divide the expert width 256"),
    (
        REMOE,
        "--moe-granularity 3 --swiglu",
        "--moe-granularity 3: does not divide the expert width 128",
    ),
    (MODEL, "--moe-granularity 2", "--moe-granularity: needs --num-experts"),
    ([*MODEL, *MOE], "--moe-granularity 0", "--moe-granularity 0: give a whole number"),
    (
        [*MODEL, *MOE],
        "--moe-granularity 5 --ffn-hidden-size 256",
        "--moe-granularity 5: does not divide the expert width 256",
    ),
    (MODEL, "--moe-relu-routing", "--moe-relu-routing: needs --num-experts"),
    (REMOE, "--moe-router-topk 0", "--moe-router-topk 0: the target of active experts"),
    (REMOE, "--moe-router-topk -1", "--moe-router-topk -1: the target of active experts"),
    (REMOE, "--moe-router-topk 9", "--moe-router-topk 9: the target of active experts"),
    (MODEL, "--num-experts 4 --moe-router-topk 5", "--moe-router-topk 5: give a number from 1 to"),
    (MODEL, "--num-experts 4 --moe-router-topk 0", "--moe-router-topk 0: give a number from 1 to"),
    (REMOE, "--moe-relu-l1-reg-coeff-init 0", "--moe-relu-l1-reg-coeff-init 0: give a number"),
    (REMOE, "--moe-relu-l1-reg-coeff-init=-1e-8", "--moe-relu-l1-reg-coeff-init -1e-08: give"),
    (REMOE, "--moe-relu-l1-reg-coeff-init nan", "--moe-relu-l1-reg-coeff-init nan: give"),
    (REMOE, "--moe-relu-l1-reg-coeff-init inf", "--moe-relu-l1-reg-coeff-init inf: give"),
    (REMOE, "--moe-relu-l1-reg-coeff-init 1e-40", "--moe-relu-l1-reg-coeff-init 1e-40: give"),
    (
        REMOE,
        "--moe-relu-l1-reg-coeff-multiplier 1",
        "--moe-relu-l1-reg-coeff-multiplier 1: give a number above 1",
    ),
    (
        REMOE,
        "--moe-relu-l1-reg-coeff-multiplier 0.9",
        "--moe-relu-l1-reg-coeff-multiplier 0.9: give a number above 1",
    ),
    (
        REMOE,
        "--moe-relu-l1-reg-coeff-multiplier inf",
        "--moe-relu-l1-reg-coeff-multiplier inf: give a number above 1",
    ),
    (
        REMOE,
        "--moe-relu-l1-reg-coeff-multiplier nan",
        "--moe-relu-l1-reg-coeff-multiplier nan: give a number above 1",
    ),
    (
        REMOE,
        "--moe-relu-router-thresholds 0.1 0.1",
        "--moe-relu-router-thresholds: is for evaluation, training would not see it: add --skip-train",
    ),
]


@pytest.mark.parametrize(("model", "words", "message"), REFUSED, ids=[row[1] for row in REFUSED])
def test_it_is_refused_with_its_value(model, words, message):
    error, _ = complaints([*model, *words.split()])
    assert error is not None and message in error


ACCEPTED = [
    (REMOE, "--moe-relu-router-thresholds 0.1 -0.1 --skip-train"),
    (REMOE, "--moe-router-topk 1"),
    (REMOE, "--moe-router-topk 8"),  # all experts
    (REMOE, "--moe-granularity 1"),
    (REMOE, "--moe-granularity 4 --ffn-hidden-size 256"),
    (REMOE, "--moe-granularity 4"),
    (REMOE, "--moe-granularity 2 --swiglu"),
    ([*MODEL, *MOE], "--moe-granularity 2"),
    (REMOE, f"--moe-relu-l1-reg-coeff-init {REG_COEFF_MIN}"),
    (REMOE, f"--moe-relu-l1-reg-coeff-init {REG_COEFF_MAX}"),
    (REMOE, "--moe-relu-l1-reg-coeff-init 1e-16"),  # the paper's range
    (REMOE, "--moe-relu-l1-reg-coeff-init 1"),
    (REMOE, "--moe-relu-l1-reg-coeff-multiplier 1.0001"),
    (REMOE, "--moe-relu-l1-reg-coeff-multiplier 2"),
]


@pytest.mark.parametrize(("model", "words"), ACCEPTED, ids=[row[1] for row in ACCEPTED])
def test_it_is_accepted(model, words):
    assert complaints([*model, *words.split()]) == (None, [])


def test_the_defaults_are_the_papers():
    from command_line import parse

    args, _ = parse(REMOE)
    assert args.moe_relu_l1_reg_coeff_init == 1e-8
    assert args.moe_relu_l1_reg_coeff_multiplier == 1.2
    assert args.moe_relu_load_balancing == "micro-batch"
    assert args.moe_granularity == 1
