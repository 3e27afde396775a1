"""Every option that is refused under ReLU routing, from a command line as a user writes it."""

import sys

import pytest

from command_line import MODEL, MOE, REMOE, complaints
from megatron.remoe.arguments import parse_and_validate_args
from megatron.remoe.conflicts import IGNORED, REFUSED

# (what the user writes, the flag that the message must name)
ROWS = [
    ("--moe-router-load-balancing-type aux_loss", "--moe-router-load-balancing-type"),
    ("--moe-router-load-balancing-type seq_aux_loss", "--moe-router-load-balancing-type"),
    ("--moe-router-load-balancing-type global_aux_loss", "--moe-router-load-balancing-type"),
    ("--moe-router-load-balancing-type sinkhorn", "--moe-router-load-balancing-type"),
    ("--moe-router-load-balancing-type quantile_balancing", "--moe-router-load-balancing-type"),
    ("--moe-router-load-balancing-type=aux_loss", "--moe-router-load-balancing-type"),
    (
        "--moe-router-load-balancing-type none aux_loss --moe-aux-loss-coeff 0 0",
        "--moe-router-load-balancing-type",
    ),
    ("--moe-aux-loss-coeff 0.01", "--moe-aux-loss-coeff"),
    ("--moe-aux-loss-coeff 0 0.01", "--moe-aux-loss-coeff"),
    ("--moe-router-topk-scaling-factor 2.5", "--moe-router-topk-scaling-factor"),
    ("--moe-router-fusion", "--moe-router-fusion"),
    ("--moe-permute-fusion", "--moe-permute-fusion"),
    (
        "--moe-token-dispatcher-type flex --moe-flex-dispatcher-backend ncclep "
        "--moe-router-dtype fp32",
        "--moe-flex-dispatcher-backend ncclep",
    ),
    (
        "--moe-token-dispatcher-type flex --moe-router-dtype fp32 --num-experts 64",
        "--moe-flex-dispatcher-backend deepep",
    ),
    (
        "--moe-token-dispatcher-type flex --moe-router-dtype fp32 --num-experts 16 "
        "--expert-tensor-parallel-size 4",
        "--moe-flex-dispatcher-backend deepep",
    ),
    (
        "--moe-token-dispatcher-type flex --moe-router-dtype fp32 --moe-granularity 8",
        "--moe-flex-dispatcher-backend deepep",
    ),
    ("--moe-token-dispatcher-type flex", "--moe-token-dispatcher-type flex"),
    (
        "--moe-token-dispatcher-type flex --moe-router-dtype fp64",
        "--moe-token-dispatcher-type flex",
    ),
    ("--moe-expert-capacity-factor 1.5", "--moe-expert-capacity-factor"),
    ("--moe-pad-expert-input-to-capacity", "--moe-pad-expert-input-to-capacity"),
    ("--moe-expert-rank-capacity-factor 1.5", "--moe-expert-rank-capacity-factor"),
    ("--moe-paged-stash", "--moe-paged-stash"),
    ("--moe-router-num-groups 2", "--moe-router-num-groups"),
    ("--moe-router-group-topk 2", "--moe-router-group-topk"),
    ("--moe-router-enable-expert-bias", "--moe-router-enable-expert-bias"),
    ("--moe-router-force-load-balancing", "--moe-router-force-load-balancing"),
    ("--moe-router-force-biased 0", "--moe-router-force-biased"),
    ("--moe-router-force-biased -1.5", "--moe-router-force-biased"),
    ("--moe-enable-routing-replay", "--moe-enable-routing-replay"),
    ("--moe-routing-trace-path trace", "--moe-routing-trace-path"),
    ("--use-transformer-engine-op-fuser", "--use-transformer-engine-op-fuser"),
    ("--moe-apply-probs-on-input", "--moe-apply-probs-on-input"),
    ("--moe-router-padding-for-quantization", "--moe-router-padding-for-quantization"),
    ("--moe-router-padding-for-fp8", "--moe-router-padding-for-quantization"),
    ("--cuda-graph-impl local", "--cuda-graph-impl"),
    ("--cuda-graph-impl transformer_engine", "--cuda-graph-impl"),
    ("--cuda-graph-impl full_iteration", "--cuda-graph-impl"),
    ("--cuda-graph-impl transformer_engine --cuda-graph-modules moe_router", "--cuda-graph-impl"),
    ("--cuda-graph-impl local --cuda-graph-modules attn moe", "--cuda-graph-impl"),
    ("--cuda-graph-impl local --cuda-graph-modules moe_preprocess", "--cuda-graph-impl"),
    ("--cuda-graph-impl local --cuda-graph-scope attn moe_router", "--cuda-graph-impl"),
    ("--enable-cuda-graph", "--cuda-graph-impl"),
    ("--external-cuda-graph", "--cuda-graph-impl"),
    (
        "--moe-pad-experts-for-cuda-graph-inference",
        "--moe-pad-experts-for-cuda-graph-inference",
    ),
    ("--use-torch-fsdp2", "--use-torch-fsdp2"),
    ("--moe-use-upcycling", "--moe-use-upcycling"),
    ("--perform-rl-step", "--perform-rl-step"),
    ("--hybrid-layer-pattern M*M*", "--hybrid-layer-pattern"),
    ("--hybrid-override-pattern M*M*", "--hybrid-layer-pattern"),
    ("--experimental-attention-variant dsa", "--experimental-attention-variant"),
    ("--multi-latent-attention", "--multi-latent-attention"),
    ("--heterogeneous-layers-config-path config.json", "--heterogeneous-layers-config-path"),
    ("--heterogeneous-layers-config-encoded-json {}", "--heterogeneous-layers-config-path"),
    ("--spec some.module attribute", "--spec"),
    ("--transformer-impl inference_optimized", "--transformer-impl inference_optimized"),
    ("--mlp-chunks-for-training 2", "--mlp-chunks-for-training"),
]


@pytest.mark.parametrize(("words", "flag"), ROWS, ids=[words for words, _ in ROWS])
def test_it_is_refused_by_name(words, flag):
    error, _ = complaints([*REMOE, *words.split()])
    assert error is not None, f"{words} was accepted"
    reasons = {conflict.flag: conflict.reason for conflict in REFUSED}
    assert f"\n  {flag}: {reasons[flag]}" in error


@pytest.mark.parametrize(("words", "flag"), ROWS, ids=[words for words, _ in ROWS])
def test_it_is_megatrons_own_business_without_relu_routing(words, flag):
    assert complaints([*MODEL, *MOE, *words.split()]) == (None, [])


def test_every_rule_has_a_row():
    assert {conflict.flag for conflict in REFUSED} == {flag for _, flag in ROWS}


@pytest.mark.parametrize("conflict", REFUSED, ids=lambda conflict: conflict.flag)
def test_every_reason_says_what_to_do(conflict):
    assert any(mend in conflict.reason for mend in ("leave it out", "use ", "add ", "name "))


def test_each_flag_has_one_rule():
    flags = [conflict.flag for conflict in (*REFUSED, *IGNORED)]
    assert len(flags) == len(set(flags))


def test_all_conflicts_are_listed_in_one_message():
    words = "--moe-router-fusion --spec a b --moe-router-topk 99 --moe-granularity 0"
    error, _ = complaints([*REMOE, *words.split()])
    named = [line.split(":")[0].split()[0] for line in error.splitlines()[1:]]
    expected = ["--moe-granularity", "--moe-router-topk", "--moe-router-fusion", "--spec"]
    assert named == expected


def test_the_parser_raises_before_megatron_does_anything(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pretrain_gpt.py", *REMOE, "--moe-router-fusion"])
    with pytest.raises(ValueError, match="--moe-router-fusion: acts inside TopK selection"):
        parse_and_validate_args()


def test_a_clean_command_line_has_no_complaints():
    assert complaints(REMOE) == (None, [])
    assert complaints(MODEL) == (None, [])
