"""What a checkpoint says of the run that saved it, read without building anything."""

import warnings
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import torch
from megatron.core.dist_checkpointing import load_common_state_dict
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.api import CheckpointException

REG_COEFF = "router.state.reg_coeff"  # the end of lambda's name in either format

# What a damaged file, or one with classes that weights_only refuses, ends in. torch's is no Exception.
UNREADABLE = (Exception, CheckpointException)


@dataclass(frozen=True)
class StoredRun:
    """The run that saved a checkpoint.

    Attributes:
        folder: The iteration's folder.
        args: Its validated arguments (experts and k are those after `--moe-granularity`); empty where
            none are stored, as in what converters write.
        has_reg_coeff: Whether lambda is in it.
        form: `torch_dist` or `torch`.
        experts_apart: Whether its optimizer keeps experts apart from dense parameters, as a ReMoE
            model's does in every layout, and a TopK model's with expert parallelism only.
    """

    folder: Path
    args: Namespace
    has_reg_coeff: bool
    form: str
    experts_apart: bool

    @property
    def routing(self) -> str:
        """`ReMoE`, `TopK`, `dense` or `unknown`."""
        if self.has_reg_coeff:
            return "ReMoE"
        return routing_of(self.args) if vars(self.args) else "unknown"


def routing_of(args: Namespace) -> str:
    """`ReMoE`, `TopK` or `dense`; arguments of plain Megatron have no `moe_relu_routing`."""
    if not getattr(args, "num_experts", None):
        return "dense"
    return "ReMoE" if getattr(args, "moe_relu_routing", False) else "TopK"


def method_of(args: Namespace) -> str:
    """The word of `--moe-routing` of a model with experts; without the flag, what its options make."""
    if named := getattr(args, "moe_routing", None):
        return named
    if getattr(args, "moe_relu_routing", False):
        is_plain = getattr(args, "moe_relu_load_balancing", None) == "none"
        return "relu-l1" if is_plain else "relu"
    if getattr(args, "moe_router_enable_expert_bias", False):
        return "topk-bias"
    # Megatron takes one kind of balancing, or a list of them.
    is_balanced = getattr(args, "moe_router_load_balancing_type", None) not in ("none", ["none"])
    return "topk" if is_balanced else "topk-unbalanced"


def is_own(args: Namespace, folder: Path) -> bool:
    """Whether a checkpoint is in `--load`, not in `--pretrained-checkpoint`."""
    return bool(args.load) and folder.parent == Path(args.load)


def read_stored_run(folder: Path) -> StoredRun | None:
    """Read the arguments, and whether lambda is there, in Megatron's formats torch_dist and torch.

    Needs no process group and loads no weights. Runs nothing that is stored, once
    `checkpoint.patches.guard_checkpoints` was called.

    Args:
        folder: Of one iteration.

    Returns:
        None for a format of FSDP.

    Raises:
        ValueError: Naming the file that cannot be read.
    """
    if (folder / "metadata.json").exists():
        form, (args, has_reg_coeff, optimizer) = "torch_dist", _read_torch_dist(folder)
    elif any(folder.glob("mp_rank_*")):
        form, (args, has_reg_coeff, optimizer) = "torch", _read_torch(folder)
    else:
        return None
    # A chain of optimizers is a list, or a dictionary with numbers for keys.
    experts_apart = isinstance(optimizer, list) or (isinstance(optimizer, dict) and 1 in optimizer)
    return StoredRun(folder, args or Namespace(), has_reg_coeff, form, experts_apart)


def _read_torch_dist(folder: Path) -> tuple[Namespace | None, bool, object]:
    try:
        with warnings.catch_warnings():
            # "torch.distributed is uninitialized, assuming ... a single process": so it is meant
            warnings.simplefilter("ignore")
            common = load_common_state_dict(str(folder))
            names = FileSystemReader(str(folder)).read_metadata().state_dict_metadata
    except UNREADABLE as error:
        raise _unreadable(folder, error) from error
    has_reg_coeff = any(name.endswith(REG_COEFF) for name in names)
    return common.get("args"), has_reg_coeff, common.get("optimizer")


def _read_torch(folder: Path) -> tuple[Namespace | None, bool, object]:
    """One file a rank; not every pipeline stage has an MoE layer, so look for lambda in each."""
    args, has_reg_coeff, optimizer = None, False, None
    for path in sorted(folder.glob("mp_rank_*/model_optim_rng.pt")):
        try:
            # mmap: the weights stay on the disk
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except UNREADABLE as error:
            raise _unreadable(path, error) from error
        args = state.get("args") if args is None else args
        optimizer = state.get("optimizer")
        models = (value for key, value in state.items() if key.startswith("model"))
        has_reg_coeff = any(name.endswith(REG_COEFF) for model in models for name in model)
        if has_reg_coeff or routing_of(args or Namespace()) != "ReMoE":
            break
    return args, has_reg_coeff, optimizer


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return ValueError(f"{path}: cannot read the settings stored there: {reason}")
