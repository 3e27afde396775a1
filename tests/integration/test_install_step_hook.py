"""What Megatron's builder leaves on a model whose configuration brings the post-wrap hook."""

import pytest
import torch
from megatron.core.transformer.moe.moe_logging import get_moe_metrics_tracker
from megatron.core.transformer.moe.router import TopKRouter
from megatron.training import training

from command_line import REMOE, parse
from megatron.remoe.metrics import ReMoEMetricsTracker
from megatron.remoe.step_hook import ReMoEStepHook, install_step_hook
from ranks_gpt import build_gpt, megatron_globals, routers_of


@pytest.fixture(params=[{}, {"dtype": torch.bfloat16}], ids=["fp32", "bf16"])
def built(single_rank, request):
    with megatron_globals():
        yield build_gpt({}, request.param)


def test_the_controller_finds_the_routers_through_the_wrappers(built):
    config, stages = built
    hook = config.finalize_model_grads_func
    assert isinstance(hook, ReMoEStepHook)
    assert hook.routers == routers_of(stages) and len(hook.routers) == 2
    assert (hook.target_sparsity, hook.multiplier) == (0.75, 1.2)


def test_lambda_and_counters_keep_their_dtypes_in_the_wrapped_model(built):
    for router in routers_of(built[1]):
        dtypes = {name: buffer.dtype for name, buffer in router.state.named_buffers()}
        assert dtypes == {
            "reg_coeff": torch.float32,
            "reached_target": torch.float32,
            "counts": torch.int64,
            "reg_loss": torch.float64,
            "num_dropped": torch.int64,
        }


def test_a_topk_router_among_them_is_refused(single_rank):
    """A layer that some other spec built would take part in nothing and be noticed by nobody."""
    with megatron_globals():
        _, stages = build_gpt({}, {})
        router = routers_of(stages)[1]
        router.__class__ = TopKRouter
        with pytest.raises(ValueError, match="layer 2 has a TopK router"):
            install_step_hook(stages)


def test_the_log_reports_what_the_controller_counted(built):
    tracker = get_moe_metrics_tracker()
    assert isinstance(tracker, ReMoEMetricsTracker)
    assert tracker.source is built[0].finalize_model_grads_func


def test_the_flop_count_asks_the_controller(built):
    args, _ = parse(REMOE)
    args.padded_vocab_size, args.kv_channels, args.ffn_hidden_size = 512, 16, 256
    count = training.num_floating_point_operations
    original = count.remoe_original
    args.moe_router_topk = 2
    assert count(args, 4) == original(args, 4), "nothing measured yet"
    built[0].finalize_model_grads_func.mean_active_experts = 5.0
    measured = count(args, 4)
    args.moe_router_topk = 5
    assert measured == original(args, 4)
