"""lambda moves when, and only when, the optimizer takes a step."""

import pytest
import torch

from megatron.remoe.step_hook import ReMoEStepHook
from moe_layers import LAMBDA, RouterStack, make_config


class Optimizer:
    """As much of a Megatron optimizer as the hook touches; `succeeds` is what the next step says."""

    def __init__(self):
        self.succeeds, self.steps = True, 0

    def scale_loss(self, loss):
        return loss

    def step(self):
        self.steps += 1
        return self.succeeds, None, None  # (success, gradient norm, number of zeros)


@pytest.fixture
def run(single_rank):
    return Run()


class Run:
    """A training loop in Megatron's order: forward-backward, finalize, optimizer."""

    def __init__(self):
        self.config = make_config(num_layers=2)
        self.model = RouterStack(self.config)
        self.hook = ReMoEStepHook([self.model], self.config, finalize=lambda *args: None)
        self.use(Optimizer())

    def use(self, optimizer):
        self.optimizer = optimizer
        self.config.grad_scale_func = optimizer.scale_loss  # training.py: train()

    def forward_backward(self, active=8):
        self.model([active])
        self.hook([self.model])

    @property
    def steps_up(self):
        """How many factors of alpha lambda has moved."""
        (coeff,) = {layer.router.state.reg_coeff.item() for layer in self.model.layers}
        return round(torch.tensor(coeff / LAMBDA).log().div(torch.tensor(1.2).log()).item(), 4)


def test_it_waits_for_the_optimizer(run):
    run.forward_backward()
    assert run.steps_up == 0, "the forward of a retry would use a lambda that no step has seen"
    run.optimizer.step()
    assert run.steps_up == 1


def test_a_skipped_step_leaves_it(run):
    """An overflow under fp16: the optimizer says that it took no step."""
    run.optimizer.succeeds = False
    run.forward_backward()
    run.optimizer.step()
    assert run.steps_up == 0
    run.optimizer.succeeds = True
    run.forward_backward()
    run.optimizer.step()
    assert run.steps_up == 1, "the skipped step is not caught up"


def test_a_repeated_forward_backward_moves_it_once(run):
    """Megatron's re-run state machine repeats a step that gave a NaN."""
    for _ in range(3):
        run.forward_backward()
    run.optimizer.step()
    assert run.steps_up == 1


def test_a_repeated_forward_backward_is_counted_once(run):
    run.forward_backward()
    once = run.hook.stats.table.clone()
    run.forward_backward()
    assert torch.equal(run.hook.stats.table, once) and once[:, :-8].sum() > 0
    assert all(layer.router.state.counts.sum() == 0 for layer in run.model.layers)


def test_the_last_forward_backward_decides(run):
    run.forward_backward(active=8)
    run.forward_backward(active=0)
    run.optimizer.step()
    assert run.steps_up == -1


def test_many_steps_move_it_once_each(run):
    for _ in range(5):
        run.forward_backward()
        run.optimizer.step()
    assert run.steps_up == 5
    assert run.optimizer.steps == 5, "the optimizer itself steps as often as it is asked"


def test_the_optimizers_answer_is_passed_on(run):
    run.forward_backward()
    assert run.optimizer.step() == (True, None, None)
    run.optimizer.succeeds = False
    assert run.optimizer.step() == (False, None, None)


def test_a_new_optimizer_is_followed_instead(run):
    run.forward_backward()
    run.optimizer.step()
    run.use(Optimizer())
    run.forward_backward()
    assert run.steps_up == 1
    run.optimizer.step()
    assert run.steps_up == 2


@pytest.mark.parametrize("scale", [None, lambda loss: loss], ids=["no scaler", "a plain function"])
def test_without_an_optimizer_to_follow_it_moves_at_once(run, scale):
    run.config.grad_scale_func = scale
    run.forward_backward()
    assert run.steps_up == 1
    assert run.model.layers[0].router.state.reg_coeff.item() == pytest.approx(LAMBDA * 1.2)


def test_the_commit_reads_nothing(run, host_reads):
    run.forward_backward()
    with host_reads:
        run.optimizer.step()
    assert host_reads.names == []
