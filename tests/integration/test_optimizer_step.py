"""lambda and Megatron's own optimizers: what a real step, and a real overflow, do to it."""

import pytest
import torch
from megatron.core import parallel_state
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel.schedules import get_forward_backward_func
from megatron.core.rerun_state_machine import (
    RerunDataIterator,
    RerunMode,
    destroy_rerun_state_machine,
    get_rerun_state_machine,
    initialize_rerun_state_machine,
)

from moe_layers import LAMBDA
from ranks_gpt import (
    MICRO_BATCH,
    SEQUENCE,
    build_gpt,
    forward_step,
    megatron_globals,
    micro_batches,
    routers_of,
)


@pytest.fixture
def model(single_rank):
    with megatron_globals():
        yield build_gpt


def make_optimizer(stages, **options):
    options = OptimizerConfig(lr=1e-4, **options)
    return get_megatron_optimizer(options, stages, use_gloo_process_groups=False)


def train_step(config, stages, optimizer):
    """As training.py's train_step; returns whether the optimizer took the step."""
    config.grad_scale_func = optimizer.scale_loss
    forward_backward(stages, optimizer, iter(data_of_a_step()))
    return optimizer.step()[0]


def data_of_a_step():
    return micro_batches(0, parallel_state.get_data_parallel_world_size())


def forward_backward(stages, optimizer, data_iterator, step=forward_step):
    for stage in stages:
        stage.zero_grad_buffer()
    optimizer.zero_grad()
    get_forward_backward_func()(
        forward_step_func=step,
        data_iterator=data_iterator,
        model=stages,
        num_microbatches=len(data_of_a_step()),
        seq_length=SEQUENCE,
        micro_batch_size=MICRO_BATCH,
    )


def coeff(stages):
    """The one lambda of all routers."""
    (value,) = {router.state.reg_coeff.item() for router in routers_of(stages)}
    return value


@pytest.mark.parametrize(
    ("changes", "options"),
    [({}, {}), ({"dtype": torch.bfloat16}, {"bf16": True, "params_dtype": torch.bfloat16})],
    ids=["fp32", "bf16"],
)
def test_each_step_moves_lambda_once(model, changes, options):
    config, stages = model({}, changes)
    optimizer = make_optimizer(stages, **options)
    for step in range(1, 4):
        assert train_step(config, stages, optimizer)
        assert coeff(stages) == pytest.approx(LAMBDA * 1.2**step, rel=1e-6)


def test_an_overflow_leaves_lambda(model):
    """A scale that fp16 gradients cannot hold: Megatron skips the step and lowers the scale."""
    config, stages = model({}, {"fp16": True, "params_dtype": torch.float16})
    optimizer = make_optimizer(
        stages,
        fp16=True,
        params_dtype=torch.float16,
        initial_loss_scale=2.0**24,
        min_loss_scale=1.0,
        loss_scale_window=1000,
        hysteresis=1,
    )
    moved = 0
    taken = [train_step(config, stages, optimizer)]
    assert taken == [False] and coeff(stages) == LAMBDA
    for _ in range(24):
        taken.append(train_step(config, stages, optimizer))
        moved += taken[-1]
        assert coeff(stages) == pytest.approx(LAMBDA * 1.2**moved, rel=1e-5)
        if moved == 2:
            break
    assert moved == 2, "the scale came down to one that holds"


@pytest.fixture
def machine():
    """Megatron's re-run state machine, of which there is one a process."""
    destroy_rerun_state_machine()
    initialize_rerun_state_machine(mode=RerunMode.REPORT_DETERMINISM_STATS)
    yield get_rerun_state_machine()
    destroy_rerun_state_machine()


def test_a_step_that_megatron_runs_twice_moves_it_once_and_is_counted_once(model, machine):
    """`report_determinism_stats`: each forward-backward is repeated to compare the results."""
    config, stages = model({}, {})
    optimizer = make_optimizer(stages)
    config.grad_scale_func = optimizer.scale_loss
    passes = []

    def step(data_iterator, stage):
        losses, loss_func = forward_step(data_iterator, stage)
        machine.validate_result(losses.sum(), torch.isnan, "loss")
        passes.append(coeff(stages))
        return losses, loss_func

    data = RerunDataIterator(iter(data_of_a_step() * 3))
    for taken in range(3):
        while machine.should_run_forward_backward(data):
            forward_backward(stages, optimizer, data, step)
        assert coeff(stages) == pytest.approx(LAMBDA * 1.2**taken, rel=1e-6)
        tokens = config.finalize_model_grads_func.stats.num_tokens
        assert tokens[0] == len(data_of_a_step()) * MICRO_BATCH * SEQUENCE
        optimizer.step()
        assert coeff(stages) == pytest.approx(LAMBDA * 1.2 ** (taken + 1), rel=1e-6)
    assert len(passes) == 2 * 3 * len(data_of_a_step()), "each was run twice"
    assert len(set(passes)) == 3, "both passes of a step use one lambda"
