"""Which of an op's two forms runs: its Triton kernels, or torch."""

import functools
import importlib
import importlib.util
import os
from types import ModuleType

from torch import Tensor


def triton_kernels(tensor: Tensor, name: str) -> ModuleType | None:
    """The module of kernels where they can run: on CUDA, or in Triton's interpreter, if asked for.

    Args:
        tensor: That they would run on.
        name: Of the module, in this package.

    Returns:
        None where torch must do it: on the CPU, or without Triton.
    """
    if tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1":
        return _module(name)
    return None


@functools.cache
def _module(name: str) -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module(f"remoe.kernels.{name}")
