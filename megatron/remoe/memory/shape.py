"""What of a run decides how much memory its ranks need: sizes of the model, of a batch, of a layout."""

from argparse import Namespace
from dataclasses import dataclass

import torch.nn.functional as F
from megatron.core.transformer.transformer_block import get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset


@dataclass(frozen=True)
class Shape:
    """Sizes of one run. Widths and counts are of the whole model, in elements; `*_bytes` of one element.

    Attributes:
        stages: For each pipeline rank, whether each of its layers is a mixture of experts.
        query_width: ``heads * d``.
        key_width: ``groups * d``.
        expert_width: Width of one expert; `dense_width` that of a dense layer, 0 `shared_width`: none.
        expert_hidden: Width of what experts take (`--moe-latent-size`, else the hidden size).
        matrices: Of a feed-forward network: 3 gated, 2 not.
        dense_parts: Widths that autograd keeps of a token in a dense layer; `expert_parts` in an expert.
        grouped_experts: Whether one product serves all experts, or they run one after another.
        sequence_parallel: Whether norms and experts see ``1 / tp`` of the tokens.
        value_bytes: Of an activation and of a weight; `gradient_bytes` of a gradient, `optimizer_bytes`
            of the optimizer's state for one weight; `norm_bytes` of what a norm keeps of one element.
        recompute: `none`, `uniform` or `block`, of whole layers; `recompute_layers` of them.
        recomputes_moe: Whether each MoE layer is computed again backward.
        can_chunk: Whether `--moe-relu-chunk-above` goes with the other options; `can_spread` whether
            more expert parallelism does.
        chunk_above: `--moe-relu-chunk-above`, None for off.
        cap: `--moe-relu-max-active-experts`, None for off.
        topk_warm_up: Experts a token while TopK warms up, None under ReLU routing.
    """

    stages: tuple[tuple[bool, ...], ...]
    hidden: int
    heads: int
    query_width: int
    key_width: int
    vocabulary: int
    dense_width: int
    shared_width: int
    expert_width: int
    expert_hidden: int
    matrices: int
    dense_parts: int
    expert_parts: int
    grouped_experts: bool
    num_experts: int
    topk: int
    tied_embeddings: bool
    sequence_length: int
    micro_batch: int
    global_batch: int
    world: int
    tp: int
    sequence_parallel: bool
    vp: int
    cp: int
    ep: int
    etp: int
    value_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    distributed_optimizer: bool
    norm_bytes: int
    recompute: str
    recompute_layers: int
    recomputes_moe: bool
    can_chunk: bool
    can_spread: bool
    chunk_above: float | None
    cap: int | None
    topk_warm_up: int | None

    @property
    def pp(self) -> int:
        """Pipeline ranks."""
        return len(self.stages)

    @property
    def replicas(self) -> int:
        """Ranks that hold the same dense weights (data times context parallelism)."""
        return self.world // (self.tp * self.pp)

    @property
    def expert_replicas(self) -> int:
        """Ranks that hold the same experts."""
        return self.world // (self.etp * self.ep * self.pp)

    @property
    def num_micro_batches(self) -> int:
        """Of one step, on each data-parallel rank."""
        return max(1, self.global_batch * self.cp // (self.micro_batch * self.replicas))

    @property
    def dense_active(self) -> float:
        """Active experts a token at the start: ReLU of logits around zero has every other one."""
        if self.topk_warm_up is not None:
            return self.topk_warm_up
        return min(self.num_experts / 2, self.cap or self.num_experts)


def starts_dense(args: Namespace) -> bool:
    """Whether a run's first steps may have more active experts a token than its last ones.

    Args:
        args: Validated.
    """
    warms_up = args.moe_routing == "topk-warmup" and args.moe_topk_warmup_steps > 0
    return args.moe_relu_routing or warms_up


def shape_of(args: Namespace, transformer: TransformerConfig) -> Shape:
    """The sizes of a run that starts dense.

    Args:
        args: Validated.
        transformer: The model's configuration.

    Raises:
        ValueError: For a layout of which Megatron tells the layers of no rank but its own.
    """
    if args.pipeline_model_parallel_layout is not None or args.use_megatron_fsdp:
        raise ValueError("no estimate with --pipeline-model-parallel-layout or --use-megatron-fsdp")
    return Shape(
        **_model(args, transformer),
        **_layout(args, transformer),
        **_kept(args, transformer),
        **_dense_stage(args, transformer),
    )


def _model(args: Namespace, transformer: TransformerConfig) -> dict:
    return {
        "stages": _stages(transformer),
        "hidden": transformer.hidden_size,
        "heads": transformer.num_attention_heads,
        "query_width": transformer.kv_channels * transformer.num_attention_heads,
        "key_width": transformer.kv_channels * transformer.num_query_groups,
        "vocabulary": args.padded_vocab_size,
        "dense_width": transformer.ffn_hidden_size,
        "shared_width": transformer.moe_shared_expert_intermediate_size or 0,
        "expert_width": transformer.moe_ffn_hidden_size,
        "expert_hidden": transformer.moe_latent_size or transformer.hidden_size,
        "matrices": 3 if transformer.gated_linear_unit else 2,
        "dense_parts": _dense_parts(transformer),
        "expert_parts": _expert_parts(transformer),
        "grouped_experts": transformer.moe_grouped_gemm,
        "num_experts": transformer.num_moe_experts,
        "topk": transformer.moe_router_topk,
        "tied_embeddings": not args.untie_embeddings_and_output_weights,
    }


def _layout(args: Namespace, transformer: TransformerConfig) -> dict:
    return {
        "sequence_length": args.seq_length,
        "micro_batch": args.micro_batch_size,
        "global_batch": args.global_batch_size,
        "world": args.world_size,
        "tp": transformer.tensor_model_parallel_size,
        "sequence_parallel": transformer.sequence_parallel,
        "vp": transformer.virtual_pipeline_model_parallel_size or 1,
        "cp": transformer.context_parallel_size,
        "ep": transformer.expert_model_parallel_size,
        "etp": transformer.expert_tensor_parallel_size,
    }


def _kept(args: Namespace, transformer: TransformerConfig) -> dict:
    """Bytes of an element, and what is not kept at all."""
    value_bytes = transformer.params_dtype.itemsize
    is_full = transformer.recompute_granularity == "full"
    return {
        "value_bytes": value_bytes,
        "gradient_bytes": 4 if args.accumulate_allreduce_grads_in_fp32 else value_bytes,
        "optimizer_bytes": _optimizer_bytes(args, value_bytes),
        "distributed_optimizer": args.use_distributed_optimizer,
        # torch's RMSNorm keeps its input and the scaled one, both in fp32.
        "norm_bytes": value_bytes if args.transformer_impl == "transformer_engine" else 8,
        "recompute": transformer.recompute_method if is_full else "none",
        "recompute_layers": transformer.recompute_num_layers or 1,
        "recomputes_moe": _recomputes_moe(transformer),
    }


def _dense_stage(args: Namespace, transformer: TransformerConfig) -> dict:
    """What bounds the dense stage, or could."""
    takes_no_chunks = ("fp8", "fp4", "moe_latent_size", "moe_shared_expert_overlap")
    has_budget = transformer.moe_relu_row_budget is not None
    refuses_chunks = (
        has_budget
        or _recomputes_moe(transformer)
        or any(getattr(transformer, name) for name in takes_no_chunks)
    )
    return {
        "can_chunk": args.moe_relu_routing and not refuses_chunks,
        "can_spread": not has_budget,
        "chunk_above": transformer.moe_relu_chunk_above,
        "cap": transformer.moe_relu_max_active_experts,
        "topk_warm_up": None if args.moe_relu_routing else transformer.moe_topk_warmup_experts,
    }


def _recomputes_moe(transformer: TransformerConfig) -> bool:
    modules = transformer.recompute_modules or ()
    return transformer.recompute_granularity == "selective" and "moe" in modules


def _stages(transformer: TransformerConfig) -> tuple[tuple[bool, ...], ...]:
    """Whether each layer of each pipeline rank has experts."""
    every, num_layers = transformer.moe_layer_freq, transformer.num_layers
    is_moe = [i % every == 0 for i in range(num_layers)] if isinstance(every, int) else every
    stages = []
    for rank in range(transformer.pipeline_model_parallel_size):
        layers = []
        for chunk in range(transformer.virtual_pipeline_model_parallel_size or 1):
            first = get_transformer_layer_offset(transformer, chunk, rank)
            length = get_num_layers_to_build(transformer, chunk, rank)
            layers += map(bool, is_moe[first : first + length])
        stages.append(tuple(layers))
    return tuple(stages)


def _dense_parts(transformer: TransformerConfig) -> int:
    """fc1's halves and fc2's input; not fused, the activated half and a copy of the other one."""
    if not transformer.gated_linear_unit:
        return 2
    return 3 if transformer.bias_activation_fusion else 5


def _expert_parts(transformer: TransformerConfig) -> int:
    """As for a dense layer; not fused, also the product before it is multiplied by the gate."""
    if transformer.bias_activation_fusion:
        return _dense_parts(transformer)
    if transformer.gated_linear_unit and transformer.moe_grouped_gemm:
        # `TorchGroupedMLP` makes no copy, and computes SwiGLU again backward.
        return 3 if transformer.activation_func is F.silu else 5
    return _dense_parts(transformer) + 1


def _optimizer_bytes(args: Namespace, value_bytes: int) -> int:
    """Of Adam's two moments, and of the copy in fp32 that weights of less have."""
    moments = args.exp_avg_dtype.itemsize + args.exp_avg_sq_dtype.itemsize
    return moments + (args.main_params_dtype.itemsize if value_bytes < 4 else 0)
