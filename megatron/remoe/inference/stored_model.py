"""Builds the model of a checkpoint in one process, whatever layout trained it, and loads its weights."""

import copy
import logging
import os
import warnings
from argparse import Namespace
from pathlib import Path

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedBase
from megatron.core.models.gpt import GPTModel
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from torch.distributed import HashStore
from torch.distributed.checkpoint import FileSystemReader

from megatron.remoe import cpu
from megatron.remoe.baselines.hash_router import tell_token_ids
from megatron.remoe.checkpoint.files import TRACKER, CheckpointError, what_is_wrong
from megatron.remoe.checkpoint.patches import guard_checkpoints
from megatron.remoe.checkpoint.stored_run import StoredRun, read_stored_run
from megatron.remoe.machine import has_transformer_engine
from megatron.remoe.model_config import routed_config

# Where the norm before an MoE layer lies: in Megatron's `local` spec, in TransformerEngine's.
NORM_NAMES = ("mlp.linear_fc1.layer_norm_weight", "pre_mlp_layernorm.weight")

# Of the layout, of saving memory, or of training alone; none changes what the weights compute.
ONE_PROCESS = {
    "world_size": 1,
    "rank": 0,
    "tensor_model_parallel_size": 1,
    "pipeline_model_parallel_size": 1,
    "context_parallel_size": 1,
    "expert_model_parallel_size": 1,
    "expert_tensor_parallel_size": 1,
    "virtual_pipeline_model_parallel_size": None,
    "num_layers_per_virtual_pipeline_stage": None,
    "decoder_first_pipeline_num_layers": None,
    "decoder_last_pipeline_num_layers": None,
    "pipeline_model_parallel_layout": None,
    "account_for_embedding_in_pipeline_split": False,
    "account_for_loss_in_pipeline_split": False,
    "sequence_parallel": False,
    "tp_comm_overlap": False,
    "overlap_moe_expert_parallel_comm": False,
    "recompute_granularity": None,
    "recompute_method": None,
    "recompute_num_layers": None,
    "recompute_modules": None,
    "cuda_graph_impl": "none",
    "cpu_offloading": False,
    "moe_token_dispatcher_type": "alltoall",
    "moe_permute_fusion": False,
    "moe_shared_expert_overlap": False,
    "moe_relu_chunk_above": None,
    "moe_relu_row_budget": None,
    "moe_relu_restart_l1_reg_coeff": False,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "gradient_accumulation_fusion": False,
    "perform_initialization": False,  # the weights come from the checkpoint
    "yaml_cfg": None,
    "spec": None,  # names code to import
}
WITHOUT_TE = {
    "transformer_impl": "local",
    "torch_native_layers": True,
    "persist_layer_norm": False,
    "no_persist_layer_norm": True,
    "masked_softmax_fusion": False,
    "apply_rope_fusion": False,
}
ON_CPU = {
    "use_cpu_initialization": True,
    "bias_swiglu_fusion": False,
    "bias_gelu_fusion": False,
    "bias_dropout_fusion": False,
    "moe_grouped_gemm": False,
}
# Arguments that plain Megatron, or an older version of this package, did not save.
MISSING = {
    "moe_routing": None,
    "moe_relu_routing": False,
    "moe_granularity": 1,
    "torch_native_layers": False,
}


def load_model(
    folder: Path, dtype: torch.dtype | None = None, ckpt_step: int | None = None
) -> tuple[GPTModel, StoredRun]:
    """Build and load the model of a checkpoint in this one process, in evaluation mode.

    On the first CUDA device where there is one, else on the CPU. Runs nothing that is stored.

    Args:
        folder: What `--load` names, or one iteration's folder, in format torch_dist.
        dtype: Of the weights; default the run's own. Lambda stays fp32.
        ckpt_step: Iteration to load; default what the tracker file names.

    Returns:
        The model, and what the checkpoint says of its run.

    Raises:
        CheckpointError: If there is no whole checkpoint, or no settings are in it.
        ValueError: If a cap on active experts still held when it was saved.
    """
    cpu.enable()
    guard_checkpoints()
    stored = read_run(folder, ckpt_step)
    args = args_for_one_process(stored, dtype)
    _start_one_process()
    config = routed_config(args)
    # It says with each model that Megatron wants another class some day.
    logging.getLogger("megatron.core.models.gpt.gpt_model").setLevel(logging.ERROR)
    model = config.get_builder_cls()(config).build_model(
        ProcessGroupCollection.use_mpu_process_groups(), pre_process=True, post_process=True
    )
    model = model.to(device=torch.cuda.current_device(), dtype=args.params_dtype)
    _load_weights(model, stored.folder)
    if args.moe_routing == "hash":
        tell_token_ids(model)
    return model.eval(), stored


def read_run(folder: Path, ckpt_step: int | None = None) -> StoredRun:
    """Find the checkpoint in a folder, check that it is whole, and read what it says of its run.

    Args:
        folder: What `--load` names, or one iteration's folder.
        ckpt_step: Iteration; default what the tracker file names.

    Raises:
        CheckpointError: In one line, with the folder and what is wrong.
    """
    folder = Path(folder)
    if (folder / TRACKER).is_file():
        name = (folder / TRACKER).read_text(errors="replace").strip()
        step = str(ckpt_step) if ckpt_step is not None else name
        folder /= f"iter_{int(step):07d}" if step.isdigit() else step
    if wrong := what_is_wrong(folder):
        raise CheckpointError(f"{folder}: {wrong}")
    stored = read_stored_run(folder)
    if stored is None or stored.form != "torch_dist":
        raise CheckpointError(
            f"{folder}: is not in format torch_dist: load it once with --auto-detect-ckpt-format and "
            "save it with --ckpt-format torch_dist"
        )
    if not vars(stored.args):
        raise CheckpointError(f"{folder}: holds no settings of its model")
    return stored


def args_for_one_process(stored: StoredRun, dtype: torch.dtype | None = None) -> Namespace:
    """The run's arguments with what belongs to its layout, its training or its machine replaced.

    Args:
        stored: The run.
        dtype: Of the weights; default the run's own.
    """
    args = copy.deepcopy(stored.args)
    without_te = cpu.is_needed() or not has_transformer_engine()
    changes = ONE_PROCESS | (WITHOUT_TE if without_te else {}) | (ON_CPU if cpu.is_needed() else {})
    for name, value in MISSING.items():
        if not hasattr(args, name):
            setattr(args, name, value)
    for name, value in changes.items():
        setattr(args, name, value)
    args.params_dtype = dtype or args.params_dtype
    args.bf16 = args.params_dtype == torch.bfloat16
    args.fp16 = args.params_dtype == torch.float16
    _leave_out_cap(args, stored)
    _leave_out_warm_up(args, stored)
    return args


def _leave_out_warm_up(args: Namespace, stored: StoredRun) -> None:
    num_steps = getattr(args, "moe_topk_warmup_steps", 0)
    if args.moe_routing == "topk-warmup" and getattr(args, "iteration", 0) < num_steps:
        warnings.warn(
            f"{stored.folder}: was saved while TopK warmed up with more experts; here a token has "
            f"{args.moe_router_topk}",
            stacklevel=3,
        )
    args.moe_topk_warmup_steps = 0


def _leave_out_cap(args: Namespace, stored: StoredRun) -> None:
    num_steps = getattr(args, "moe_relu_cap_steps", None)
    if num_steps is not None and getattr(args, "iteration", 0) < num_steps:
        warnings.warn(
            f"{stored.folder}: was saved while --moe-relu-max-active-experts capped its experts; here "
            "there is no cap",
            stacklevel=3,
        )
    args.moe_relu_max_active_experts = args.moe_relu_cap_steps = None


def _start_one_process() -> None:
    """A world of one with Megatron's groups, unless there is a world."""
    if not torch.distributed.is_initialized():
        backend = "gloo" if cpu.is_needed() else "nccl"
        os.environ.setdefault("LOCAL_RANK", "0")
        torch.distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    if not parallel_state.model_parallel_is_initialized():
        parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
        model_parallel_cuda_manual_seed(0)


def _load_weights(model: GPTModel, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one process, and of what is not asked for
        names = FileSystemReader(str(folder)).read_metadata().state_dict_metadata
        sharded = _named_as_in(model.sharded_state_dict(), names)
        loaded = dist_checkpointing.load(sharded, str(folder))
    # What was not sharded, such as the run's arguments, is in it too.
    model.load_state_dict({name: loaded[name] for name in sharded})


def _named_as_in(sharded: dict, names: dict) -> dict:
    """Ask for the norm before each MoE layer by the name that the checkpoint has for it."""
    for tensor in sharded.values():
        if isinstance(tensor, ShardedBase) and tensor.key not in names:
            for here, there in (NORM_NAMES, NORM_NAMES[::-1]):
                if tensor.key.endswith(here) and tensor.key.replace(here, there) in names:
                    tensor.key = tensor.key.replace(here, there)
                    break
    return sharded
