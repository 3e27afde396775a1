"""Times the permutation of tokens into rows of experts, and back, against Megatron's unfused one.

    OMP_NUM_THREADS=1 python benchmarks/permute.py                # on the CPU, a minute
    python benchmarks/permute.py --tokens 16384,65536 --hidden 1024,2048 --dtype bf16    # on a GPU

Timed is forward and backward of both directions: permute the tokens and their gate values, multiply
nothing, sum the rows by token again. Both sides are given the number of rows, take turns in one
process, and are compared once before: rows and gate values bit by bit, sums within rounding.
Routing is at its target: k of E experts are active on average; `--dense` makes it half of all.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from megatron.remoe import cpu  # noqa: E402

cpu.enable()  # before anything of Megatron

from megatron.core.transformer.moe import moe_utils  # noqa: E402

from remoe.kernels.permute import permute, unpermute  # noqa: E402

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DEVICE = "cpu" if cpu.is_needed() else "cuda"
HEADER = (
    "| dtype | tokens | experts | k | hidden | rows | Megatron us | ours us | ours / Megatron "
    "| fastest: Megatron | ours |\n|" + " --- |" * 11
)


def main() -> None:
    """Print the machine and one row a shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = lambda text: [int(word) for word in text.split(",")]  # noqa: E731
    parser.add_argument("--tokens", type=numbers, default=[2048, 8192])
    parser.add_argument("--experts", type=numbers, default=[8, 32, 128])
    parser.add_argument("--topk", type=numbers, default=[1, 2])
    parser.add_argument("--hidden", type=numbers, default=[128, 512])
    parser.add_argument("--dtype", type=lambda text: text.split(","), default=["fp32"])
    parser.add_argument("--dense", action="store_true", help="half of all experts are active")
    parser.add_argument("--repeats", type=int, default=11)
    args = parser.parse_args()
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    print(f"{name}, {torch.get_num_threads()} threads; torch {torch.__version__}\n\n{HEADER}")
    for dtype in args.dtype:
        for num_experts in args.experts:
            for topk in args.topk:
                share = 0.5 if args.dense else topk / num_experts
                for num_tokens in args.tokens:
                    for hidden in args.hidden:
                        case = make_case(num_tokens, num_experts, share, hidden, DTYPES[dtype])
                        cells = [dtype, num_tokens, num_experts, topk, hidden, case[3]]
                        report(cells, measure(case, args.repeats))


def report(cells: list, times: dict[str, list[float]]) -> None:
    """One row of the table."""
    medians = {side: statistics.median(values) for side, values in times.items()}
    cells += [f"{medians['Megatron']:.0f}", f"{medians['ours']:.0f}"]
    cells += [f"**{medians['ours'] / medians['Megatron']:.2f}**"]
    cells += [f"{min(times[side]):.0f}" for side in ("Megatron", "ours")]
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def make_case(num_tokens: int, num_experts: int, share: float, hidden: int, dtype: torch.dtype):
    """Hidden states, gate values, map, number of rows, and the gradient of the output."""
    generator = torch.Generator().manual_seed(0)
    routing_map = torch.rand(num_tokens, num_experts, generator=generator) < share
    probs = torch.rand(num_tokens, num_experts, generator=generator) * routing_map
    hidden_states, direction = torch.randn(2, num_tokens, hidden, generator=generator).to(dtype)
    tensors = [x.to(DEVICE) for x in (hidden_states, probs, routing_map, direction)]
    return *tensors[:3], int(routing_map.sum()), tensors[3]


def measure(case: tuple, repeats: int) -> dict[str, list[float]]:
    """Microseconds of each repeat, by side."""
    for ours, theirs in zip(run(by_us, case), run(by_megatron, case), strict=True):
        torch.testing.assert_close(ours, theirs)
    # The work of other processes on a shared machine counts on the clock, not here (one thread).
    clock = time.process_time if DEVICE == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {"Megatron": [], "ours": []}
    for repeat in range(repeats + 2):
        for side, op in (("Megatron", by_megatron), ("ours", by_us)):
            synchronize()
            begin = clock()
            run(op, case)
            synchronize()
            if repeat >= 2:  # to warm up
                times[side].append((clock() - begin) * 1e6)
    return times


def run(op: Callable, case: tuple) -> tuple[torch.Tensor, ...]:
    """Output and gradients of one forward and backward."""
    hidden_states, probs, routing_map, num_rows, direction = case
    leaves = hidden_states.detach().requires_grad_(), probs.detach().requires_grad_()
    gates, output = op(*leaves, routing_map, num_rows)
    gradients = torch.autograd.grad([output, gates], leaves, [direction, torch.ones_like(gates)])
    return output, *gradients


def by_us(hidden_states, probs, routing_map, num_rows):
    """`remoe.kernels.permute`."""
    rows, gates, ids = permute(hidden_states, probs, routing_map, num_rows)
    return gates, unpermute(rows, ids)


def by_megatron(hidden_states, probs, routing_map, num_rows):
    """As its dispatchers call it without --moe-permute-fusion."""
    rows, gates, order, _, _ = moe_utils.permute(
        hidden_states, routing_map, probs=probs, num_out_tokens=num_rows
    )
    return gates, moe_utils.unpermute(rows, order, hidden_states.shape)


def synchronize() -> None:
    """Wait for the GPU."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
