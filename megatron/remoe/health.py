"""Watches a run for experts and tokens that routing has lost, and for a lambda that steers no more."""

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from remoe.controller import REG_COEFF_MAX, REG_COEFF_MIN

# Tokens that an expert's fair share must come to before the lack of any is judged: by chance, or in
# a step whose few sequences are of one domain, a small share is none. The paper's runs have 65,536 a
# step, the quickstart's 256, so there four steps are judged together.
FAIR_SHARE = 1000

# A layer that leaves more of its tokens without an expert is all but switched off. At k = 1 about 0.4
# are without (independent experts: (1 - 1/8)^8 = 0.34), and layers may differ, since the controller
# holds only their mean: a layer with a tenth of the target still serves one token in ten
# (1 - 0.1/8)^8 = 0.90.
DEAD_TOKENS = 0.95


class RoutingHealth:
    """Counts on the device each step, judges when the log is written, warns of each thing once.

    Attributes:
        steps_at_bound: Steps that this process began with lambda at one of its bounds, 0-dim fp64.
            Not saved: a resumed run that is still there counts, and warns, anew.

    Args:
        target_sparsity: ``1 - k/E``.
    """

    def __init__(self, target_sparsity: float) -> None:
        self.target_density = 1.0 - target_sparsity
        self.steps_at_bound: Tensor | None = None
        self._window = None  # `RoutingStats` of all steps since the last verdict
        self._warned: set[str] = set()

    def observe(self, stats) -> None:
        """Take in one step's `RoutingStats`, which are those of all ranks; reads nothing."""
        coeff = stats.reg_coeff
        at_bound = ((coeff <= REG_COEFF_MIN) | (coeff >= REG_COEFF_MAX)).double()
        if self._window is None:
            self.steps_at_bound = torch.zeros_like(at_bound)
            self._window = replace(stats, table=torch.zeros_like(stats.table))
        self.steps_at_bound += at_bound
        self._window.table += stats.table

    def judge(self, steps_at_bound: float, reg_coeff: float) -> None:
        """Warn of what is wrong; one read of the host.

        Args:
            steps_at_bound: As read for the log.
            reg_coeff: Lambda of the last step.
        """
        if steps_at_bound:
            self._warn_once(
                "bound",
                f"moe_relu_l1_reg_coeff reached its bound ({reg_coeff:g} now): sparsity cannot be "
                "steered to its target. Look at moe_relu_dead_experts and "
                "moe_relu_tokens_without_expert.",
            )
        layers = self._close_window()
        dead = {i: int(experts) for i, (_, experts, _) in layers.items() if experts}
        if dead:
            where = ", ".join(f"{number} in layer {i}" for i, number in dead.items())
            self._warn_once("experts", f"dead experts, which no token has reached: {where}")
        idle = {i: without / tokens for i, (tokens, _, without) in layers.items()}
        idle = {i: share for i, share in idle.items() if share > DEAD_TOKENS}
        if idle:
            where = ", ".join(f"{share:.1%} in layer {i}" for i, share in idle.items())
            self._warn_once("tokens", f"nearly all tokens reach no expert: {where}")

    def _close_window(self) -> dict[int, tuple[float, float, float]]:
        """Tokens, dead experts and tokens without an expert by MoE layer; none yet if too few."""
        stats = self._window
        dead = (stats.tokens_per_expert == 0).sum(dim=1).double()
        rows = torch.stack([stats.num_tokens, dead, stats.num_without_expert], dim=1).tolist()
        if max(row[0] for row in rows) * self.target_density < FAIR_SHARE:
            return {}
        self._window = replace(stats, table=torch.zeros_like(stats.table))
        return {i: tuple(row) for i, row in enumerate(rows) if row[0]}

    def _warn_once(self, kind: str, message: str) -> None:
        # Every rank comes to the same verdict.
        if kind not in self._warned and torch.distributed.get_rank() == 0:
            warnings.warn(message, stacklevel=4)
        self._warned.add(kind)
