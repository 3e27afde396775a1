"""torch's Adam and AdamW with their step where Megatron's checkpoints look for it."""

from collections.abc import Callable, Iterable

import torch


class _StepInGroup:
    """Keeps `step` in the parameter groups instead of in each parameter's state.

    Apex's and TransformerEngine's FusedAdam do so, and Megatron's distributed optimizer can be loaded
    and resharded only from there: what it does for torch's own optimizers asserts on a fresh one.
    """

    def step(self, closure: Callable[[], float] | None = None):
        """One optimizer step; see `torch.optim.Adam.step`."""
        _put_steps(self.param_groups, self.state)
        result = super().step(closure)
        for group in self.param_groups:
            group["step"] = group.get("step", 0) + 1
        self._take_steps()
        return result

    def __setstate__(self, state: dict) -> None:
        # torch converts old states here, and looks for `step` in each.
        _adopt_steps(state["param_groups"], state["state"])
        _put_steps(state["param_groups"], state["state"])
        super().__setstate__(state)
        self._take_steps()
        for group in self.param_groups:  # what was saved may have been another implementation
            group["fused"], group["foreach"] = True, None

    def _take_steps(self) -> None:
        for state in self.state.values():
            state.pop("step", None)


def _adopt_steps(param_groups: list[dict], states: dict) -> None:
    """Take the step from what torch's own Adam saved."""
    for group in param_groups:
        steps = [states[p]["step"] for p in group["params"] if "step" in states.get(p, ())]
        if "step" not in group and steps:
            group["step"] = int(max(steps))


def _put_steps(param_groups: list[dict], states: dict) -> None:
    for group in param_groups:
        known = [p for p in group["params"] if states.get(p)]
        if not known:
            continue
        # Of each its own, on its device: the fused kernels count in them. One fill, no copy.
        step, device = float(group.get("step", 0)), known[0].device
        steps = torch.full((len(known),), step, device=device).unbind()
        for parameter, step in zip(known, steps, strict=True):
            states[parameter]["step"] = step


class _AdamW(_StepInGroup, torch.optim.AdamW):
    pass


class _Adam(_StepInGroup, torch.optim.Adam):
    pass


def adam(params: Iterable, adam_w_mode: bool = True, **options) -> torch.optim.Optimizer:
    """Build Adam by FusedAdam's arguments, on torch's fused kernels: one pass, on the CPU as well.

    Args:
        params: Parameters or groups of them.
        adam_w_mode: Decoupled weight decay.
        options: Of `torch.optim.Adam`.
    """
    return (_AdamW if adam_w_mode else _Adam)(params, fused=True, **options)
