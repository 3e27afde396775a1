"""What the ranks of a world run for tests of a whole GPT: Megatron's builder, DDP, schedules."""

import contextlib
import re
import zlib
from argparse import Namespace

import torch

from harness import layout
from moe_layers import make_config

SEQUENCE, MICRO_BATCH, VOCABULARY = 8, 2, 64
NUM_MICRO_BATCHES = 4  # of the global batch, whatever the number of ranks


def gpt_config(sizes, changes):
    """`GPTModelConfig` of a four-layer ReMoE model as `gpt_config_from_args` would give it."""
    from megatron.training.models.gpt import GPTModelConfig

    from megatron.remoe.layer_specs import remoe_layer_spec
    from megatron.remoe.step_hook import install_step_hook

    options = {"num_layers": 4, "moe_layer_freq": [1, 1, 0, 0], **sizes, **changes}
    return GPTModelConfig(
        transformer=make_config(**options),
        transformer_layer_spec=remoe_layer_spec,
        vocab_size=VOCABULARY,
        seq_length=SEQUENCE,
        position_embedding_type="rope",
        post_wrap_hooks=[install_step_hook],
    )


def build_gpt(sizes, changes, overlap=False):
    """The stages of this rank with the step hook on them, by Megatron's builder."""
    from megatron.core.distributed import DistributedDataParallelConfig
    from megatron.core.process_groups_config import ProcessGroupCollection

    config = gpt_config(sizes, changes)
    stages = config.get_builder_cls()(config).build_distributed_models(
        ProcessGroupCollection.use_mpu_process_groups(),
        DistributedDataParallelConfig(grad_reduce_in_fp32=True, overlap_grad_reduce=overlap),
        data_parallel_random_init=False,
    )
    with torch.no_grad():
        for name, parameter in named_parameters(stages):
            generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if "norm" in name else 0.2 * noise)
    return config.transformer, stages


def named_parameters(stages):
    """Parameters by names that do not depend on the layout: global layers, global experts."""
    from megatron.core.utils import get_attr_wrapped_model

    for stage in stages:
        layers = get_attr_wrapped_model(stage, "decoder").layers
        for name, parameter in stage.named_parameters():
            name = name.removeprefix("module.").removeprefix("module.")
            if found := re.match(r"decoder\.layers\.(\d+)\.(.*)", name):
                layer = layers[int(found[1])]
                rest = re.sub(
                    r"local_experts\.(\d+)",
                    lambda m, layer=layer: f"expert.{layer.mlp.local_expert_indices[int(m[1])]}",
                    found[2],
                )
                name = f"layer.{layer.layer_number}.{rest}"
            yield name, parameter


def micro_batches(rank, num_ranks):
    """This data-parallel rank's share of the global batch, `[b, s + 1]` tokens each."""
    generator = torch.Generator().manual_seed(7)
    shape = (NUM_MICRO_BATCHES, MICRO_BATCH, SEQUENCE + 1)
    return list(torch.randint(VOCABULARY, shape, generator=generator))[rank::num_ranks]


def forward_step(data_iterator, model):
    """As megatron.remoe.forward_step, without global arguments."""
    tokens = next(data_iterator)
    positions = torch.arange(SEQUENCE).expand(MICRO_BATCH, -1)
    losses = model(tokens[:, :-1], positions, None, labels=tokens[:, 1:])

    def loss_func(losses):
        num_tokens = torch.tensor(losses.numel(), dtype=torch.int)
        return losses.sum(), num_tokens, {"lm loss": losses.detach().sum()}

    return losses, loss_func


@contextlib.contextmanager
def megatron_globals():
    """What `install_step_hook` and a cap need of, and leave in, Megatron's globals."""
    from megatron.core.transformer.moe import moe_logging
    from megatron.training import global_vars, training

    count = training.num_floating_point_operations
    of_the_step = {"iteration": 0, "curr_iteration": 0}
    global_vars.set_args(Namespace(log_interval=1, tensorboard_log_interval=1, **of_the_step))
    try:
        yield
    finally:
        global_vars.set_args(None)
        moe_logging.destroy_moe_metrics_tracker()
        training.num_floating_point_operations = count


def gpt_step(sizes, changes, overlap=False):
    """One forward-backward of the global batch by Megatron's own schedule.

    Args:
        sizes: For `layout`; None where the process groups are there already.
        changes: For `make_config`.
        overlap: Reduce gradients while the backward pass runs, which waits for every parameter.

    Returns:
        Gradients by global name, the hook's table, the pending lambda, and the routers' own.
    """
    from megatron.core import parallel_state
    from megatron.core.pipeline_parallel.schedules import get_forward_backward_func

    with contextlib.nullcontext() if sizes is None else layout(**sizes), megatron_globals():
        config, stages = build_gpt(sizes or {}, changes, overlap)
        if overlap:  # training.py: train()
            config.no_sync_func = [stage.no_sync for stage in stages]
            config.no_sync_func = (
                config.no_sync_func[0] if len(stages) == 1 else config.no_sync_func
            )
        replica = parallel_state.get_data_parallel_rank()
        data = micro_batches(replica, parallel_state.get_data_parallel_world_size())
        get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=[iter(data) for _ in stages] if len(stages) > 1 else iter(data),
            model=stages,
            num_microbatches=len(data),
            seq_length=SEQUENCE,
            micro_batch_size=MICRO_BATCH,
        )
        hook = config.finalize_model_grads_func
        gradients = {name: p.main_grad.clone() for name, p in named_parameters(stages)}
        own = [router.state.reg_coeff.clone() for router in hook.routers]
        return gradients, hook.stats.table, hook._pending, own


def routers_of(stages):
    from megatron.remoe.router import ReLURouter

    return [m for stage in stages for m in stage.modules() if isinstance(m, ReLURouter)]


def save_checkpoint(folder, sizes, changes, lambdas, without=None):
    """Save a model whose routers hold `lambdas`, by layer number, with Megatron's torch_dist.

    Leaves out the entries whose name contains `without`.
    """
    from megatron.core import dist_checkpointing

    from megatron.remoe.checkpoint.patches import start_helpers

    start_helpers(async_save=False)  # Megatron's own way imports everything once more
    with contextlib.nullcontext() if sizes is None else layout(**sizes), megatron_globals():
        _, stages = build_gpt(sizes or {}, changes)
        for router in routers_of(stages):
            router.state.reg_coeff.fill_(lambdas[router.layer_number])
            router.state.counts.fill_(99)
        sharded = _sharded(stages)
        for entries in sharded.values() if without else ():
            for name in [name for name in entries if without in name]:
                del entries[name]
        dist_checkpointing.save(sharded, folder, async_strategy="mcore")


def load_checkpoint(folder, sizes, changes):
    """Load it into a fresh model; return the routers' states by layer number."""
    from megatron.core import dist_checkpointing
    from megatron.core.utils import unwrap_model

    with contextlib.nullcontext() if sizes is None else layout(**sizes), megatron_globals():
        _, stages = build_gpt(sizes or {}, changes)
        loaded = dist_checkpointing.load(_sharded(stages), folder)
        for i, stage in enumerate(stages):
            unwrap_model(stage).load_state_dict(loaded[f"model{i}"])
        return {router.layer_number: router.state for router in routers_of(stages)}


def _sharded(stages):
    from megatron.core.utils import unwrap_model

    return {f"model{i}": m.sharded_state_dict() for i, m in enumerate(unwrap_model(stages))}
