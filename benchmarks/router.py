"""Times the fused ReLU router against its plain PyTorch reference and Megatron's TopK router.

    python benchmarks/router.py                                   # on the CPU, a minute
    python benchmarks/router.py --tokens 4096,16384,65536 --dtype fp32,bf16   # on a GPU

Timed is what `routing` does, forward and backward, from the logits on: gate values, map, counters, and
the loss of the method (L1; Switch's auxiliary loss with 0.01). The product with the router's weight is
the same in all three and left out. The three take turns, so that a disturbance meets all of them.
Both sides run in Megatron's own classes, with the hooks and the logging that training has.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}  # far above any cache
HEADER = (
    "| dtype | tokens | experts | k | TopK us | reference us | fused us | fused / TopK "
    "| fused / reference | fastest: TopK | reference | fused | GB/s | of copy |\n|" + " --- |" * 14
)


def main() -> None:
    """Print the machine and one row a shape."""
    args = parse()
    device = "cuda" if torch.cuda.is_available() and not args.cpu else "cpu"
    join_world(device)
    bandwidth = copy_bandwidth(device)
    name = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"{name}; torch {torch.__version__}; copy {bandwidth:.1f} GB/s; medians of {args.repeats}\n"
    )
    print(HEADER)
    for dtype in args.dtype:
        for num_experts in args.experts:
            for num_tokens in args.tokens:
                for topk in args.topk:
                    row(dtype, num_tokens, num_experts, topk, device, bandwidth, args.repeats)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = lambda text: [int(word) for word in text.split(",")]  # noqa: E731
    parser.add_argument("--tokens", type=numbers, default=[4096, 16384])
    parser.add_argument("--experts", type=numbers, default=[8, 32, 128])
    parser.add_argument("--topk", type=numbers, default=[1], help="k of TopK; ReLU's target")
    parser.add_argument("--dtype", type=lambda text: text.split(","), default=["fp32"])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--cpu", action="store_true", help="also where there is a GPU")
    return parser.parse_args()


def join_world(device: str) -> None:
    """Be a world of one rank: routers ask for their process groups."""
    if device == "cpu":
        from megatron.remoe import cpu

        assert cpu.enable(), "hide the GPU with CUDA_VISIBLE_DEVICES="
    from megatron.core import parallel_state
    from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

    backend = "nccl" if device == "cuda" else "gloo"
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    model_parallel_cuda_manual_seed(1234)


def row(
    dtype: str,
    num_tokens: int,
    num_experts: int,
    topk: int,
    device: str,
    bandwidth: float,
    repeats: int,
) -> None:
    """Time the three at one shape and print it."""
    torch.manual_seed(0)
    shape = (num_tokens, 1, num_experts)
    # Routing at its target: k of E logits are positive on average.
    threshold = torch.special.ndtri(torch.tensor(1 - topk / num_experts)).item()
    logits = (torch.randn(shape) - threshold).to(device, DTYPES[dtype])
    grad = torch.randn(num_tokens, num_experts).to(device, DTYPES[dtype])
    steps = {name: step_of(router, logits, grad) for name, router in routers(num_experts, topk)}
    times = time_in_turns(steps, repeats, device)
    # Least that must move: logits, gate values and their gradients once each, the map twice.
    moved = logits.numel() * (4 * logits.element_size() + 2)
    names = ("TopK", "reference", "fused")
    medians = {name: statistics.median(times[name]) for name in names}
    speed = moved / medians["fused"] / 1e3
    cells = [dtype, num_tokens, num_experts, topk]
    cells += [f"{medians[name]:.0f}" for name in names]
    cells += [f"{medians['fused'] / medians[name]:.2f}" for name in names[:2]]
    cells += [f"{min(times[name]):.0f}" for name in names]
    print(
        "|",
        " | ".join(map(str, [*cells, f"{speed:.1f}", f"{speed / bandwidth:.0%}"])),
        "|",
        flush=True,
    )


def routers(num_experts: int, topk: int) -> Iterator[tuple[str, torch.nn.Module]]:
    """Megatron's TopK router with its auxiliary loss, and ours with the reference and the fused op."""
    import torch.nn.functional as F
    from megatron.core.transformer.moe.moe_utils import get_default_pg_collection
    from megatron.core.transformer.moe.router import TopKRouter

    from megatron.remoe.config import ReMoETransformerConfig
    from megatron.remoe.router import ReLURouter
    from remoe.kernels.relu_router import relu_router_reference

    for name, router, loss in (
        ("TopK", TopKRouter, "aux_loss"),
        ("reference", ReLURouter, "none"),
        ("fused", ReLURouter, "none"),
    ):
        config = ReMoETransformerConfig(
            num_layers=1,
            hidden_size=64,
            num_attention_heads=1,
            num_moe_experts=num_experts,
            moe_router_topk=topk,
            moe_router_load_balancing_type=loss,
            moe_aux_loss_coeff=0.01 if loss == "aux_loss" else 0.0,
            moe_router_pre_softmax=True,
            add_bias_linear=False,
            gated_linear_unit=True,
            activation_func=F.silu,
            bias_activation_fusion=False,
            transformer_impl="local",
        )
        built = router(config=config, pg_collection=get_default_pg_collection())
        built.set_layer_number(1)
        if name == "reference":
            built = SimpleNamespace(routing=with_op(built, relu_router_reference))
        yield name, built


def with_op(router: torch.nn.Module, op: Callable) -> Callable:
    """`router.routing` with another op in the fused one's place."""
    from megatron.remoe import router as module

    fused = module.relu_router

    def routing(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        module.relu_router = op
        try:
            return router.routing(logits)
        finally:
            module.relu_router = fused

    return routing


def step_of(router: torch.nn.Module, logits: torch.Tensor, grad: torch.Tensor) -> Callable:
    """One forward and backward."""
    leaf = logits.clone().requires_grad_()

    def step() -> None:
        probs, _ = router.routing(leaf)
        torch.autograd.grad(probs, leaf, grad)

    return step


def time_in_turns(steps: dict[str, Callable], repeats: int, device: str) -> dict[str, list[float]]:
    """Microseconds by name."""
    flush = torch.empty(2**28, dtype=torch.uint8, device=device) if device == "cuda" else None
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 5):
        for name, step in steps.items():
            if flush is not None:
                flush.zero_()  # nothing of the last call is left in the L2 cache
            elapsed = timed(step, device)
            if repeat >= 5:  # before it kernels are compiled, pages are mapped
                times[name].append(elapsed)
    return times


def timed(step: Callable, device: str) -> float:
    """Microseconds of one call, on the device's own clock where it has one."""
    if device == "cpu":
        begin = time.perf_counter()
        step()
        return (time.perf_counter() - begin) * 1e6
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    step()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e3


def copy_bandwidth(device: str) -> float:
    """GB/s, read and written, of copying memory that no cache holds."""
    source = torch.ones(COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    values = [timed(lambda: target.copy_(source), device) for _ in range(15)]
    return 2 * COPY_BYTES[device] / statistics.median(values[5:]) / 1e3


if __name__ == "__main__":
    main()
