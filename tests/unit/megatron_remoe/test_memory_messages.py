"""What is printed before the model is built, and after memory ran out."""

import re
from types import SimpleNamespace

import pytest
import torch
from megatron.core.transformer.moe.moe_logging import get_moe_metrics_tracker

from command_line import MODEL, MOE, REMOE
from megatron.remoe.memory.estimate import estimate
from megatron.remoe.memory.exhausted import (
    active_now,
    is_out_of_memory,
    out_of_memory_message,
    what_helps,
)
from megatron.remoe.memory.report import GIB, rank_memory
from megatron.remoe.model_config import gpt_config_from_args
from memory_shapes import large_shape


def test_the_estimate_comes_with_the_model_configuration_once_a_job(validated, capsys):
    args = validated(REMOE)
    gpt_config_from_args(args)
    said = capsys.readouterr().out
    assert "> ReMoE: memory of the fullest rank, estimated in GiB; it has " in said
    assert "dense stage  sparse stage" in said and "Add one of" not in said
    args.rank = 1
    gpt_config_from_args(args)
    assert "memory" not in capsys.readouterr().out


def test_a_topk_that_warms_up_gets_the_estimate_and_another_topk_none(validated, capsys):
    warm = [*MODEL, *MOE, "--moe-routing", "topk-warmup", "--moe-topk-warmup-experts", "3"]
    gpt_config_from_args(validated(warm))
    said = capsys.readouterr().out
    assert re.search(r"ReMoE: +warm-up +after it\n.*active experts a token +3.00 +2.00\n", said)
    gpt_config_from_args(validated([*warm, "--moe-topk-warmup-steps", "0"]))
    gpt_config_from_args(validated([*MODEL, *MOE, "--moe-routing", "topk"]))
    assert "memory of the fullest rank" not in capsys.readouterr().out


def test_advice_follows_where_the_dense_stage_does_not_fit(validated, capsys, monkeypatch):
    monkeypatch.setattr("megatron.remoe.memory.report.rank_memory", lambda: 2 * 2**20)
    gpt_config_from_args(validated([*REMOE, "--micro-batch-size", "4"]))
    assert "GiB will not fit, and no option alone changes that" in capsys.readouterr().out


def test_a_layout_that_cannot_be_estimated_is_named(validated, capsys):
    args = validated(REMOE)
    args.use_megatron_fsdp = True
    gpt_config_from_args(args)
    assert "memory: no estimate with --pipeline-model-parallel-layout" in capsys.readouterr().out


def test_the_memory_of_a_rank_is_its_share(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    alone = rank_memory()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert 0 < rank_memory() < alone / 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    ],
)
def test_errors_of_each_allocator_are_known(error):
    assert is_out_of_memory(error)


def test_torchs_own_allocation_failure_is_known():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("out of memory")])
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


def test_a_failure_is_told_with_its_moment_and_options_that_need_a_quarter_less():
    shape = large_shape()
    moment, title, *options = what_helps(shape, 16, "as when training starts", 1000 * GIB)
    dense = estimate(shape, 16).total
    assert moment == (
        "with 16 active experts a token, as when training starts: estimated "
        f"{dense / GIB:.2f} GiB of 1000.00 GiB"
    )
    assert title == "Add one of:" and "--moe-relu-chunk-above" in options[0]
    for option in options:
        assert float(option.split("(")[1].split(" GiB")[0]) <= 0.75 * dense / GIB


def test_where_nothing_helps_it_says_so():
    assert what_helps(large_shape(), 16, "", GIB)[1:] == [
        "no option alone helps: spread the model over more ranks"
    ]


def test_the_moment_is_that_of_the_last_log_or_the_step_of_the_warm_up(validated, monkeypatch):
    args = validated(REMOE)
    source = SimpleNamespace(mean_active_experts=3.25)
    monkeypatch.setattr(get_moe_metrics_tracker(), "source", source, raising=False)
    assert active_now(args, large_shape()) == (3.25, "when last logged")
    shape = large_shape(topk_warm_up=24)
    args.moe_topk_warmup_steps = 7
    for iteration, active in ((6, 24), (7, 1)):
        args.curr_iteration = iteration
        assert active_now(args, shape) == (active, "in this step")
    args.curr_iteration = None
    for resumed_at, active in ((0, 24), (7, 1)):
        args.iteration = resumed_at
        assert active_now(args, shape) == (active, "in the first step")


def test_a_warm_up_that_is_over_is_in_nobodys_way():
    shape = large_shape(topk_warm_up=24, can_chunk=False)
    _, title, *options = what_helps(shape, 1, "in this step", 1000 * GIB)
    assert title == "Add one of:" and not any("--moe-topk-warmup" in option for option in options)
    assert any("--micro-batch-size" in option for option in options)


@pytest.mark.parametrize(("iteration", "where"), [(None, "before training"), (6, "in iteration 7")])
def test_the_message_begins_with_rank_iteration_and_reason(validated, iteration, where):
    args = validated(REMOE)
    transformer = gpt_config_from_args(args).transformer
    args.rank, args.curr_iteration = 5, iteration
    message = out_of_memory_message(MemoryError("no room\nframe 1"), args, transformer)
    first, *rest = message.splitlines()
    assert first == f"out of memory on rank 5 {where}: no room"
    assert "active experts a token" in rest[0]
    assert "as when training starts" in rest[0]
    args.moe_relu_routing = False
    assert out_of_memory_message(MemoryError(), args, transformer).endswith(": MemoryError")
