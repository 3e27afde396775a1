"""Times torch's grouped experts against Megatron's `SequentialMLP`, forward and backward.

    python benchmarks/experts.py

All sides run in turns in one process, on a GPU where there is one: four layers of experts with the
same weights and the same ragged rows. Printed are medians and how many times as fast as
`SequentialMLP` that is.
"""

import argparse
import statistics
import time
from functools import partial

import torch
import torch.nn.functional as F

from megatron.remoe import cpu

cpu.enable()  # before anything of Megatron

from megatron.core import parallel_state  # noqa: E402
from megatron.core.models.backends import LocalSpecProvider  # noqa: E402
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed  # noqa: E402
from megatron.core.transformer.moe.moe_utils import get_default_pg_collection  # noqa: E402
from megatron.core.transformer.transformer_config import TransformerConfig  # noqa: E402

from megatron.remoe.torch_native import TorchGroupedMLP  # noqa: E402
from megatron.remoe.torch_native.grouped_gemm import grouped_mm, loop_of_mm  # noqa: E402

LAYERS = 4
# hidden size, width of an expert, experts, rows (k = 1)
SHAPES = ((128, 512, 8, 2048), (256, 512, 32, 2048))
GPU_SHAPES = ((768, 3072, 8, 16384), (1536, 768, 32, 32768))
DEVICE = "cpu" if cpu.is_needed() else "cuda"


def main() -> None:
    """Measure every shape in every dtype."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    device = "CPU" if DEVICE == "cpu" else torch.cuda.get_device_name()
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for shape in SHAPES if DEVICE == "cpu" else SHAPES + GPU_SHAPES:
        for dtype in args.dtypes:
            report(shape, dtype, measure(*shape, getattr(torch, dtype), args.repeats))
    torch.distributed.destroy_process_group()


def report(shape: tuple[int, ...], dtype: str, seconds: dict[str, list[float]]) -> None:
    """Print medians in ms, and how many times as fast as the first side each is."""
    medians = {side: 1e3 * statistics.median(times) for side, times in seconds.items()}
    first = next(iter(medians.values()))
    text = "; ".join(f"{side} {ms:.1f} ms ({first / ms:.2f}x)" for side, ms in medians.items())
    print("hidden {}, width {}, E={}, {} rows".format(*shape), f"{dtype}: {text}", flush=True)


def measure(
    hidden: int, width: int, num_experts: int, num_rows: int, dtype: torch.dtype, repeats: int
) -> dict[str, list[float]]:
    """Seconds of each repeat, by side."""
    sides = make_sides(hidden, width, num_experts, dtype)
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(num_experts, generator=generator)  # some experts have many times the rows
    chosen = torch.multinomial(share, num_rows, replacement=True, generator=generator)
    tokens_per_expert = torch.bincount(chosen, minlength=num_experts)
    rows = torch.randn(num_rows, hidden, dtype=dtype, device=DEVICE)
    probs = torch.rand(num_rows, device=DEVICE)
    seconds = {side: [] for side in sides}
    for repeat in range(repeats + 2):
        for side, layers in sides.items():
            taken = step(layers, rows, tokens_per_expert, probs)
            if repeat >= 2:  # to warm up
                seconds[side].append(taken)
    return seconds


def step(layers: torch.nn.ModuleList, rows, tokens_per_expert, probs) -> float:
    """One forward and backward."""
    layers.zero_grad(set_to_none=True)
    hidden = rows.clone().requires_grad_()
    synchronize()
    begin = time.perf_counter()
    output = hidden
    for layer in layers:
        output, _ = layer(output, tokens_per_expert, probs)
    output.backward(rows)
    synchronize()
    return time.perf_counter() - begin


def make_sides(hidden: int, width: int, num_experts: int, dtype: torch.dtype):
    """Four layers of each kind, from the same random numbers."""
    config = TransformerConfig(
        num_layers=LAYERS,
        hidden_size=hidden,
        num_attention_heads=1,
        ffn_hidden_size=width,
        num_moe_experts=num_experts,
        moe_ffn_hidden_size=width,
        add_bias_linear=False,
        gated_linear_unit=True,
        activation_func=F.silu,
        use_cpu_initialization=DEVICE == "cpu",
        params_dtype=dtype,
        bf16=dtype == torch.bfloat16,
    )
    build = LocalSpecProvider().grouped_mlp_modules(True)
    grouped = partial(TorchGroupedMLP, **build.keywords)
    sides = {"SequentialMLP": (build, None), "loop": (grouped, loop_of_mm)}
    sides["grouped_mm"] = (grouped, grouped_mm)
    made = {}
    for side, (make, gemm) in sides.items():
        torch.manual_seed(1)
        model_parallel_cuda_manual_seed(1)
        layers = [
            make(num_experts, config, pg_collection=get_default_pg_collection())
            for _ in range(LAYERS)
        ]
        for layer in layers:
            layer.gemm = gemm or getattr(layer, "gemm", None)
        made[side] = torch.nn.ModuleList(layers).to(DEVICE)
    return made


def synchronize() -> None:
    """Wait for the GPU."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
