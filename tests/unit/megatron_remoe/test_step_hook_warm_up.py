"""lambda's warm-up in the step hook: one decision for all routers, which takes effect with the step."""

from types import SimpleNamespace

import pytest
import torch

from megatron.remoe.step_hook import ReMoEStepHook
from moe_layers import LAMBDA, RouterStack, make_config

W, ALPHA = 2.0, 1.2
DENSE, SPARSE, AT_TARGET = 8, 0, 2  # active experts of 8 with a target of 2


class Run:
    """A training loop in Megatron's order, whose optimizer takes the steps that it is told to."""

    def __init__(self, warmup=W):
        options = {"moe_relu_l1_reg_coeff_warmup_multiplier": warmup}
        self.config = make_config(8, 2, num_layers=2, **options)
        self.model = RouterStack(self.config)
        self.hook = ReMoEStepHook([self.model], self.config, finalize=lambda *args: None)
        self.taken = True
        self.optimizer = SimpleNamespace(step=lambda: (self.taken, None, None))

        def scale_loss(optimizer, loss):
            return loss

        self.config.grad_scale_func = scale_loss.__get__(self.optimizer)

    def step(self, active):
        self.model([active])
        self.hook([self.model])
        self.optimizer.step()

    @property
    def state(self):
        """lambda, as a factor of lambda_0, and whether the target was reached; of all routers."""
        states = [layer.router.state for layer in self.model.layers]
        (found,) = {(s.reg_coeff.item() / LAMBDA, s.reached_target.item()) for s in states}
        return found


@pytest.fixture
def run(single_rank):
    return Run()


def test_it_moves_by_w_until_the_target_was_reached(run):
    factor, reached = 1.0, 0
    for active, by in [(8, W), (3, W), (0, 1 / ALPHA), (8, ALPHA), (8, ALPHA), (1, 1 / ALPHA)]:
        run.step(active)
        factor, reached = factor * by, max(reached, active <= AT_TARGET)
        assert run.state == (pytest.approx(factor, rel=1e-6), reached)


def test_a_step_that_is_not_taken_reaches_nothing(run):
    run.taken = False
    run.step(SPARSE)
    assert run.state == (1, 0)
    run.taken = True
    run.step(DENSE)
    assert run.state == (W, 0)


def test_one_layer_at_the_target_is_not_the_model(run):
    run.model.layers[0].router.routing(torch.ones(1, 1, 8))
    run.model.layers[1].router.routing(-torch.ones(1, 1, 8))
    run.hook([run.model])
    run.optimizer.step()
    assert run.state == (W, 0), "half active, a quarter is the target"


def test_without_the_option_nothing_is_remembered(single_rank):
    run = Run(warmup=None)
    run.step(AT_TARGET)
    run.step(DENSE)
    assert run.state == (pytest.approx(ALPHA), 0)
    assert list(run.model.layers[0].router.state.state_dict()) == ["reg_coeff"]


def test_it_is_one_all_reduce_and_no_read_by_the_host(run, host_reads, monkeypatch):
    all_reduce, calls = torch.distributed.all_reduce, []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: (calls.append(x), all_reduce(x)))
    run.model([DENSE])
    with host_reads:
        run.hook([run.model])
        run.optimizer.step()
    assert len(calls) == 1 and host_reads.names == []
