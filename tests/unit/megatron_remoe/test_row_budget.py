"""A fixed number of rows: what a layer reads, what does not fit, and what is asked for twice."""

import warnings
from unittest import mock

import pytest
import torch

from command_line import REMOE
from megatron.remoe import cpu, row_budget
from megatron.remoe.model_config import gpt_config_from_args
from megatron.remoe.row_budget import FULL, Replay, RowBudget, RowBudgetRunner
from moe_layers import (
    build_layer,
    copy_weights,
    make_config,
    make_reference,
    ragged,
    run_layer,
    tokens_for_map,
)

T, E, K = 16, 8, 2
MAPS = {
    "ragged": ragged(T, E),
    "none active": torch.zeros(T, E, dtype=torch.bool),
    "all active": torch.ones(T, E, dtype=torch.bool),
    "one expert takes all": torch.arange(E).expand(T, E) == 3,
}


def make_layer(budget, **changes):
    torch.manual_seed(0)
    options = {"moe_grouped_gemm": True, "moe_relu_row_budget": budget}
    return build_layer(make_config(E, K, **{**options, **changes}))


def prepare(layer, routing_map):
    """Weights and tokens that route so."""
    reference = make_reference(E, K)
    copy_weights(reference, layer)
    return tokens_for_map(reference, routing_map)


@pytest.mark.parametrize("fused", [False, True], ids=["SwiGLU", "fused SwiGLU"])
@pytest.mark.parametrize("routing_map", MAPS.values(), ids=MAPS)
def test_spare_rows_change_no_bit(single_rank, monkeypatch, routing_map, fused):
    """Nor do the numbers that memory happens to hold: here NaN."""
    results = []
    for is_armed in (False, True):
        layer = make_layer(budget=4.0, bias_activation_fusion=fused)
        tokens = prepare(layer, routing_map)
        layer.row_budget.is_armed = is_armed
        gemm = layer.experts.gemm
        rows_seen = []

        def with_garbage(rows, weight, tokens_per_expert, gemm=gemm, seen=rows_seen):
            seen.append(len(rows))
            is_row = torch.arange(len(rows)).unsqueeze(1) < tokens_per_expert.sum()
            return torch.where(is_row, gemm(rows, weight, tokens_per_expert), torch.nan)

        layer.experts.gemm = with_garbage
        results.append(run_layer(layer, tokens, tokens.cos()))
        assert set(rows_seen) == {T * E if is_armed else int(routing_map.sum())}
        assert layer.row_budget.use == -(-int(routing_map.sum()) * FULL // (T * E))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_with_a_budget_the_host_reads_nothing(single_rank, host_reads, monkeypatch):
    layer = make_layer(budget=4.0)
    tokens = prepare(layer, MAPS["ragged"])
    layer.row_budget.is_armed = True
    # On the CPU torch reads its offsets; where `has_grouped_mm` on CUDA, by its documentation, not.
    monkeypatch.setattr(layer.experts, "gemm", lambda rows, weight, n: rows @ weight[0].T)
    waits = count_waits(monkeypatch)
    hidden_states = tokens.view(-1, 2, tokens.shape[1]).requires_grad_()
    with host_reads:
        layer(hidden_states)[0].sum().backward()
    assert host_reads.names == [] and not waits


@pytest.mark.parametrize("budget", [None, 4.0])
def test_without_one_it_waits_once_for_each_micro_batch(single_rank, monkeypatch, budget):
    layer = make_layer(budget)
    tokens = prepare(layer, MAPS["ragged"])
    waits = count_waits(monkeypatch)
    for micro_batch in (1, 2, 3):
        run_layer(layer, tokens, tokens)
        assert len(waits) == micro_batch


def count_waits(monkeypatch):
    """A list that grows with each wait for an event of the device."""
    waits = []
    monkeypatch.setattr(cpu._NoStream, "synchronize", lambda self: waits.append(1))
    return waits


@pytest.mark.parametrize(
    ("tokens_per_expert", "num_rows", "kept", "use"),
    [
        ([2, 0, 3], 5, [2, 0, 3], 1000),  # full
        ([2, 0, 3], 10, [2, 0, 3], 500),
        ([2, 0, 3], 4, [2, 0, 2], 1250),
        ([2, 0, 3], 1, [1, 0, 0], 5000),
        ([0, 0, 0], 4, [0, 0, 0], 0),
        ([5000, 1, 0], 5000, [5000, 0, 0], 1001),  # one pair too many is seen
    ],
)
def test_what_fits_and_how_full_it_is(tokens_per_expert, num_rows, kept, use):
    budget = RowBudget(1.0, 1, 3)
    assert budget.fit(torch.tensor(tokens_per_expert), num_rows).tolist() == kept
    assert budget.use == use
    budget.fit(torch.tensor([1, 0, 0]), num_rows)
    assert budget.use >= use, "the fullest micro-batch counts"
    budget.reset()
    assert budget.use == 0


def test_rows_of_a_budget():
    assert RowBudget(1.25, 2, 8).num_rows(10) == 25
    assert RowBudget(1.01, 1, 8).num_rows(10) == 11, "rounded up"
    assert RowBudget(9.0, 2, 8).num_rows(10) == 80, "never more than pairs"
    assert RowBudget(1.5, 1, 8).num_rows(0) == 0


def test_the_buffer_is_neither_saved_nor_cast():
    budget = RowBudget(1.5, 1, 8).bfloat16()
    assert budget.state_dict() == {} and budget.use.dtype == torch.int64


def test_data_that_is_replayed_is_the_same_whatever_was_done_to_it():
    replay = Replay(iter([{"a": 1}, {"a": 2}, {"a": 3}]))
    first = next(replay)
    first["a"] = None
    assert next(replay) == {"a": 2}
    replay.rewind()
    assert [next(replay)["a"] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "given", [None, iter("ab"), [iter("ab"), None]], ids=["none", "one", "list"]
)
def test_every_form_of_data_iterators_is_replayed(given):
    replays, made = row_budget._replayed(given)
    first = made[0] if isinstance(made, list) else made
    for _ in range(2):
        assert [next(replay) for replay in replays] == ["a"] * len(replays)
        [replay.rewind() for replay in replays]
    assert (first is None) == (given is None)


BUDGET = [
    *REMOE,
    *"--moe-token-dispatcher-type alltoall --moe-grouped-gemm --disable-bias-linear".split(),
]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--moe-relu-row-budget 0.5", "0.5: give a number of at least 1"),
        ("--moe-relu-row-budget nan", "nan: give a number of at least 1"),
        (
            "--moe-relu-row-budget 2 --moe-token-dispatcher-type allgather",
            "2: goes with --moe-token-dispatcher-type alltoall alone",
        ),
        (
            "--moe-relu-row-budget 2 --moe-relu-chunk-above 2",
            "does not go with --moe-relu-chunk-above",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused(validated, words, message):
    args = validated([*BUDGET, *words.split()])
    with pytest.raises(ValueError, match=message):
        gpt_config_from_args(args)


@pytest.mark.parametrize("size", ["expert_model_parallel_size", "expert_tensor_parallel_size"])
def test_experts_on_other_ranks_are_refused(size):
    with pytest.raises(ValueError, match=f"goes with --{size.replace('_', '-')} 1 alone"):
        make_config(E, K, moe_grouped_gemm=True, moe_relu_row_budget=2.0, **{size: 2})


def test_experts_that_torch_cannot_group_are_refused(single_rank):
    with pytest.raises(ValueError, match="no grouped_mm for experts of this width"):
        make_layer(2.0, moe_ffn_hidden_size=18)


def test_a_model_without_grouped_experts_is_refused():
    with pytest.raises(ValueError, match="goes with --moe-grouped-gemm alone"):
        make_config(E, K, moe_relu_row_budget=2.0)


class Stage(torch.nn.Module):
    """A pipeline stage as far as the runner sees it."""

    def __init__(self):
        super().__init__()
        self.budget, self.zeroed = RowBudget(1.5, 1, 8), 0

    def zero_grad_buffer(self):
        self.zeroed += 1


class Loop:
    """A forward-backward that uses as much of the budget as a test says, and what runs it."""

    def __init__(self, monkeypatch):
        self.stage, self.tracker = Stage(), mock.Mock()
        monkeypatch.setattr(row_budget, "get_moe_metrics_tracker", lambda: self.tracker)
        self.runner = RowBudgetRunner(self._forward_backward)
        self.armed, self.data = [], []

    def _forward_backward(self, data_iterator, **kwargs):
        self.armed.append(self.stage.budget.is_armed)
        self.data.append((next(data_iterator), torch.rand(1).item()))
        self.stage.budget.use.fill_(self.use)
        return len(self.armed)

    def step(self, use, **kwargs):
        self.use = use
        kwargs = {"forward_only": False, "data_iterator": iter("ab"), **kwargs}
        return self.runner(model=[self.stage], **kwargs)


@pytest.fixture
def loop(single_rank, monkeypatch):
    return Loop(monkeypatch)


def test_the_budget_is_tried_once_a_step_has_kept_to_it(loop):
    for use in (2000, 1000, 900):
        loop.step(use)
    assert loop.armed == [False, False, True]


@pytest.mark.filterwarnings("ignore:--moe-relu-row-budget")
def test_a_step_that_overflows_is_taken_back_and_run_once_more(loop):
    loop.step(900)
    loop.data.clear()
    assert loop.step(1001) == 3, "the result of the second run"
    assert loop.armed == [False, True, False]
    assert loop.data[0] == loop.data[1], "the same data, the same random numbers"
    assert loop.stage.zeroed == 1 and loop.tracker.clear.call_count == 1
    loop.step(900)
    assert loop.armed[3:] == [False], "not tried again before a step has kept to it"


def test_an_overflow_is_said_once(loop):
    loop.step(900)
    with pytest.warns(UserWarning, match=r"needed at least 1\.250 times its rows"):
        loop.step(1250)
    loop.step(900)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loop.step(1250)


def test_validation_and_failures_leave_no_budget_armed(loop):
    loop.step(900)
    loop.step(2000, forward_only=True)
    assert loop.armed == [False, False] and loop.runner.is_static
    with pytest.raises(StopIteration):
        loop.step(900, data_iterator=iter(""))
    assert loop.armed == [False, False, True] and not loop.stage.budget.is_armed
