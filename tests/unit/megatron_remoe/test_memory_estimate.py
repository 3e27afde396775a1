"""Bytes by hand: each figure below follows from the formulas at the head of `estimate`."""

import pytest

from megatron.remoe.memory.estimate import (
    estimate,
    layer_bytes,
    micro_batches_in_flight,
    num_rows,
    peak,
    row_bytes,
    stage_estimate,
)
from memory_shapes import large_shape, make_shape

T, H = 64, 8
ROW = (8 + 6 * 16 + 1) * 2 + 24
# Two norms, their outputs, query, key and value, both rotated and the output, softmax sums, router.
OUTSIDE = T * H * (2 * 8 + 2 * 2) + T * (3 * (8 + 4) * 2 + 4 * 2) + T * 8 * 2
ATTENTION, EXPERTS = 2 * H * (8 + 4), 8 * 3 * 8 * 16
WEIGHTS = 2 * (ATTENTION + 2 * H + H * 8 + EXPERTS) + 2 * 32 * H + H
LOGITS = T * 32 * (2 + 8)


def test_a_layer_by_hand():
    assert row_bytes(make_shape()) == ROW == 234
    assert layer_bytes(make_shape(), True, 4) == (OUTSIDE, 4 * T * ROW)


def test_a_run_of_one_rank_by_hand():
    found = estimate(make_shape(), 4)
    assert found.weights == 2 * WEIGHTS
    assert found.gradients == 4 * WEIGHTS
    assert found.optimizer == 12 * WEIGHTS
    assert found.activations == 2 * OUTSIDE + T * H * (8 + 2)
    assert found.experts == 2 * 4 * T * ROW
    assert found.working == LOGITS > 4 * T * ROW / 8
    assert found.total == sum((18 * WEIGHTS, found.activations, found.experts, found.working))


def test_dense_layers_and_shared_experts_keep_five_widths_of_each_token():
    plain = layer_bytes(make_shape(), True, 1)[0]
    assert layer_bytes(make_shape(shared_width=32), True, 1)[0] == plain + T * 5 * 32 * 2
    dense = layer_bytes(make_shape(dense_width=32), False, 1)
    assert dense == (plain - T * 8 * 2 + T * 5 * 32 * 2, 0)


def test_grouped_experts_run_backward_all_at_once():
    one, all_at_once = (estimate(make_shape(grouped_experts=g, vocabulary=1), 8) for g in (0, 1))
    assert all_at_once.working == 8 * T * ROW == 8 * one.working


def test_expert_parallelism_splits_weights_and_no_rows():
    one, four = (estimate(make_shape(world=4, ep=ep), 4) for ep in (1, 4))
    assert one.weights - four.weights == 2 * 2 * EXPERTS * 3 / 4
    assert (one.experts, one.activations) == (four.experts, four.activations)


def test_experts_of_a_tensor_parallel_rank_take_the_tokens_of_all_with_a_part_of_their_width():
    shape = make_shape(world=2, tp=2, sequence_parallel=True, etp=2)
    assert num_rows(shape, 4) == 4 * T
    assert row_bytes(shape) == (8 + 6 * 8 + 1) * 2 + 24
    apart = make_shape(world=2, tp=2, sequence_parallel=True)
    assert num_rows(apart, 4) == 2 * T and row_bytes(apart) == ROW


def test_the_distributed_optimizer_splits_its_state_over_those_with_the_same_weights():
    shape = make_shape(world=4, ep=2, distributed_optimizer=True)
    experts = EXPERTS  # two layers of half of them
    assert estimate(shape, 1).optimizer == 12 * ((WEIGHTS - 2 * EXPERTS) / 4 + experts / 2)


@pytest.mark.parametrize(
    ("changes", "by_stage"),
    [
        ({}, [4, 3, 2, 1]),
        ({"global_batch": 8}, [2, 2, 2, 1]),  # no more than there are
        ({"vp": 2, "global_batch": 64}, [(6 + 4 + 1) / 2, 4.5, 3.5, 2.5]),
    ],
    ids=["one after another", "few micro-batches", "virtual stages"],
)
def test_earlier_stages_hold_more_micro_batches(changes, by_stage):
    shape = make_shape(stages=((True, True),) * 4, world=4, **changes)
    assert [micro_batches_in_flight(shape, stage) for stage in range(4)] == by_stage


def test_the_stage_with_most_is_reported():
    shape = make_shape(stages=((True,), (True,)), world=2)
    assert estimate(shape, 4).stage == 0  # two micro-batches of experts
    shape = make_shape(stages=((False,), (True,)), world=2, vocabulary=10_000, tied_embeddings=True)
    assert estimate(shape, 1).stage == 1  # logits
    assert stage_estimate(shape, 0, 1).experts == 0


def test_chunks_keep_nothing_and_work_on_so_many_rows():
    shape = make_shape(chunk_above=2, vocabulary=1, grouped_experts=True)
    dense = estimate(shape, 4)
    assert dense.experts == 0
    assert dense.working == 2 * 2 * T * ROW  # one of two chunks: what it keeps, and its gradients
    assert estimate(shape, 2) == estimate(make_shape(vocabulary=1, grouped_experts=True), 2)


def test_with_chunks_the_peak_may_be_where_they_end():
    shape = make_shape(stages=((True,) * 6,), chunk_above=3, vocabulary=1)
    assert peak(shape) == estimate(shape, 3)
    assert peak(make_shape()) == estimate(make_shape(), 4)
    assert peak(make_shape(cap=2)) == estimate(make_shape(), 2)


def test_full_recompute_keeps_inputs_of_layers_and_works_on_one():
    shape = make_shape(stages=((True,) * 6,), recompute="uniform", vocabulary=1)
    found = estimate(shape, 8)
    assert found.activations == 6 * T * H * 2 + T * H * (8 + 2) and found.experts == 0
    assert found.working == OUTSIDE + 8 * T * ROW + T * ROW


def test_the_papers_model_starts_with_half_of_its_experts():
    """182M, E = 32, 16 x 1024 tokens: 12 layers of 2^18 rows of (768 + 3 * 3072 + 1) * 2 + 24 bytes."""
    found = estimate(large_shape(), 16)
    assert found.experts == 12 * 16_384 * 16 * 19_994
    assert found.experts / estimate(large_shape(), 1).experts == 16
