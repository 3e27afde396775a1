"""A fixed number of rows a layer, so that no host waits for a count; steps that need more run again."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from megatron.core import tensor_parallel
from megatron.core.tensor_parallel import random as megatron_random
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.moe.moe_logging import get_moe_metrics_tracker
from torch import Tensor, nn

FULL = 1000  # permille of the budget


class RowBudget(nn.Module):
    """What a layer knows of its rows without asking the device.

    ``num_rows = ceil(M k T)``. While it `is_armed` the dispatcher makes so many rows whatever the number
    of active pairs is; otherwise it asks for that number. Either way it notes how full the budget was.

    Buffers:
        use: The fullest micro-batch since `reset`, in permille of the budget, rounded up: 0-dim int64,
            above 1000 if and only if a pair was left out, or would have been. Not saved.

    Args:
        factor: ``M``, the budget as a multiple of the target ``k T``.
        topk: ``k``, target of active experts a token.
        num_experts: ``E``.
        device: Of the buffer.
    """

    use: Tensor

    def __init__(
        self, factor: float, topk: int, num_experts: int, device: torch.device | str | int = "cpu"
    ) -> None:
        super().__init__()
        self.rows_per_token = factor * topk
        self.num_experts = num_experts
        self.is_armed = False
        use = torch.zeros((), dtype=torch.int64, device=device)
        self.register_buffer("use", use, persistent=False)

    def num_rows(self, num_tokens: int) -> int:
        """Rows for so many tokens; never more than there are pairs."""
        return min(math.ceil(self.rows_per_token * num_tokens), num_tokens * self.num_experts)

    @torch.no_grad()
    def fit(self, tokens_per_expert: Tensor, num_rows: int) -> Tensor:
        """Note how full the budget is.

        Args:
            tokens_per_expert: Active pairs ``[num_experts]`` int64.
            num_rows: The budget.

        Returns:
            Those of them that have a row ``[num_experts]``: the first `num_rows`.
        """
        ends = tokens_per_expert.cumsum(0)
        self.use.copy_(torch.maximum(self.use, -(-ends[-1] * FULL // max(num_rows, 1))))
        return ends.clamp(max=num_rows).diff(prepend=ends.new_zeros(1))

    def reset(self) -> None:
        """Forget how full it was."""
        self.use.zero_()


class RowBudgetRunner:
    """Megatron's forward-backward function for a model whose layers have a `RowBudget`.

    A step runs with the budget. Before the optimizer the host reads once how full the fullest layer of
    any rank was; if a pair had no row, gradients are zeroed, random state and data go back, and the step
    is run again without a budget. It stays off until a step would have kept to it: not while routing
    is dense. A row's numbers do not depend on how many rows there are, so results are the same bits.
    Validation has no budget.

    Called as Megatron calls `forward_backward_func`: the step hook runs at the end of each run, and the
    last one counts.

    Args:
        forward_backward: Megatron's.
    """

    def __init__(self, forward_backward: Callable[..., Any]) -> None:
        self.forward_backward = forward_backward
        # The first step of a run is likely dense, or not known to be sparse.
        self.is_static = False
        self._warned = False

    def __call__(self, **kwargs: Any) -> Any:
        """One step; the arguments and results of `forward_backward`."""
        if kwargs["forward_only"]:
            return self.forward_backward(**kwargs)
        budgets = [m for stage in _stages(kwargs["model"]) for m in _budgets(stage)]
        if not self.is_static:
            result = self._run(budgets, kwargs)
            self.is_static = _fullest(budgets) <= FULL
            return result
        replays, kwargs["data_iterator"] = _replayed(kwargs["data_iterator"])
        state = _random_state()
        result = self._run(budgets, kwargs, is_armed=True)
        use = _fullest(budgets)
        if use <= FULL:
            return result
        self._warn(use)
        self.is_static = False
        _take_back(_stages(kwargs["model"]), replays, state)
        return self._run(budgets, kwargs)

    def _run(self, budgets: list[RowBudget], kwargs: dict, is_armed: bool = False) -> Any:
        for budget in budgets:
            budget.reset()
            budget.is_armed = is_armed
        try:
            return self.forward_backward(**kwargs)
        finally:
            for budget in budgets:
                budget.is_armed = False

    def _warn(self, use: int) -> None:
        if not self._warned and torch.distributed.get_rank() == 0:
            # Layers behind the first that is too full saw tokens that lack an expert.
            warnings.warn(
                f"--moe-relu-row-budget: a layer needed at least {use / FULL:.3f} times its rows; such "
                "steps are run again without a budget, exactly (said once): give more to avoid it",
                stacklevel=2,
            )
        self._warned = True


class Replay:
    """A data iterator that can go back to where it began.

    Args:
        source: Where the micro-batches come from.
    """

    def __init__(self, source: Iterator) -> None:
        self.source = source
        self.taken: list[Any] = []
        self.position = 0

    def __iter__(self) -> "Replay":
        return self

    def __next__(self) -> Any:
        if self.position == len(self.taken):
            self.taken.append(next(self.source))
        self.position += 1
        return copy.copy(self.taken[self.position - 1])  # whoever takes it may change the dict

    def rewind(self) -> None:
        """Give the same micro-batches again."""
        self.position = 0


def _stages(model: MegatronModule | list[MegatronModule]) -> list[MegatronModule]:
    return model if isinstance(model, list) else [model]


def _budgets(stage: MegatronModule) -> list[RowBudget]:
    return [module for module in stage.modules() if isinstance(module, RowBudget)]


def _fullest(budgets: list[RowBudget]) -> int:
    """Use of the fullest layer of all ranks: the one read of a step."""
    use = torch.zeros((), dtype=torch.int64, device=torch.cuda.current_device())
    for budget in budgets:
        use = torch.maximum(use, budget.use)
    torch.distributed.all_reduce(use, op=torch.distributed.ReduceOp.MAX)
    return int(use)


def _replayed(data_iterator: Any) -> tuple[list[Replay], Any]:
    """Iterators that can go back, and the same in the form that was given: one, a list, or none."""
    if isinstance(data_iterator, list):
        made = [None if source is None else Replay(source) for source in data_iterator]
        return [replay for replay in made if replay is not None], made
    if data_iterator is None:
        return [], None
    replay = Replay(data_iterator)
    return [replay], replay


def _random_state() -> tuple[Tensor, Tensor, dict]:
    """Of dropout, in and outside of Megatron's tracker. Kept on the host by torch: no wait."""
    tracked = tensor_parallel.get_cuda_rng_tracker().get_states()
    return torch.get_rng_state(), megatron_random._get_cuda_rng_state(), tracked


def _take_back(stages: list[MegatronModule], replays: list[Replay], state: tuple) -> None:
    """Undo a forward-backward: gradients, losses for the log, data, random numbers."""
    for stage in stages:
        stage.zero_grad_buffer()
    get_moe_metrics_tracker().clear()  # reported, and so empty, after each step
    for replay in replays:
        replay.rewind()
    host, device, tracked = state
    megatron_random._set_cuda_rng_state(device)
    torch.set_rng_state(host)
    tensor_parallel.get_cuda_rng_tracker().set_states(tracked)
