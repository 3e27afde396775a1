"""Megatron's FLOP count, on which TFLOP/s and MFU rest, against torch's count of what really runs.

They differ in two things that are written here as formulas: torch counts the whole square of scores
(Megatron the causal half) and the router's matrix. Everything else is equal to the last operation.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from command_line import MODEL
from megatron.remoe.model_config import gpt_config_from_args
from megatron.remoe.throughput.evaluation import RoutingCounter
from megatron.remoe.throughput.flops import forward_flops, with_active_experts

BATCH, EXPERTS = 2, 8
TOPK = f"--num-experts {EXPERTS} --moe-router-topk 2"
RELU = f"{TOPK} --moe-relu-routing"
LLAMA = (
    "--swiglu --group-query-attention --num-query-groups 2 --untie-embeddings-and-output-weights"
)
WIDE_HEADS = "--swiglu --kv-channels 24"  # 96 channels of heads in a model of 64
SHAPES = {
    "dense": LLAMA,
    "dense, not gated": "",
    "TopK": f"{LLAMA} {TOPK}",
    "ReLU": f"{LLAMA} {RELU}",
    "ReLU, not gated": RELU,
    "ReLU, wide heads": f"{WIDE_HEADS} {RELU}",
    "ReLU, every second layer, narrow and shared experts": f"{LLAMA} {RELU} --moe-layer-freq 2 "
    "--moe-ffn-hidden-size 48 --moe-shared-expert-intermediate-size 96",
    "ReLU, fine-grained": f"{LLAMA} {RELU} --moe-granularity 4",
}


def build(args):
    """One pipeline stage, without hooks: they would stay in Megatron's globals."""
    from megatron.core.distributed import DistributedDataParallelConfig
    from megatron.core.process_groups_config import ProcessGroupCollection

    torch.manual_seed(0)
    config = gpt_config_from_args(args)
    config.post_wrap_hooks.clear()
    (stage,) = config.get_builder_cls()(config).build_distributed_models(
        ProcessGroupCollection.use_mpu_process_groups(),
        DistributedDataParallelConfig(),
        data_parallel_random_init=False,
    )
    return stage


def run(stage, length):
    """Loss of random tokens."""
    tokens = torch.randint(512, (BATCH, length))
    mask = torch.ones(1, 1, length, length).triu(1).bool()
    return stage(tokens, torch.arange(length).expand(BATCH, -1), mask, labels=tokens).sum()


def not_counted_by_megatron(args, num_moe_layers):
    """FLOPs of a forward pass: above the diagonal of the scores, and in the routers."""
    length, channels = args.seq_length, args.kv_channels * args.num_attention_heads
    scores = args.num_layers * 2 * length**2 * channels
    routers = num_moe_layers * 2 * length * args.hidden_size * (args.num_experts or 0)
    return BATCH * (scores + routers)


@pytest.mark.parametrize("words", SHAPES.values(), ids=SHAPES)
def test_the_forward_pass_is_counted_to_the_last_operation(single_rank, validated, words):
    args = validated([*MODEL, "--disable-bias-linear", *words.split()])
    stage = build(args).eval()
    with torch.no_grad(), RoutingCounter([stage]) as routing, FlopCounterMode(display=False) as ran:
        run(stage, args.seq_length)
    means = routing.means()
    num_moe_layers = 0 if means is None else len(routing._routers)
    counted = forward_flops(args, BATCH, means and means[0])
    assert counted + not_counted_by_megatron(args, num_moe_layers) == ran.get_total_flops()


def test_training_is_three_forward_passes(single_rank, validated):
    """In plain matrix products: fused attention computes its scores once more in the backward pass."""
    args = validated(
        [*MODEL, "--disable-bias-linear", "--transformer-impl", "local", *RELU.split()]
    )
    stage = build(args).eval()  # where nothing is counted or penalised
    with FlopCounterMode(display=False) as forward:
        loss = run(stage, args.seq_length)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert backward.get_total_flops() == 2 * forward.get_total_flops()


def test_the_arguments_are_left_alone(validated):
    args = validated([*MODEL, *RELU.split()])
    assert with_active_experts(args, 3.5).moe_router_topk == 3.5
    assert with_active_experts(args, None) is args
    assert args.moe_router_topk == 2
