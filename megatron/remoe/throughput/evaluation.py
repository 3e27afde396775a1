"""Speed and routing of an evaluation, in one line of the log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.moe.router import TopKRouter
from megatron.training import get_args
from megatron.training.utils import print_rank_last
from torch import Tensor

from megatron.remoe.throughput.figures import Figures
from megatron.remoe.throughput.flops import forward_flops
from remoe import routing_counts


class RoutingCounter:
    """Counts what the routers of a model do while it is entered, ReLU or TopK.

    It looks at what they give; their own counters and lambda stay as they are.

    Args:
        model: The pipeline stages of this rank.
    """

    def __init__(self, model: list[MegatronModule]) -> None:
        modules = (module for stage in model for module in stage.modules())
        self._routers = [module for module in modules if isinstance(module, TopKRouter)]
        self._handles = []
        self._totals = torch.zeros(3, dtype=torch.int64, device=torch.cuda.current_device())

    def __enter__(self) -> "RoutingCounter":
        for router in self._routers:
            self._handles.append(router.register_forward_hook(self._count, with_kwargs=True))
        return self

    def __exit__(self, *exception) -> None:
        for handle in self._handles:
            handle.remove()

    def _count(self, router, args: tuple, kwargs: dict, output: tuple[Tensor, Tensor]) -> None:
        """Hook of `TopKRouter.forward(input, padding_mask)`; True = padding, ``[s, b]``."""
        padding_mask = args[1] if len(args) > 1 else kwargs.get("padding_mask")
        if padding_mask is not None:
            padding_mask = padding_mask.reshape(-1)
        counts = routing_counts(output[1], padding_mask)
        self._totals += torch.stack([counts[:-2].sum(), counts[-2], counts[-1]])

    def means(self) -> tuple[float, float] | None:
        """Active experts a token, and the share of tokens without one, over all layers and ranks.

        A collective over all ranks, and a read by the host. Padding counts for nothing. None where
        nothing was seen: in a dense model, or where CUDA graphs replay the routers.
        """
        torch.distributed.all_reduce(self._totals)
        active, tokens, without_expert = self._totals.tolist()
        return (active / tokens, without_expert / tokens) if tokens else None


@contextmanager
def report_evaluation(model: list[MegatronModule], peak_tflops: float | None) -> Iterator[None]:
    """Print one line about the evaluation inside, on the last rank; enter it on every rank.

    Args:
        model: The pipeline stages of this rank.
        peak_tflops: Of one device, or None: no MFU.
    """
    args = get_args()
    samples_before, start = args.consumed_valid_samples, time.perf_counter()
    with RoutingCounter(model) as routing:
        yield
    seconds = time.perf_counter() - start  # Megatron's evaluate() ends with a synchronised timer
    samples = args.consumed_valid_samples - samples_before
    active, routed = None, ""
    if means := routing.means():
        active, without_expert = means
        routed = f" active-experts: {active:.3f} | tokens-without-expert: {without_expert:.4f} |"
    tokens = samples * args.seq_length
    flops = forward_flops(args, samples, active)
    figures = Figures(
        tokens_per_second=tokens / seconds,
        tflops_per_gpu=flops / (seconds * 1e12 * args.world_size),
        peak_tflops=peak_tflops,
    )
    speed = f" throughput per GPU (TFLOP/s/GPU): {figures.tflops_per_gpu:.4g} |"
    print_rank_last(f" evaluated {tokens} tokens |{figures.line()}{speed}{routed}")
