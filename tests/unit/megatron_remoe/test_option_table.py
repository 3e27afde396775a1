"""Every MoE or parallelism option of Megatron 0.19.2 and what becomes of it under ReLU routing.

The verdicts of a reading of Megatron's sources; the tests of single rules are elsewhere. "checked
later" names options that this file accepts because another part refuses or fits them.
"""

import pytest

from command_line import REMOE, complaints

FLEX = "--moe-token-dispatcher-type flex --moe-router-dtype fp32"

ACCEPTED = [
    "--moe-router-topk 1",
    "--moe-router-topk 4",
    "--moe-router-load-balancing-type none",
    "--moe-aux-loss-coeff 0",
    "--moe-router-dtype fp32",
    "--moe-router-dtype fp64",
    "--moe-token-dispatcher-type allgather",
    "--moe-token-dispatcher-type alltoall",
    "--moe-token-dispatcher-type alltoall --moe-router-dtype fp64",
    FLEX,  # DeepEP with 8 experts
    f"{FLEX} --num-experts 32",  # the most that DeepEP carries
    f"{FLEX} --num-experts 64 --moe-flex-dispatcher-backend hybridep",
    f"{FLEX} --moe-flex-dispatcher-backend hybridep --moe-permute-fusion-into-hybridep",
    "--moe-input-jitter-eps 0.01",
    "--moe-grouped-gemm",
    "--moe-shared-expert-intermediate-size 128",
    "--moe-shared-expert-intermediate-size 128 --moe-shared-expert-gate",
    "--moe-shared-expert-intermediate-size 128 --moe-shared-expert-overlap "
    "--moe-token-dispatcher-type alltoall",
    "--moe-latent-size 32",
    "--fp8-format hybrid",  # checked later: `machine` where there is no GPU
    "--fp4-format e2m1",
    "--cuda-graph-impl none",
    "--cuda-graph-impl none --cuda-graph-modules moe",  # captures nothing
    "--cuda-graph-impl local --cuda-graph-modules attn",
    "--cuda-graph-impl transformer_engine --cuda-graph-modules attn",
    "--cuda-graph-impl transformer_engine --cuda-graph-modules attn mlp --moe-layer-freq 2",
    "--cuda-graph-impl local --cuda-graph-scope attn",
    "--enable-cuda-graph --cuda-graph-scope attn",
    "--overlap-moe-expert-parallel-comm",
    "--overlap-moe-expert-parallel-comm --delay-wgrad-compute",
    "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1",
    "--recompute-granularity selective --recompute-modules moe",
    "--recompute-granularity selective --recompute-modules moe_act",
    "--moe-layer-recompute",
    "--tensor-model-parallel-size 2 --sequence-parallel",
    "--context-parallel-size 2",
    "--pipeline-model-parallel-size 2",
    "--pipeline-model-parallel-size 2 --num-layers-per-virtual-pipeline-stage 1",
    "--decoder-first-pipeline-num-layers 1",
    "--expert-model-parallel-size 4",
    "--expert-tensor-parallel-size 2",
    "--use-distributed-optimizer",
    "--use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather",
    "--moe-layer-freq 2",
    "--moe-layer-freq ([0]*1+[1]*1)",
    "--calculate-per-token-loss",
    "--freeze-all-layers",  # checked later: `script_options`
    "--moe-per-layer-logging",
    "--qk-layernorm",
    "--group-query-attention --num-query-groups 2",
    "--bf16",
    "--fp16",
    "--add-qkv-bias",
    "--mlp-chunks-for-training 1",
    "--mtp-num-layers 0",
]


@pytest.mark.parametrize("words", ACCEPTED)
def test_it_goes_with_relu_routing(words):
    assert complaints([*REMOE, *words.split()]) == (None, [])
