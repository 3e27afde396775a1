"""What a run on the CPU needs besides to save and to go on exactly."""

from types import SimpleNamespace

import torch
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync
from megatron.training import training

from megatron.remoe import cpu


def test_what_is_saved_in_the_background_is_a_copy():
    """Training goes on in the tensors while another process writes them."""
    assert hasattr(FileSystemWriterAsync.prepare_write_data, "__wrapped__")
    weight = torch.zeros(3)

    def prepare(writer, plan, planner):
        writer.write_buckets = [("path", "name", ([], [("item", weight)]))]

    writer = SimpleNamespace()
    cpu._with_copies(prepare)(writer, None, None)
    weight.fill_(1)
    assert torch.equal(writer.write_buckets[0][2][1][0][1], torch.zeros(3))


def test_loaders_leave_the_random_numbers_of_a_resumed_run_alone():
    assert hasattr(training.build_train_valid_test_data_iterators, "__wrapped__")
    state = torch.get_rng_state()
    assert cpu._without_random_numbers(lambda: torch.rand(3).numel())() == 3
    assert torch.equal(torch.get_rng_state(), state)
