"""What the training log says of speed: two intervals, worked by hand.

Sequences of 64 tokens, 4 a step; one step takes half a second, and evaluations in between are not in
Megatron's timer. 256 tokens in half a second are 512 a second.
"""

import re
from argparse import Namespace

import pytest
from megatron.training import training as megatron_training

from megatron.remoe.patches import extend_training_log
from megatron.remoe.throughput import training

FLOPS_A_TOKEN, WORLD = 3e9, 2
TFLOPS = 512 * FLOPS_A_TOKEN / 1e12 / WORLD


class Clock:
    """Megatron's timers, of which only `interval-time` is asked."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self, name):
        assert name == "interval-time"
        return Namespace(active_time=lambda: self.seconds)


class Writer:
    """Takes scalars as tensorboard and as W&B do."""

    def __init__(self):
        self.scalars = {}

    def add_scalar(self, name, value, iteration):
        self.scalars.setdefault(iteration, {})[name] = value

    def log(self, scalars, iteration):
        self.scalars.setdefault(iteration, {}).update(scalars)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def args():
    return Namespace(seq_length=64, world_size=WORLD, log_timers_to_tensorboard=False)


@pytest.fixture(params=["get_tensorboard_writer", "get_wandb_writer"])
def writer(request, monkeypatch):
    writer = Writer()
    for name in ("get_tensorboard_writer", "get_wandb_writer"):
        given = writer if name == request.param else None
        monkeypatch.setattr(training, name, lambda given=given: given)
    return writer


@pytest.fixture
def log(monkeypatch, clock, args, capsys):
    """Run a step; the line that it prints, or None. Megatron's part is one word."""

    def training_log(loss, total, rate, iteration, *rest, is_first_iteration=False, **kwargs):
        clock.seconds += 0.5
        if iteration % 2 == 0 or is_first_iteration:
            megatron_training.print_rank_last(f"{iteration} |")
        return "report memory"

    def count(args, samples, seqlen_squared_sum_in_batch, total_real_tokens_in_batch):
        return FLOPS_A_TOKEN * total_real_tokens_in_batch

    monkeypatch.setattr(megatron_training, "training_log", training_log)
    monkeypatch.setattr(megatron_training, "print_rank_last", print)
    monkeypatch.setattr(megatron_training, "num_floating_point_operations", count)
    monkeypatch.setattr(training, "get_args", lambda: args)
    monkeypatch.setattr(training, "get_timers", lambda: clock)
    monkeypatch.setattr(training, "get_current_running_global_batch_size", lambda: 4)
    monkeypatch.setattr(training, "peak_memory_gib", lambda: 1.5)
    restarts = []
    monkeypatch.setattr(training, "restart_peak", lambda: restarts.append(1))

    def step(iteration, **options):
        result = megatron_training.training_log({}, {}, 1e-3, iteration, 1.0, **options)
        assert result == "report memory"
        return capsys.readouterr().out.strip() or None

    step.restarts = restarts
    return step


def figures(line):
    return {name: float(value) for name, value in re.findall(r" ([\w-]+): (\S+) \|", line)}


def test_a_line_ends_in_speed_and_memory(log):
    extend_training_log(training.TrainingThroughput(peak_tflops=2.0))
    line = log(1, is_first_iteration=True)
    assert line.startswith("1 | tokens-per-second: 512.0 |")
    assert figures(line) == {
        "tokens-per-second": 512.0,
        "mfu": round(TFLOPS / 2.0, 4),
        "peak-memory-gib": 1.5,
    }


def test_writers_get_every_line_but_the_first(log, writer):
    extend_training_log(training.TrainingThroughput(peak_tflops=2.0))
    for iteration in range(1, 5):
        log(iteration, is_first_iteration=iteration == 1)
    expected = {
        "throughput": TFLOPS,
        "tokens-per-second": 512.0,
        "mfu": TFLOPS / 2.0,
        "peak-memory-gib": 1.5,
    }
    assert writer.scalars == {2: pytest.approx(expected), 4: pytest.approx(expected)}


def test_megatrons_own_throughput_is_not_written_twice(log, writer, args):
    args.log_timers_to_tensorboard = True
    extend_training_log(training.TrainingThroughput(peak_tflops=2.0))
    log(2)
    assert set(writer.scalars[2]) == {"tokens-per-second", "mfu", "peak-memory-gib"}


def test_an_unknown_peak_leaves_out_mfu(log, writer):
    extend_training_log(training.TrainingThroughput(peak_tflops=None))
    assert set(figures(log(2))) == {"tokens-per-second", "peak-memory-gib"}
    assert "mfu" not in writer.scalars[2]


def test_an_interval_is_what_lies_between_two_lines(log, clock):
    """The first line restarts nothing, as Megatron's own time goes on through it."""
    extend_training_log(training.TrainingThroughput(None))
    log(1, is_first_iteration=True)
    assert not log.restarts
    clock.seconds += 1.0
    assert figures(log(2))["tokens-per-second"] == 512 / 2.0  # two steps in 2 seconds
    assert len(log.restarts) == 1
    assert log(3) is None
    assert figures(log(4))["tokens-per-second"] == 512.0
    assert len(log.restarts) == 2


def test_a_growing_batch_is_counted_step_by_step(log, monkeypatch):
    extend_training_log(training.TrainingThroughput(None))
    log(3)
    monkeypatch.setattr(training, "get_current_running_global_batch_size", lambda: 12)
    assert figures(log(4))["tokens-per-second"] == (4 + 12) * 64


def test_padding_of_packed_sequences_does_not_count(log):
    extend_training_log(training.TrainingThroughput(None))
    lengths = {"total_real_tokens_in_batch": 200.0, "seqlen_squared_sum_in_batch": 9000.0}
    assert figures(log(2, **lengths))["tokens-per-second"] == 400.0


def test_a_step_without_a_line_asks_nothing(log, monkeypatch, host_reads):
    extend_training_log(training.TrainingThroughput(None))
    monkeypatch.setattr(training, "peak_memory_gib", lambda: pytest.fail("a collective"))
    with host_reads:
        assert log(3) is None
    assert not host_reads.names


def test_a_second_model_replaces_the_first_ones_figures(log):
    for peak in (1.0, 2.0):
        extend_training_log(training.TrainingThroughput(peak))
    line = log(2)
    assert line.count("tokens-per-second") == 1
    assert figures(line)["mfu"] == round(TFLOPS / 2.0, 4)


def test_an_error_leaves_megatrons_printer_in_place(log, monkeypatch):
    extend_training_log(training.TrainingThroughput(None))
    monkeypatch.setattr(training, "peak_memory_gib", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        log(2)
    assert megatron_training.print_rank_last is print
