"""What the log says: names, values, and when the host is asked.

Two MoE layers of two experts beside a dense one, in one step:

            tokens per expert  tokens  without  dropped  losses, number  reached, lambda, routers
    layer 0      6  2            8        3        2        3.0  2          1  1e-5  1
    layer 1      0  0            0        0        0        0    0          0  0     0   (dense)
    layer 2      4  0            8        4        1        1.0  2          1  1e-5  1
"""

import re
import warnings

import pytest
import torch

from megatron.remoe.metrics import ReMoEMetricsTracker, RoutingStats, layer_scalars

TABLE = [
    [6, 2, 8, 3, 2, 3.0, 2, 1, 1e-5, 1],
    [0, 0, 0, 0, 0, 0.0, 0, 0, 0.0, 0],
    [4, 0, 8, 4, 1, 1.0, 2, 1, 1e-5, 1],
]
EXPECTED = {
    "moe_relu_sparsity": 1 - 12 / 32,
    "moe_relu_l1_reg_coeff": 1e-5,
    "moe_relu_l1_reg_loss": 4.0 / 4,
    "moe_relu_active_experts": 12 / 16,
    "moe_relu_dead_experts": 1,  # the second of layer 2; a dense layer has none
    "moe_relu_tokens_without_expert": 7 / 16,
    "moe_relu_steps_at_bound": 0,
}


class Source:
    """Stands for the step hook."""

    def __init__(self, table=TABLE, is_capped=False):
        self.stats = RoutingStats(torch.tensor(table, dtype=torch.float64), is_capped)
        self.mean_active_experts = None
        self.target_sparsity = 0.5


class Writer:
    """Takes scalars as tensorboard and as W&B do."""

    def __init__(self):
        self.scalars = {}

    def add_scalar(self, name, value, iteration):
        self.scalars[name, iteration] = float(value)

    def log(self, scalars, iteration):
        self.scalars.update({(name, iteration): float(v) for name, v in scalars.items()})


def report(tracker, iteration, **options):
    """As training_log calls it."""
    arguments = {"loss_scale": 0.5, "track_names": [], "num_layers": 3, "moe_layer_freq": 2}
    return tracker.report(
        iteration=iteration, force_initialize=True, total_loss_dict={}, **arguments, **options
    )


@pytest.fixture
def source(single_rank):
    return Source()


@pytest.fixture
def tracker(source):
    return ReMoEMetricsTracker(source, log_interval=10, tensorboard_log_interval=5)


def console(line):
    return {name: float(value) for name, value in re.findall(r" (\w+): (\S+) \|", line)}


def test_the_console_line_names_every_figure(tracker):
    assert console(report(tracker, 1)) == pytest.approx(EXPECTED, abs=1e-4)


def test_lambda_is_legible_at_any_size(single_rank):
    table = [[*row[:-2], 1.2345e-9 * row[-1], row[-1]] for row in TABLE]
    tracker = ReMoEMetricsTracker(Source(table), 1, 1)
    assert " moe_relu_l1_reg_coeff: 1.2345E-09 |" in report(tracker, 1)


@pytest.mark.parametrize("kind", ["writer", "wandb_writer"])
def test_each_writer_gets_the_figures_and_those_of_each_moe_layer(tracker, kind):
    writer = Writer()
    report(tracker, 5, **{kind: writer})
    assert {iteration for _, iteration in writer.scalars} == {5}
    scalars = {name: value for (name, _), value in writer.scalars.items()}
    assert {name: scalars.pop(name) for name in EXPECTED} == pytest.approx(EXPECTED)
    assert scalars == {
        "moe/moe_relu_sparsity_layer_0": 0.5,
        "moe/moe_relu_active_experts_layer_0": 1.0,
        "moe/moe_relu_max_expert_load_layer_0": 1.5,
        "moe/moe_relu_tokens_without_expert_layer_0": 3 / 8,
        "moe/moe_relu_sparsity_layer_2": 0.75,
        "moe/moe_relu_active_experts_layer_2": 0.5,
        "moe/moe_relu_max_expert_load_layer_2": 2.0,
        "moe/moe_relu_tokens_without_expert_layer_2": 4 / 8,
    }


def test_wandb_is_left_alone_where_it_is_not_given(tracker):
    writer = Writer()
    writer.log = lambda *args: pytest.fail("tensorboard's writer has no log")
    report(tracker, 5, writer=writer)
    assert writer.scalars


def test_per_layer_logging_adds_the_load_of_each_expert(tracker):
    writer = Writer()
    line = report(tracker, 10, writer=writer, per_layer_logging=True)
    name = "moe/moe_relu_expert_load_layer_{}_expert_{}"
    loads = [writer.scalars[name.format(i, e), 10] for i in (0, 2) for e in (0, 1)]
    assert loads == [1.5, 0.5, 2.0, 0.0]
    assert " moe_relu_sparsity by layer: 0.500 0.750 |" in line
    assert " moe_relu_max_expert_load by layer: 1.500 2.000 |" in line


def test_dropped_pairs_are_logged_where_there_is_a_cap(single_rank):
    line = report(ReMoEMetricsTracker(Source(is_capped=True), 1, 1), 1)
    assert console(line) == pytest.approx(
        EXPECTED | {"moe_relu_dropped_fraction": 3 / 12}, abs=1e-4
    )


def test_of_no_active_pair_none_is_dropped(single_rank):
    source = Source([[0, 0, 8, 8, 0, 0.0, 1, 0, 1e-5, 1]], is_capped=True)
    line = report(ReMoEMetricsTracker(source, 1, 1), 1)
    assert " moe_relu_dropped_fraction: 0.0000 |" in line


def test_an_idle_layer_has_no_load():
    stats = RoutingStats(torch.tensor([[0.0, 0, 8, 8, 0, 0, 1, 0, 1e-5, 1]]))
    scalars = layer_scalars(stats, per_expert=False)
    assert scalars["moe/moe_relu_max_expert_load_layer_0"] == 0.0
    assert scalars["moe/moe_relu_sparsity_layer_0"] == 1.0


@pytest.mark.parametrize(
    ("iteration", "has_writer", "is_logged"),
    [
        (7, False, False),
        (7, True, False),
        (5, False, False),  # tensorboard's turn, but this rank does not write
        (5, True, True),
        (10, False, True),
        (10, True, True),
    ],
)
def test_the_host_reads_only_when_it_logs(tracker, host_reads, iteration, has_writer, is_logged):
    report(tracker, 1)  # the first iteration always logs
    writer = Writer() if has_writer else None
    with host_reads:
        line = report(tracker, iteration, writer=writer)
    assert bool(host_reads.names) == is_logged
    assert bool(line) == (iteration == 10)
    assert bool(writer and writer.scalars) == (is_logged and has_writer)


def test_nothing_is_said_before_the_first_step(tracker, source):
    source.stats = None
    assert report(tracker, 1) == ""


def test_the_flop_count_gets_the_mean_of_the_interval(tracker, source):
    report(tracker, 1)
    assert source.mean_active_experts == (12 - 3) / 16, "experts compute nothing for a dropped pair"
    rows = [[2, 2, 4, 0, 0, 0, 1, 1, 1e-5, 1], [0] * 10, [0] * 10]
    for iteration in range(2, 11):
        if iteration == 10:
            source.stats = RoutingStats(torch.tensor(rows, dtype=torch.float64))
        report(tracker, iteration)
    # 8 iterations of 12 - 3 in 16 tokens, then 4 in 4
    assert source.mean_active_experts == (8 * 9 + 4) / (8 * 16 + 4)


def test_frozen_routers_raise_no_alarm(single_rank):
    """`--freeze-all-layers`: nothing was counted, lambda is NaN in the log, not at a bound."""
    source = Source([[0.0] * 10])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "moe_relu_sparsity: nan" in report(ReMoEMetricsTracker(source, 1, 1), 1)
    assert source.mean_active_experts is None, "the FLOP count keeps to the nominal k"


def test_megatrons_own_metrics_stay(tracker):
    """`--moe-z-loss-coeff` is allowed, and its loss is in the log."""
    tracker.record("z_loss", torch.tensor(6.0), layer_number=1, num_layers=3)
    options = {"track_names": ["z_loss"], "num_layers": 3, "moe_layer_freq": 2}
    total = {}
    tracker.report(loss_scale=0.5, iteration=1, total_loss_dict=total, **options)
    assert total["z_loss"] == 1.5  # 6 * 0.5 over two MoE layers
