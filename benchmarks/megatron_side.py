"""A child of training_step.py: `pretrain_gpt.py` with the flags given, step by step in turns."""

import importlib
import sys
from pathlib import Path
from unittest import mock

from peak_memory import PeakMemory
from turns import Turns

ROOT = Path(__file__).resolve().parents[1]

AS_RELEASED = (
    "--as-released"  # first of the flags: Megatron with what it needs to run here, and no more
)


def main(flags):
    """Train; Megatron's `train_step` is timed to the moment at which the loss is known."""
    turns = Turns()
    sys.path.insert(0, str(ROOT))
    as_released = flags[0] == AS_RELEASED
    if as_released:
        leave_memory_alone()
    pretrain_gpt = importlib.import_module("pretrain_gpt")  # before Megatron: it may hide CUDA
    if as_released:
        leave_adam_alone()
        flags = flags[1:]
    import torch
    from megatron.training import training

    train_step = training.train_step
    turns.count_memory(PeakMemory())
    turns.facts["threads"] = torch.get_num_threads()

    def in_turn(forward_step, data_iterator, model, *args, **kwargs):
        def step():
            result = train_step(forward_step, data_iterator, model, *args, **kwargs)
            result[0]["lm loss"].item()  # waits for the device
            return result

        turns.facts["parameters"] = sum(p.numel() for part in model for p in part.parameters())
        return turns.take(step, lambda result: describe(result[0]["lm loss"].item(), model))

    with (
        mock.patch.object(sys, "argv", ["pretrain_gpt.py", *flags]),
        mock.patch.object(training, "train_step", in_turn),
    ):
        pretrain_gpt.main()


def leave_memory_alone():
    """Let malloc give freed memory back, as it does by itself; on a GPU nothing changes."""
    from megatron.remoe import cpu

    cpu._keep_freed_memory = lambda: None


def leave_adam_alone():
    """Let Megatron take the Adam that it takes by itself."""
    from megatron.remoe import arguments

    arguments.keep_adam_step_in_groups = lambda: None


def describe(loss, model):
    """The loss, and of ReMoE the mean active experts a token."""
    from megatron.core.transformer.moe.moe_logging import get_moe_metrics_tracker

    told, source = {"loss": loss}, getattr(get_moe_metrics_tracker(), "source", None)
    if source is not None:
        told["active"] = (1 - source.stats.sparsity.item()) * source.num_experts
    return told


if __name__ == "__main__":
    main(sys.argv[1:])
