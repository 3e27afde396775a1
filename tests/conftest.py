"""Fixtures that every part of the suite shares; nothing here imports Megatron until it is asked."""

import os
from unittest import mock

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# What makes the host wait for the device: a value that Python asks for, or a size that is data.
HOST_FUNCTIONS = {
    torch.Tensor.item,
    torch.Tensor.tolist,
    torch.Tensor.cpu,
    torch.Tensor.numpy,
    torch.Tensor.__bool__,
    torch.Tensor.__int__,
    torch.Tensor.__float__,
    torch.Tensor.__index__,
}
HOST_OPERATORS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}


class HostReads:
    """Counts the reads of tensors by the host inside a `with` block, in `names`."""

    def __init__(self):
        self.names = []

    def __enter__(self):
        self._modes = (_Functions(self.names), _Operators(self.names))
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *exception):
        for mode in reversed(self._modes):
            mode.__exit__(*exception)


class _Functions(TorchFunctionMode):
    def __init__(self, names):
        super().__init__()
        self.names = names

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in HOST_FUNCTIONS:
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, names):
        super().__init__()
        self.names = names

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split(".")[0]
        if name in HOST_OPERATORS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def host_reads():
    """Context manager whose `names` lists every read of a tensor by the host."""
    return HostReads()


@pytest.fixture(scope="session")
def single_rank():
    """This process as a world of one rank, with Megatron's process groups."""
    from harness import join_world, layout

    with mock.patch.dict(os.environ):  # other tests start commands with this environment
        join_world(0, 1, torch.distributed.HashStore())
        with layout():
            yield
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def saved_runs(tmp_path_factory):
    """The folder of the checkpoints that `saved_runs.RUNS` names."""
    from saved_runs import save_all

    return save_all(tmp_path_factory.mktemp("saved_runs"))
