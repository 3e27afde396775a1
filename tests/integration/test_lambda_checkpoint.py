"""lambda goes through Megatron's distributed checkpoints to the bit, also into another layout."""

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException

from moe_layers import LAMBDA
from ranks_gpt import load_checkpoint, save_checkpoint

# fp32 numbers that neither bf16 nor fp16 has; one of each layer, to see that none is mixed up.
LAMBDAS = {layer: 1.2345678e-8 * layer for layer in (1, 2, 3, 4)}
BF16 = {"dtype": torch.bfloat16}
PATTERNS = {
    "every layer": {"moe_layer_freq": 1},
    "every second layer": {"moe_layer_freq": 2},
    "the last layer": {"moe_layer_freq": [0, 0, 0, 1]},
}
PP2 = {"pipeline_model_parallel_size": 2}
WARMUP = {"moe_relu_l1_reg_coeff_warmup_multiplier": 2.0}
EP4 = {"expert_model_parallel_size": 4}


def check(states):
    for layer, state in states.items():
        assert state.reg_coeff.dtype == torch.float32 and state.reg_coeff.shape == ()
        assert torch.equal(state.reg_coeff, torch.tensor(LAMBDAS[layer])), layer
        assert state.counts.sum() == 0, "counters of an unfinished step are not saved"


@pytest.mark.parametrize("changes", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("dtype", [{}, BF16], ids=["fp32", "bf16"])
def test_it_is_saved_and_loaded_in_one_process(single_rank, tmp_path, dtype, changes):
    changes = {**changes, **dtype}
    save_checkpoint(tmp_path, None, changes, LAMBDAS)
    states = load_checkpoint(tmp_path, None, changes)
    freq = changes["moe_layer_freq"]
    pattern = freq if isinstance(freq, list) else [i % freq == 0 for i in range(4)]
    assert list(states) == [i + 1 for i, moe in enumerate(pattern) if moe]
    check(states)


@pytest.mark.parametrize(
    ("saved", "loaded"), [(PP2, EP4), (EP4, PP2)], ids=["PP 2 to EP 4", "EP 4 to PP 2"]
)
def test_it_follows_its_layer_into_another_layout(world, tmp_path, saved, loaded):
    """A bf16 model with MoE in layers 1 and 4, in different stages."""
    changes = {"moe_layer_freq": [1, 0, 0, 1], **BF16}
    world.run(save_checkpoint, tmp_path, saved, changes, LAMBDAS)
    by_rank = world.run(load_checkpoint, tmp_path, loaded, changes)
    assert {layer for states in by_rank for layer in states} == {1, 4}
    for states in by_rank:
        check(states)


def test_a_checkpoint_without_it_is_refused(single_rank, tmp_path):
    """A run must not go on from lambda_0 in silence."""
    save_checkpoint(tmp_path, None, {}, LAMBDAS, without="reg_coeff")
    with pytest.raises(CheckpointException, match="reg_coeff"):
        load_checkpoint(tmp_path, None, {})


@pytest.mark.parametrize("without", ["reg_coeff", None], ids=["without lambda", "with lambda"])
def test_a_restart_takes_any_checkpoint(single_rank, tmp_path, without):
    save_checkpoint(tmp_path, None, {}, LAMBDAS, without=without)
    states = load_checkpoint(tmp_path, None, {"moe_relu_restart_l1_reg_coeff": True}).values()
    assert [state.reg_coeff.item() for state in states] == [LAMBDA] * 2
    assert not any(state.awaits_load for state in states), "it is saved again"


@pytest.mark.parametrize("stored", [{}, WARMUP], ids=["without a warm-up", "with one"])
def test_a_restart_of_a_warm_up_takes_any_checkpoint(single_rank, tmp_path, stored):
    save_checkpoint(tmp_path, None, stored, LAMBDAS)
    restart = {"moe_relu_restart_l1_reg_coeff": True, **WARMUP}
    states = load_checkpoint(tmp_path, None, restart).values()
    assert [(s.reg_coeff.item(), s.reached_target.item()) for s in states] == [(LAMBDA, 0)] * 2


def test_a_warm_up_is_in_the_checkpoint_and_is_asked_for_by_a_warm_up_alone(single_rank, tmp_path):
    for name, changes in (("with", WARMUP), ("without", {})):
        (tmp_path / name).mkdir()
        save_checkpoint(tmp_path / name, None, changes, LAMBDAS)
    check(load_checkpoint(tmp_path / "with", None, WARMUP))
    check(load_checkpoint(tmp_path / "with", None, {}))
    with pytest.raises(CheckpointException, match="reached_target"):
        load_checkpoint(tmp_path / "without", None, WARMUP)


def test_a_fresh_model_starts_at_lambda_0(single_rank, tmp_path):
    save_checkpoint(tmp_path, None, {}, dict.fromkeys(LAMBDAS, LAMBDA))
    states = load_checkpoint(tmp_path, None, {}).values()
    assert [state.reg_coeff.item() for state in states] == [LAMBDA] * 2
