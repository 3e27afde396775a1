"""What routers are told of the micro-batch: token ids in their order, only while the model runs."""

from argparse import Namespace

import pytest
import torch

from megatron.remoe.micro_batch import (
    MicroBatch,
    current,
    domains_of_rank,
    in_forward,
    routers_need_these_tokens,
    routers_need_tokens,
    tokens_of_rank,
)

# Two samples of four tokens: hidden states [s, b, h] interleave them.
MICRO_BATCH = MicroBatch(torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), torch.tensor([0, 3]))


class Group:
    def __init__(self, rank, size):
        self._rank, self._size = rank, size

    def rank(self):
        return self._rank

    def size(self):
        return self._size


def test_tokens_are_in_the_order_of_flattened_hidden_states():
    group = Group(0, 1)
    assert tokens_of_rank(MICRO_BATCH, 8, group).tolist() == [1, 5, 2, 6, 3, 7, 4, 8]
    assert domains_of_rank(MICRO_BATCH, 8, group).tolist() == [0, 3] * 4


@pytest.mark.parametrize(("rank", "expected"), [(0, [1, 5, 2, 6]), (1, [3, 7, 4, 8])])
def test_a_sequence_parallel_rank_has_its_slice_of_the_sequence(rank, expected):
    assert tokens_of_rank(MICRO_BATCH, 4, Group(rank, 2)).tolist() == expected
    assert domains_of_rank(MICRO_BATCH, 4, Group(rank, 2)).tolist() == [0, 3, 0, 3]


def test_without_sequence_parallelism_every_tensor_parallel_rank_has_all_tokens():
    assert tokens_of_rank(MICRO_BATCH, 8, Group(1, 2)).tolist() == [1, 5, 2, 6, 3, 7, 4, 8]


def test_another_number_of_tokens_is_an_error():
    with pytest.raises(ValueError, match="a router saw 3 tokens of a micro-batch of 8"):
        tokens_of_rank(MICRO_BATCH, 3, Group(0, 2))


def test_there_is_a_micro_batch_in_the_forward_pass_alone():
    assert current() is None
    with in_forward(MICRO_BATCH):
        assert current() is MICRO_BATCH
        with in_forward(None):
            assert current() is None
        assert current() is MICRO_BATCH
    assert current() is None


def test_a_failed_forward_pass_leaves_none():
    with pytest.raises(RuntimeError), in_forward(MICRO_BATCH):
        raise RuntimeError
    assert current() is None


def test_only_recording_and_hash_routing_need_tokens():
    assert not routers_need_tokens(Namespace())
    assert not routers_need_tokens(Namespace(record_routing=None, moe_routing="topk"))
    assert routers_need_tokens(Namespace(record_routing="folder", moe_routing=None))
    assert routers_need_tokens(Namespace(record_routing=None, moe_routing="hash"))


def test_recording_needs_those_of_the_steps_that_it_records():
    args = Namespace(record_routing="folder", record_routing_interval=3, curr_iteration=0)
    needed = []
    for args.curr_iteration in range(6):
        needed.append(routers_need_these_tokens(args, is_training=True))
    assert needed == [False, False, True] * 2
    assert routers_need_these_tokens(args, is_training=False)
    assert not routers_need_these_tokens(Namespace(), is_training=False)


def test_hash_routing_needs_them_always():
    args = Namespace(moe_routing="hash")
    assert routers_need_these_tokens(args, True) and routers_need_these_tokens(args, False)
