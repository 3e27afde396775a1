"""`--log-throughput`: figures that agree, for every kind of model, at no cost to a run."""

import re

import pytest

from commands import RELU_MOE, TOPK_MOE
from forked_commands import pretrain_each
from run_log.scalars import read_scalars

PEAK = 0.05  # TFLOP/s
LAYERS, HIDDEN, FFN, LENGTH, EXPERTS = 2, 64, 128, 64, 8  # commands.TINY_MODEL
VOCABULARY = 512
FAST = [*RELU_MOE, "--moe-relu-l1-reg-coeff-init", "1e-3"]  # lambda moves both ways
LOG = ["--log-throughput", "--peak-tflops", str(PEAK)]
RUN = "--train-iters 6 --eval-interval 2 --eval-iters 2".split()
LINE = re.compile(r"^ evaluated (\d+) tokens \|(.*)$", re.MULTILINE)


def forward_flops_a_token(active_experts):
    """Two for each weight that a token meets, and attention over half of its sequence on average."""
    weights = 4 * HIDDEN**2 + active_experts * 3 * HIDDEN * FFN
    scores = 2 * HIDDEN * LENGTH / 2
    return 2 * (LAYERS * (weights + scores) + HIDDEN * VOCABULARY)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By name: what the command printed, and its scalars."""
    folder = tmp_path_factory.mktemp("throughput")
    flags = {
        "relu": [*FAST, *LOG],
        "relu without": FAST,
        "topk": [*TOPK_MOE, *LOG],
        "dense": LOG,
    }
    commands = [[*words, *RUN, "--tensorboard-dir", folder / name] for name, words in flags.items()]
    results = {}
    for name, done in zip(flags, pretrain_each(*commands), strict=True):
        assert done.returncode == 0, done.stderr[-2000:]
        results[name] = done.stdout, read_scalars(folder / name).curves
    return results


def active_experts(name, curves):
    """Experts a token in each iteration from the third on: the second's figures are of two."""
    return curves["moe_relu_active_experts"][1][2:] if name == "relu" else [1.0] * 4


@pytest.mark.parametrize("name", ["relu", "topk", "dense"])
def test_tokens_a_second_times_flops_a_token_are_the_throughput(runs, name):
    _, curves = runs[name]
    names = ("tokens-per-second", "throughput", "mfu", "peak-memory-gib")
    assert all(list(curves[n][0]) == [2, 3, 4, 5, 6] for n in names)
    tokens, tflops, mfu, memory = (curves[n][1][1:] for n in names)
    flops = [3 * forward_flops_a_token(active) for active in active_experts(name, curves)]
    assert tokens * flops / 1e12 == pytest.approx(tflops, rel=1e-5)
    assert mfu == pytest.approx(tflops / PEAK, rel=1e-5)
    assert 0.1 < memory[0] <= memory[-1] < 20


@pytest.mark.parametrize("name", ["relu", "topk", "dense"])
def test_the_console_says_what_the_scalars_say(runs, name):
    text, curves = runs[name]
    last = next(line for line in text.splitlines() if " iteration        6/" in line)
    printed = dict(re.findall(r" ([\w-]+): (\S+) \|", last))
    milliseconds = float(re.search(r"per iteration \(ms\): (\S+) ", last)[1])
    assert float(printed["tokens-per-second"]) == pytest.approx(8 * 64e3 / milliseconds, rel=0.01)
    for key in ("tokens-per-second", "mfu", "peak-memory-gib"):
        assert float(printed[key]) == pytest.approx(curves[key][1][-1], rel=0.01, abs=1e-4)


@pytest.mark.parametrize("name", ["relu", "topk", "dense"])
def test_each_evaluation_has_a_line(runs, name):
    text, _ = runs[name]
    lines = [(int(tokens), rest) for tokens, rest in LINE.findall(text)]
    assert len(lines) == text.count(" validation loss at ") == 5  # three, validation set, test set
    for tokens, rest in lines:
        assert tokens == 2 * 8 * LENGTH
        values = {key: float(value) for key, value in re.findall(r" ([^|]+): (\S+) \|", rest)}
        active = values.get("active-experts", 1.0)
        tflops = values["tokens-per-second"] * forward_flops_a_token(active) / 1e12
        assert values["throughput per GPU (TFLOP/s/GPU)"] == pytest.approx(tflops, rel=2e-3)
        assert values["mfu"] == pytest.approx(tflops / PEAK, abs=2e-3)
        if name == "relu":
            assert 0 < active < EXPERTS and active != 1.0
        else:
            assert ("active-experts" in values) == (name == "topk") and active == 1.0


def test_logging_changes_no_bit_of_training(runs):
    (text, measured), (plain_text, plain) = runs["relu"], runs["relu without"]
    # Three evaluations at the last iteration share a tag, and events any order: compared as printed.
    for name in [name for name in plain if "validation" not in name]:
        assert list(plain[name][1]) == list(measured[name][1]), name
    assert len(set(plain["moe_relu_l1_reg_coeff"][1])) > 3
    losses = [re.findall(r"validation loss at .*", t) for t in (text, plain_text)]
    assert losses[0] == losses[1]
    assert set(measured) - set(plain) == {
        "tokens-per-second",
        "throughput",
        "mfu",
        "peak-memory-gib",
    }
    assert "tokens-per-second" not in plain_text and "evaluated" not in plain_text
