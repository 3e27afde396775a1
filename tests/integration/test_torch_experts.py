"""Torch's grouped experts, spread over ranks, are `SequentialMLP`'s shards and give what they give.

Against a dense reference, with expert parallelism: `test_expert_parallel.py`. Through whole runs, with
checkpoints from one kind to the other: the layouts with grouped experts of `test_layouts.py`.
"""

import pytest
import torch

from moe_layers import assert_parity
from ranks_moe import kinds_of_experts

LAYOUTS = {
    "experts TP 2": (2, {"tensor_model_parallel_size": 2}),
    "experts TP 4 of dense TP 2": (
        4,
        {"tensor_model_parallel_size": 2, "expert_tensor_parallel_size": 4},
    ),
    "EP 2": (2, {"expert_model_parallel_size": 2}),
    "EP 2 x experts TP 2": (
        4,
        {"tensor_model_parallel_size": 2, "expert_model_parallel_size": 2},
    ),
}


@pytest.mark.parametrize(("ranks", "sizes"), LAYOUTS.values(), ids=LAYOUTS)
def test_each_rank_has_the_shards_and_gradients_of_sequential_mlp(launcher, ranks, sizes):
    for rank in launcher.ranks(ranks).run(kinds_of_experts, sizes, (False, True)):
        (theirs, they_write, their_marks), (ours, we_write, marks) = rank
        assert_parity(ours, theirs)
        assert marks == their_marks == {False}, "experts are reduced apart"
        assert we_write.keys() == they_write.keys(), "the same pieces of the same tensors"
        for where, tensor in they_write.items():
            assert we_write[where] is tensor is None or torch.equal(we_write[where], tensor)
