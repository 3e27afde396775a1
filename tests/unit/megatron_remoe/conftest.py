"""Megatron on the CPU for the tests of the adapter."""

import pytest
import torch

if torch.cuda.is_available():
    collect_ignore_glob = ["test_*.py"]  # they run on the CPU: hide the GPUs, CUDA_VISIBLE_DEVICES=
else:
    from megatron.remoe import cpu

    torch.set_num_threads(1)  # tensors are small: on a shared machine threads wait for each other
    cpu.enable()  # before a test module imports megatron.training


@pytest.fixture(autouse=True)
def loss_scale_of_one():
    """The scale of attached losses is a global of Megatron's that its schedules set."""
    from megatron.core.transformer.moe.moe_utils import MoEAuxLossAutoScaler

    MoEAuxLossAutoScaler.main_loss_backward_scale = None
    yield
    MoEAuxLossAutoScaler.main_loss_backward_scale = None


@pytest.fixture
def validated(monkeypatch, capsys):
    """Parse and validate a command line as pretrain_gpt.py does; several in one test will do."""
    import sys

    from megatron.training.global_vars import unset_global_variables

    from megatron.remoe.arguments import parse_and_validate_args

    def run(words):
        unset_global_variables()
        monkeypatch.setattr(sys, "argv", ["pretrain_gpt.py", *words])
        return parse_and_validate_args(args_defaults={"tokenizer_type": "HuggingFaceTokenizer"})

    yield run
    unset_global_variables()
