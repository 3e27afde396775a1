"""Fits Megatron's defaults, which assume a GPU with TransformerEngine and Apex, to this machine."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from megatron.remoe import cpu
from megatron.remoe.torch_native.experts import refused_by_torch_experts


@dataclass(frozen=True)
class Default:
    """A default that this machine cannot honour.

    Attributes:
        name: Of the argument.
        value: What to use instead.
        flag: The flag by which a user asks for what is not there, or None if no flag does.
        asks: Whether the argument asks for what is not there.
    """

    name: str
    value: object
    flag: str | None = None
    asks: Callable[[object], bool] = lambda value: True


WITHOUT_TE = (
    Default("transformer_impl", "local", "--transformer-impl", lambda v: v == "transformer_engine"),
    # CUDA extensions of Apex or TE; torch's norms; rotary kernels of TE.
    Default("gradient_accumulation_fusion", False),
    Default("no_persist_layer_norm", True),
    Default("masked_softmax_fusion", False),
    Default("apply_rope_fusion", False),
)

ON_CPU = (
    Default("distributed_backend", "gloo", "--distributed-backend", lambda v: v == "nccl"),
    Default("use_cpu_initialization", True),
    # torch.compile'd; off on the CPU, see `cpu`.
    Default("bias_swiglu_fusion", False),
    Default("bias_gelu_fusion", False),
    Default("bias_dropout_fusion", False),
)

# (argument, flag, whether it asks for the impossible, what to do)
NEEDS_TE = (
    ("fp8", "--fp8-format", bool),
    ("fp4", "--fp4-format", bool),
    ("use_precision_aware_optimizer", "--use-precision-aware-optimizer", bool),
    ("experimental_attention_variant", "--experimental-attention-variant", bool),
    ("moe_latent_size", "--moe-latent-size", bool),
    ("overlap_moe_expert_parallel_comm", "--overlap-moe-expert-parallel-comm", bool),
    ("tp_comm_overlap", "--tp-comm-overlap", bool),
)

# What Megatron's `local` layers cannot do and ours can.
NEEDS_TORCH_NATIVE = (
    ("context_parallel_size", "--context-parallel-size", lambda v: v > 1),
    ("sequence_parallel", "--sequence-parallel", bool),
)

NEEDS_CUDA = (
    ("fp8", "--fp8-format", bool),
    ("fp4", "--fp4-format", bool),
    ("cuda_graph_impl", "--cuda-graph-impl", lambda v: v != "none"),
    ("enable_cuda_graph", "--enable-cuda-graph", bool),
    ("external_cuda_graph", "--external-cuda-graph", bool),
    ("moe_token_dispatcher_type", "--moe-token-dispatcher-type flex", lambda v: v == "flex"),
    ("use_megatron_fsdp", "--use-megatron-fsdp", bool),
    ("use_torch_fsdp2", "--use-torch-fsdp2", bool),
    ("optimizer_cpu_offload", "--optimizer-cpu-offload", bool),
    ("profile", "--profile", bool),
    ("record_memory_history", "--record-memory-history", bool),
)


def has_transformer_engine() -> bool:
    """Whether TransformerEngine is installed."""
    return find_spec("transformer_engine") is not None


def fit_to_machine(args: Namespace, given: frozenset[str]) -> None:
    """Set what this machine cannot honour, and say so; refuse it where the user asked for it.

    Args:
        args: Parsed, not yet validated by Megatron. Changed in place.
        given: Flags that stand on the command line.

    Raises:
        ValueError: Listing every flag that needs CUDA or TransformerEngine.
    """
    on_cpu, without_te = cpu.is_needed(), cpu.is_needed() or not has_transformer_engine()
    args.torch_native_layers = without_te and "--transformer-impl" not in given
    left_out = without_te and not args.torch_native_layers and args.moe_grouped_gemm
    if left_out:
        args.moe_grouped_gemm = False
    errors = []
    if on_cpu:
        errors += _apply(args, given, ON_CPU, NEEDS_CUDA, "a CUDA device")
    if without_te:
        errors += _apply(args, given, WITHOUT_TE, NEEDS_TE, "TransformerEngine")
        errors += _layer_errors(args)
        # The mask is [b, 1, s, s]; local attention builds a causal one itself.
        args.create_attention_mask_in_dataloader = args.reset_attention_mask
    if errors:
        raise ValueError("this machine cannot do that:\n  " + "\n  ".join(dict.fromkeys(errors)))
    if args.rank == 0 and without_te:
        device = "the CPU, no CUDA device found" if on_cpu else "the GPU without TransformerEngine"
        layers = "torch-native layers" if args.torch_native_layers else "--transformer-impl local"
        print(f"> ReMoE: on {device}; {layers}", flush=True)
        if left_out:
            print(
                "> ReMoE: --moe-grouped-gemm: left out, Megatron's local layers have no grouped experts",
                flush=True,
            )


def _layer_errors(args: Namespace) -> list[str]:
    """What the layers that need no TransformerEngine cannot do."""
    if not args.torch_native_layers:
        return [
            f"{flag}: Megatron's local layers cannot do it: leave out --transformer-impl"
            for name, flag, asks in NEEDS_TORCH_NATIVE
            if asks(getattr(args, name))
        ]
    errors = []
    if args.context_parallel_size > 1 and (args.window_size or args.softmax_type != "vanilla"):
        errors.append(
            "--context-parallel-size: with --window-size or --softmax-type needs TransformerEngine, "
            "which is not here: leave one of them out"
        )
    if args.num_experts and args.tensor_model_parallel_size > 1 and not args.sequence_parallel:
        errors.append("--tensor-model-parallel-size: with experts add --sequence-parallel")
    if args.num_experts and args.moe_grouped_gemm and (refused := refused_by_torch_experts(args)):
        errors.append(
            f"--moe-grouped-gemm: without TransformerEngine it does not do {', '.join(refused)}: leave "
            "one of them out"
        )
    return errors


def _apply(args: Namespace, given: frozenset[str], settings, impossible, missing: str) -> list[str]:
    errors = [
        f"{flag}: needs {missing}, which is not here: leave it out"
        for name, flag, asks in impossible
        if asks(getattr(args, name, None))
    ]
    for setting in settings:
        if setting.flag in given and setting.asks(getattr(args, setting.name)):
            errors.append(f"{setting.flag}: needs {missing}, which is not here: leave it out")
        elif setting.asks(getattr(args, setting.name)):
            setattr(args, setting.name, setting.value)
    return errors
