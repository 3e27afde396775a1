"""Every replacement of a Megatron function on any machine (those for CPU only: `cpu`).

Each is idempotent, small, and says what it replaces and why no slot would do.
"""

import copy
import functools
from collections.abc import Callable


def use_prebuilt_helpers() -> None:
    """Let `pretrain` start from the wheel.

    Replaces `megatron.core.datasets.utils.compile_helpers`, which runs `make` in the installed
    package. The wheel ships the compiled `helpers_cpp` and no Makefile, so it ends in `sys.exit(1)`.
    Left alone where `helpers_cpp` cannot be imported (a source checkout that must compile).
    """
    try:
        from megatron.core.datasets import helpers_cpp  # noqa: F401
    except ImportError:
        return
    from megatron.core.datasets import utils

    utils.compile_helpers = lambda: None


def count_flops_of_active_experts(mean_active_experts: Callable[[], float | None]) -> None:
    """Count TFLOP/s from the experts that were active, not from `--moe-router-topk`.

    Replaces `megatron.training.training.num_floating_point_operations`, which reads the nominal k
    from the arguments; there is no slot for a measured one. The count is linear in k, so a mean over
    layers and tokens is exact.

    Args:
        mean_active_experts: Gives the active experts a token, or None before anything was measured.
    """
    from megatron.training import training

    original = training.num_floating_point_operations
    original = getattr(original, "remoe_original", original)

    @functools.wraps(original)
    def num_floating_point_operations(args, *rest, **kwargs):
        active = mean_active_experts()
        if active is not None:
            args = copy.copy(args)
            args.moe_router_topk = active
        return original(args, *rest, **kwargs)

    num_floating_point_operations.remoe_original = original
    training.num_floating_point_operations = num_floating_point_operations


def keep_adam_step_in_groups() -> None:
    """Let a distributed optimizer on torch's Adam be loaded, and resharded.

    Replaces the class that Megatron takes for Adam where neither TransformerEngine nor Apex is there
    (`megatron.core.optimizer.Adam`), and the flags that tell its checkpointing which one it is. It
    chooses by what can be imported; there is no slot. Nothing happens where either is installed.
    """
    from megatron.core import optimizer
    from megatron.core.optimizer import distrib_optimizer

    if not optimizer.USING_PYTORCH_OPTIMIZER:
        return
    from megatron.remoe.torch_native.adam import adam

    optimizer.Adam = adam
    optimizer.USING_PYTORCH_OPTIMIZER = False
    # Apex's FusedAdam has the same layout of state, and Megatron asks it for nothing else.
    distrib_optimizer.HAVE_APEX_OR_TE = True
    distrib_optimizer.USING_APEX_OPTIMIZER = True
