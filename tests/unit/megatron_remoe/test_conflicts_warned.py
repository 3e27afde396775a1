"""Options that are allowed under ReLU routing, with a warning that names them."""

import pytest

from command_line import MODEL, MOE, REMOE, complaints
from megatron.remoe.conflicts import IGNORED

ROWS = [
    ("--moe-router-score-function sigmoid", "--moe-router-score-function"),
    ("--moe-router-score-function=softmax", "--moe-router-score-function"),
    ("--moe-router-pre-softmax", "--moe-router-pre-softmax"),
    ("--moe-token-drop-policy position", "--moe-token-drop-policy"),
    ("--moe-router-bias-update-rate 1e-2", "--moe-router-bias-update-rate"),
    ("--moe-router-quantile-balancing-ema 0.9", "--moe-router-quantile-balancing-ema"),
    ("--moe-upcycling-granularity 2", "--moe-upcycling-granularity"),
    ("--moe-z-loss-coeff 1e-3", "--moe-z-loss-coeff"),
    ("--use-megatron-fsdp", "--use-megatron-fsdp"),
]


@pytest.mark.parametrize(("words", "flag"), ROWS, ids=[words for words, _ in ROWS])
def test_it_is_warned_of_by_name(words, flag):
    reasons = {conflict.flag: conflict.reason for conflict in IGNORED}
    assert complaints([*REMOE, *words.split()]) == (None, [f"{flag} {reasons[flag]}"])


@pytest.mark.parametrize(("words", "flag"), ROWS, ids=[words for words, _ in ROWS])
def test_it_means_what_it_says_without_relu_routing(words, flag):
    assert complaints([*MODEL, *MOE, *words.split()]) == (None, [])


def test_every_rule_has_a_row():
    assert {conflict.flag for conflict in IGNORED} == {flag for _, flag in ROWS}


def test_a_warning_and_an_error_come_together():
    error, caught = complaints([*REMOE, "--moe-router-pre-softmax", "--moe-router-fusion"])
    assert "--moe-router-fusion" in error and "--moe-router-pre-softmax" in caught[0]


@pytest.mark.parametrize(
    "words",
    [
        "--moe-relu-l1-reg-coeff-init 1e-6",
        "--moe-relu-l1-reg-coeff-multiplier 1.1",
        "--moe-relu-load-balancing none",
        "--moe-relu-restart-l1-reg-coeff",
        "--moe-relu-chunk-above 2",
        "--moe-relu-max-active-experts 4",
        "--moe-relu-cap-steps 100",
        "--moe-relu-l1-reg-coeff-warmup-multiplier 2",
        "--moe-relu-row-budget 2",
    ],
)
@pytest.mark.parametrize("model", [MODEL, [*MODEL, *MOE]], ids=["dense", "TopK"])
def test_flags_of_relu_routing_alone_are_warned_of(model, words):
    error, caught = complaints([*model, *words.split()])
    assert error is None
    assert caught == [f"{words.split()[0]} has no effect without --moe-relu-routing"]
