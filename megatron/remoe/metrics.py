"""What the log says about routing: one table of counters, and the tracker that reports it."""

from dataclasses import dataclass

import torch
from megatron.core.transformer.moe.moe_logging import MoEMetricsTracker
from torch import Tensor

from megatron.remoe.health import RoutingHealth
from remoe import RoutingState, sparsity


@dataclass
class RoutingStats:
    """Counters of one training step, a row a layer, as they travel through the one all-reduce.

    Attributes:
        table: ``[num_layers, num_experts + 8]`` fp64 (integers are exact below 2^53). Columns: tokens
            per expert, tokens, tokens with no expert, pairs that a cap dropped, sum of L1 losses and
            their number, sum of `reached_target`, sum of lambdas and the number of both. Rows of
            dense layers stay zero.
        is_capped: Whether `--moe-relu-max-active-experts` is on, so that dropped pairs are logged.
    """

    table: Tensor
    is_capped: bool = False

    @classmethod
    def empty(
        cls, num_layers: int, num_experts: int, device, is_capped: bool = False
    ) -> "RoutingStats":
        """An empty table for a model."""
        table = torch.zeros(num_layers, num_experts + 8, dtype=torch.float64, device=device)
        return cls(table, is_capped)

    def add(self, layer: int, state: RoutingState) -> None:
        """Add one router's counters and lambda to row `layer`."""
        coeff = [state.reached_target, state.reg_coeff, torch.ones_like(state.reg_coeff)]
        counts = torch.cat([state.counts, state.num_dropped.view(1)])
        self.table[layer] += torch.cat(
            [counts.double(), state.reg_loss, torch.stack(coeff).double()]
        )

    @property
    def tokens_per_expert(self) -> Tensor:
        """``[num_layers, num_experts]``."""
        return self.table[:, :-8]

    @property
    def num_tokens(self) -> Tensor:
        """``[num_layers]``; 0 for a dense layer."""
        return self.table[:, -8]

    @property
    def num_without_expert(self) -> Tensor:
        """``[num_layers]``: tokens that no gate is open for."""
        return self.table[:, -7]

    @property
    def num_dropped(self) -> Tensor:
        """``[num_layers]``: active pairs that the cap kept from the experts."""
        return self.table[:, -6]

    @property
    def num_slots(self) -> Tensor:
        """``[num_layers]``."""
        return self.num_tokens * self.tokens_per_expert.shape[1]

    @property
    def sparsity(self) -> Tensor:
        """0-dim, over all MoE layers."""
        return sparsity(self.tokens_per_expert.sum(), self.num_slots.sum())

    @property
    def reg_coeff(self) -> Tensor:
        """Lambda of this step, 0-dim fp32. The mean of equal fp32 numbers in fp64 is exact."""
        total, number = self.table[:, -2:].sum(dim=0)
        return (total / number).float()

    @property
    def reached_target(self) -> Tensor:
        """Whether sparsity had reached its target before this step, 0-dim fp32, 0 or 1."""
        total, _, number = self.table[:, -3:].sum(dim=0)
        return (total / number).float()

    def scalars(self) -> dict[str, Tensor]:
        """Figures of the whole model by their logged names, 0-dim fp64 on the device."""
        tokens = self.num_tokens.sum()
        is_moe = self.num_tokens > 0
        active = self.tokens_per_expert.sum()
        reg_loss, num_losses = self.table[:, -5:-3].sum(dim=0)
        scalars = {
            "moe_relu_sparsity": self.sparsity,
            "moe_relu_l1_reg_coeff": self.reg_coeff.double(),
            "moe_relu_l1_reg_loss": reg_loss / num_losses,
            "moe_relu_active_experts": active / tokens,
            "moe_relu_dead_experts": (self.tokens_per_expert[is_moe] == 0).sum().double(),
            "moe_relu_tokens_without_expert": self.num_without_expert.sum() / tokens,
        }
        if self.is_capped:
            scalars["moe_relu_dropped_fraction"] = self.num_dropped.sum() / active.clamp(min=1)
        return scalars


class ReMoEMetricsTracker(MoEMetricsTracker):
    """Megatron's tracker with the ReLU router's figures.

    `report` runs once an iteration on every rank after the optimizer's step. The figures were
    summed over all ranks by the step hook already, so this adds no collective, and it reads the
    host only in an iteration that logs.

    Args:
        source: Has `.stats`, the `RoutingStats` of the last step, and `.target_sparsity`, and takes
            `.mean_active_experts`.
        log_interval: Iterations between console lines.
        tensorboard_log_interval: Iterations between tensorboard points.
    """

    def __init__(self, source, log_interval: int, tensorboard_log_interval: int) -> None:
        super().__init__()
        self.source = source
        self.log_interval = log_interval
        self.tensorboard_log_interval = tensorboard_log_interval
        self._active_and_tokens: Tensor | None = None  # [2], since the last console line
        self._health = RoutingHealth(source.target_sparsity)
        self._is_first = True

    def report(
        self,
        loss_scale,
        iteration,
        writer=None,
        wandb_writer=None,
        per_layer_logging=False,
        **kwargs,
    ) -> str:
        """Report the step that just ended; see `MoEMetricsTracker.report`."""
        log = super().report(
            loss_scale, iteration, writer, wandb_writer, per_layer_logging, **kwargs
        )
        stats = self.source.stats
        if stats is None:
            return log
        self._accumulate(stats)
        self._health.observe(stats)
        to_console = iteration % self.log_interval == 0 or self._is_first
        has_writer = writer is not None or wandb_writer is not None
        to_writer = has_writer and iteration % self.tensorboard_log_interval == 0
        self._is_first = False
        if not (to_console or to_writer):
            return log
        scalars = stats.scalars() | {"moe_relu_steps_at_bound": self._health.steps_at_bound}
        scalars = dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True))
        if to_writer:
            self._log_scalars(scalars, iteration, writer, wandb_writer)
            layers = layer_scalars(stats, per_expert=per_layer_logging)
            self._log_scalars(layers, iteration, writer, wandb_writer)
        if to_console:
            self._measure_active_experts()
            self._health.judge(scalars["moe_relu_steps_at_bound"], scalars["moe_relu_l1_reg_coeff"])
            log += format_scalars(scalars)
            if per_layer_logging:
                log += format_layers(stats)
        return log

    def _accumulate(self, stats: RoutingStats) -> None:
        computed = stats.tokens_per_expert.sum() - stats.num_dropped.sum()
        counted = torch.stack([computed, stats.num_tokens.sum()])
        if self._active_and_tokens is None:
            self._active_and_tokens = counted
        else:
            self._active_and_tokens += counted

    def _measure_active_experts(self) -> None:
        """Tell the FLOP count the mean active experts of this logging interval."""
        active, tokens = self._active_and_tokens.tolist()
        if tokens:
            self.source.mean_active_experts = active / tokens
        self._active_and_tokens = None


def layer_scalars(stats: RoutingStats, per_expert: bool) -> dict[str, float]:
    """Sparsity, largest expert load and idle tokens of each MoE layer, by Megatron's per-layer names.

    Args:
        stats: One step.
        per_expert: Also the load of each expert: its tokens over the layer's mean (1 is even).
    """
    num_tokens = stats.num_tokens.tolist()
    tokens_per_expert = stats.tokens_per_expert.tolist()
    without_expert = stats.num_without_expert.tolist()
    result = {}
    for i, (tokens, experts) in enumerate(zip(num_tokens, tokens_per_expert, strict=True)):
        if tokens == 0:
            continue
        active, num_experts = sum(experts), len(experts)
        load = [n * num_experts / active if active else 0.0 for n in experts]
        result[f"moe/moe_relu_sparsity_layer_{i}"] = 1.0 - active / (tokens * num_experts)
        result[f"moe/moe_relu_active_experts_layer_{i}"] = active / tokens
        result[f"moe/moe_relu_max_expert_load_layer_{i}"] = max(load)
        result[f"moe/moe_relu_tokens_without_expert_layer_{i}"] = without_expert[i] / tokens
        if per_expert:
            for e, value in enumerate(load):
                result[f"moe/moe_relu_expert_load_layer_{i}_expert_{e}"] = value
    return result


def format_scalars(scalars: dict[str, float]) -> str:
    """The console line's part: Megatron prints `name: value |`, at two digits lambda would be 0."""
    formats = {
        "moe_relu_sparsity": ".4f",
        "moe_relu_l1_reg_coeff": ".4E",
        "moe_relu_l1_reg_loss": ".6E",
        "moe_relu_active_experts": ".3f",
        "moe_relu_dead_experts": ".0f",
        "moe_relu_tokens_without_expert": ".4f",
        "moe_relu_dropped_fraction": ".4f",
        "moe_relu_steps_at_bound": ".0f",
    }
    return "".join(
        f" {name}: {scalars[name]:{formats[name]}} |" for name in formats if name in scalars
    )


def format_layers(stats: RoutingStats) -> str:
    """Sparsity and largest load by layer for the console line."""
    layers = layer_scalars(stats, per_expert=False)
    log = ""
    for name in ("moe_relu_sparsity", "moe_relu_max_expert_load"):
        values = [f"{v:.3f}" for k, v in layers.items() if k.startswith(f"moe/{name}_layer_")]
        log += f" {name} by layer: {' '.join(values)} |"
    return log
