"""lambda and the counters survive casts, copies, checkpoints and devices."""

import copy

import pytest
import torch

from remoe import RoutingState

LAMBDA = 1.2345678e-8  # no bf16 or fp16 number


@pytest.fixture
def state():
    state = RoutingState(4, LAMBDA)
    state.record(torch.tensor([2**24 + 1, 0, 3, 1, 7, 2]), torch.tensor(0.1))
    return state


CASTS = {
    "bfloat16": lambda m: m.bfloat16(),
    "half": lambda m: m.half(),
    "double": lambda m: m.double(),
    "to dtype": lambda m: m.to(torch.bfloat16),
    "to device and dtype": lambda m: m.to("cpu", torch.float16),
    "there and back": lambda m: m.half().float(),
    "as a sub-module": lambda m: torch.nn.Sequential(m).bfloat16()[0],
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_no_cast_changes_dtype_or_value(state, cast):
    before = {name: buffer.clone() for name, buffer in state.named_buffers()}
    after = dict(cast(state).named_buffers())
    assert after["reg_coeff"].dtype == torch.float32
    assert after["counts"].dtype == torch.int64
    assert after["reg_loss"].dtype == torch.float64
    for name, buffer in before.items():
        assert torch.equal(after[name], buffer), name


def test_only_lambda_is_saved(state):
    assert list(state.state_dict()) == ["reg_coeff"]
    assert state.state_dict()["reg_coeff"].shape == ()


def test_with_a_warm_up_it_is_saved_whether_the_target_was_reached():
    state, other = (RoutingState(4, LAMBDA, warms_up=True) for _ in range(2))
    state.reached_target.fill_(1)
    assert list(state.state_dict()) == ["reg_coeff", "reached_target"] == [*state.saved_names]
    other.load_state_dict(copy.deepcopy(state.half().state_dict()))
    assert other.reached_target == 1 and other.reached_target.dtype == torch.float32


def test_a_warm_up_does_not_go_on_from_a_state_that_knows_of_none(state):
    warming = RoutingState(4, LAMBDA, warms_up=True)
    with pytest.raises(ValueError, match="no reached_target in what is loaded"):
        warming.load_state_dict(state.state_dict(), strict=False)


def test_without_a_warm_up_its_state_is_passed_over(state):
    warming = RoutingState(4, 1e-5, warms_up=True)
    warming.reached_target.fill_(1)
    state.load_state_dict(warming.state_dict())  # strict: it is no stranger either
    assert state.reg_coeff == torch.tensor(1e-5) and state.reached_target == 0


def test_a_restart_warms_up_anew():
    stored = {"reg_coeff": torch.tensor(1.0), "reached_target": torch.tensor(1.0)}
    for loaded in (stored, {}):
        state = RoutingState(4, LAMBDA, restart=True, warms_up=True)
        state.load_state_dict(loaded)
        assert (state.reg_coeff, state.reached_target) == (torch.tensor(LAMBDA), 0)


@pytest.mark.parametrize("cast", ["bfloat16", "half", "float"])
def test_lambda_is_saved_and_loaded_to_the_bit(state, cast):
    saved = copy.deepcopy(getattr(state, cast)().state_dict())
    other = getattr(RoutingState(4, 1.0), cast)()
    other.load_state_dict(saved)
    assert other.reg_coeff.dtype == torch.float32
    assert torch.equal(other.reg_coeff, torch.tensor(LAMBDA))
    assert other.counts.sum() == 0, "counters of an unfinished step are not restored"


def test_a_missing_lambda_is_an_error(state):
    with pytest.raises(ValueError, match="no reg_coeff in what is loaded"):
        state.load_state_dict({})


def test_a_missing_lambda_is_an_error_even_where_loading_is_not_strict(state):
    """Trainers fall back to that when a strict load fails, and go on."""
    with pytest.raises(ValueError, match=r"no inner\.reg_coeff in what is loaded"):
        torch.nn.ModuleDict({"inner": state}).load_state_dict({}, strict=False)


@pytest.mark.parametrize("stored", [{}, {"reg_coeff": torch.tensor(1.0)}], ids=["without", "with"])
def test_a_restart_keeps_lambda_0_whatever_is_loaded(stored):
    state = RoutingState(4, LAMBDA, restart=True)
    for strict in (True, False):  # a trainer may try both
        state.load_state_dict(stored, strict=strict)
        assert torch.equal(state.reg_coeff, torch.tensor(LAMBDA))
    assert stored.get("reg_coeff") in (None, 1.0), "what was loaded is left as it was"


def test_a_restart_is_awaited_until_a_state_is_loaded_or_a_step_is_over():
    loaded, stepped = (RoutingState(4, LAMBDA, restart=True) for _ in range(2))
    assert loaded.awaits_load and not RoutingState(4, LAMBDA).awaits_load
    loaded.load_state_dict({})
    stepped.reset()
    assert not loaded.awaits_load and not stepped.awaits_load


def test_a_deep_copy_is_independent(state):
    twin = copy.deepcopy(state)
    twin.reg_coeff.mul_(2)
    twin.reset()
    assert torch.equal(state.reg_coeff, torch.tensor(LAMBDA))
    assert state.counts.sum() > 0 and twin.counts.sum() == 0
    assert state is not twin and twin.half().reg_coeff.dtype == torch.float32


def test_dropped_pairs_add_up_where_a_micro_batch_has_them(state):
    counts, loss = torch.zeros(6, dtype=torch.int64), torch.tensor(0.0)
    for num_dropped in (torch.tensor(3), None, torch.tensor(2**24)):
        state.record(counts, loss, num_dropped=num_dropped)
    assert state.num_dropped.item() == 2**24 + 3


def test_reset_forgets_the_counters_and_keeps_lambda(state):
    state.num_dropped.fill_(3)
    state.reached_target.fill_(1)
    state.reset()
    assert state.num_dropped == 0 and state.reached_target == 1
    assert state.counts.tolist() == [0] * 6 and state.reg_loss.tolist() == [0.0, 0.0]
    assert torch.equal(state.reg_coeff, torch.tensor(LAMBDA))


def test_counters_add_up_beyond_fp32(state):
    state.record(torch.tensor([1, 0, 0, 0, 0, 0]), torch.tensor(0.1))
    assert state.counts[0].item() == 2**24 + 2


def test_a_share_counts_as_a_part_of_a_micro_batch():
    """Four ranks hold one micro-batch: their parts add up to its loss, their shares to one."""
    ranks = [RoutingState(4, LAMBDA) for _ in range(4)]
    for rank, part in zip(ranks, (0.5, 0.0, 1.0, 2.5), strict=True):
        rank.record(torch.zeros(6, dtype=torch.int64), torch.tensor(part), share=1 / 4)
    assert sum(rank.reg_loss for rank in ranks).tolist() == [4.0, 1.0]


def test_recording_keeps_no_graph_and_reads_nothing(state, host_reads):
    loss = torch.tensor(1.0, requires_grad=True) * 2
    counts = torch.ones(6, dtype=torch.int64)
    with host_reads:
        state.record(counts, loss)
        state.reset()
    assert host_reads.names == []
    assert not state.reg_loss.requires_grad


def test_buffers_take_no_part_in_training(state):
    assert list(state.parameters()) == []
    assert not any(buffer.requires_grad for buffer in state.buffers())


def test_a_model_built_on_the_meta_device_has_a_real_lambda():
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), RoutingState(4, LAMBDA, device="cpu"))
    assert model[0].weight.is_meta
    assert torch.equal(model[1].reg_coeff, torch.tensor(LAMBDA))


def test_emptying_the_model_around_it_keeps_lambda_and_counters(state):
    """`Module.to_empty` gives each tensor new memory; real buffers must keep their values."""
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Identity())
    model[1] = state
    before = {name: buffer.clone() for name, buffer in state.named_buffers()}
    model._apply(lambda t: torch.full_like(t, 7, device="cpu"))  # to_empty with a fixed content
    for name, buffer in before.items():
        assert torch.equal(getattr(state, name), buffer), name


def test_it_can_live_on_the_meta_device():
    state = RoutingState(4, LAMBDA, device="meta")
    assert state.half().reg_coeff.is_meta
