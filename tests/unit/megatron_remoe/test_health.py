"""What is warned of, once: lambda at a bound, dead experts, dead tokens; and what is not.

Two experts, target sparsity one half: a fair share is half of the tokens, so 2,000 are judged.
"""

import warnings
from types import SimpleNamespace

import pytest
import torch

from megatron.remoe.health import DEAD_TOKENS, FAIR_SHARE, RoutingHealth
from megatron.remoe.metrics import ReMoEMetricsTracker, RoutingStats
from remoe import RoutingState
from remoe.controller import REG_COEFF_MAX, REG_COEFF_MIN

ENOUGH = 2 * FAIR_SHARE


def stats_of(*layers, coeff=1e-5):
    """A step in which each layer counted `(tokens per expert, tokens, without an expert)`."""
    result = RoutingStats.empty(len(layers), 2, "cpu")
    for i, layer in enumerate(layers):
        if layer:
            state = RoutingState(2, coeff)
            experts, tokens, without = layer
            state.counts.copy_(torch.tensor([*experts, tokens, without]))
            result.add(i, state)
    return result


def warnings_of(*steps, health=None, log_interval=1):
    """What a run that takes these steps warns of; it logs after every `log_interval` of them."""
    health = health or RoutingHealth(0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i, stats in enumerate(steps, start=1):
            health.observe(stats)
            if i % log_interval == 0:
                health.judge(health.steps_at_bound.item(), stats.reg_coeff.item())
    return [str(warning.message) for warning in caught]


pytestmark = pytest.mark.usefixtures("single_rank")
HEALTHY = ([ENOUGH, ENOUGH], ENOUGH, 0)


def test_a_healthy_run_is_not_warned_of():
    assert warnings_of(*[stats_of(HEALTHY, None, HEALTHY)] * 5) == []


def test_a_dead_expert_is_named_by_its_layer_once():
    sick = stats_of(HEALTHY, None, ([ENOUGH, 0], ENOUGH, 0))
    expected = "dead experts, which no token has reached: 1 in layer 2"
    assert warnings_of(sick, sick, sick) == [expected]


def test_an_expert_that_any_step_of_the_interval_reached_is_alive():
    idle, alive = stats_of(([ENOUGH, 0], ENOUGH, 0)), stats_of(([ENOUGH, 1], ENOUGH, 0))
    assert warnings_of(idle, alive, log_interval=2) == []
    assert warnings_of(idle, idle, alive, alive, log_interval=2) != []


def test_an_interval_of_few_tokens_is_judged_with_the_next():
    """One sequence of one domain does not kill an expert."""
    few = stats_of(([100, 0], ENOUGH // 4, 0))
    assert warnings_of(few, few, few) == []
    assert len(warnings_of(few, few, few, few)) == 1
    alive = stats_of(([100, 1], ENOUGH // 4, 0))
    assert warnings_of(few, few, few, alive) == []


@pytest.mark.parametrize(
    ("share", "is_warned"),
    [(0.4, False), (0.9, False), (DEAD_TOKENS, False), (DEAD_TOKENS + 0.01, True), (1.0, True)],
)
def test_tokens_without_an_expert_are_normal_until_nearly_all_are(share, is_warned):
    without = round(share * ENOUGH)
    step = stats_of(HEALTHY, ([ENOUGH - without + 1] * 2, ENOUGH, without))
    expected = [f"nearly all tokens reach no expert: {share:.1%} in layer 1"]
    assert warnings_of(step, step) == (expected if is_warned else [])


@pytest.mark.parametrize("bound", [REG_COEFF_MIN, REG_COEFF_MAX], ids=["lower", "upper"])
def test_lambda_at_a_bound_is_counted_each_step_and_warned_of_once(bound):
    health, step = RoutingHealth(0.5), stats_of(HEALTHY, coeff=bound)
    (message,) = warnings_of(step, step, step, health=health)
    assert message.startswith("moe_relu_l1_reg_coeff reached its bound")
    assert health.steps_at_bound.item() == 3


def test_a_bound_that_was_left_before_the_log_was_written_is_told_too():
    steps = [stats_of(HEALTHY, coeff=REG_COEFF_MAX), stats_of(HEALTHY, coeff=REG_COEFF_MAX / 1.2)]
    assert "reached its bound (8.33333e+09 now)" in warnings_of(*steps, log_interval=2)[0]


@pytest.mark.parametrize("coeff", [REG_COEFF_MIN * 1.2, 1e-8, 1.0, REG_COEFF_MAX / 1.2])
def test_lambda_off_its_bounds_is_not_counted(coeff):
    health = RoutingHealth(0.5)
    assert warnings_of(stats_of(HEALTHY, coeff=coeff), health=health) == []
    assert health.steps_at_bound.item() == 0


def test_routers_that_count_nothing_raise_no_alarm():
    """Frozen ones: lambda is NaN in the log."""
    assert warnings_of(RoutingStats.empty(2, 2, "cpu")) == []


def test_all_three_are_told():
    step = stats_of(([ENOUGH // 100, 0], ENOUGH, ENOUGH - ENOUGH // 100), coeff=REG_COEFF_MIN)
    assert len(warnings_of(step, step)) == 3


def test_a_step_that_does_not_log_reads_nothing(host_reads):
    health = RoutingHealth(0.5)
    with host_reads:
        health.observe(stats_of(HEALTHY))
        health.observe(stats_of(HEALTHY))
    assert host_reads.names == []


def test_a_log_reads_once_for_the_verdict(host_reads):
    health = RoutingHealth(0.5)
    health.observe(stats_of(HEALTHY))
    with host_reads:
        health.judge(0.0, 1e-5)
    assert host_reads.names.count("tolist") == 1


def test_the_tracker_judges_and_logs_the_count():
    step = stats_of(([ENOUGH, 0], ENOUGH, 0), coeff=REG_COEFF_MAX)
    source = SimpleNamespace(stats=step, target_sparsity=0.5, mean_active_experts=None)
    tracker = ReMoEMetricsTracker(source, log_interval=1, tensorboard_log_interval=1)
    options = {"loss_scale": 1.0, "track_names": [], "num_layers": 1, "moe_layer_freq": 1}
    with pytest.warns(UserWarning, match="bound") as caught:
        tracker.report(iteration=1, total_loss_dict={}, force_initialize=True, **options)
    assert any("dead experts" in str(warning.message) for warning in caught)
    line = tracker.report(iteration=2, total_loss_dict={}, force_initialize=True, **options)
    assert " moe_relu_steps_at_bound: 2 |" in line
