"""The controller that holds sparsity at its target by moving lambda once a step (eq. 7)."""

import torch
from torch import Tensor

# lambda stays a normal fp32 number that one more step can still move: fp32 denormals below 1e-38
# are stuck (2.8e-45 * 1.2 rounds back to itself), and above 1e38 the next step is inf. The margin
# leaves room for lambda * f_e / T. The paper starts at 1e-16 to 1.
REG_COEFF_MIN = 1e-30
REG_COEFF_MAX = 1e10


@torch.no_grad()
def update_reg_coeff(
    reg_coeff: Tensor, sparsity: Tensor, target_sparsity: float, multiplier: float | Tensor
) -> Tensor:
    """One step of the sparsity controller.

    ``lambda_{i+1} = lambda_i * alpha^sign((1 - k/E) - S_i)``: too dense, lambda grows; too sparse,
    it shrinks; exactly at the target (or if nothing was counted, ``S = NaN``), it stays.

    Args:
        reg_coeff: ``lambda_i``, 0-dim fp32.
        sparsity: ``S_i``, 0-dim; fp64 as `remoe.sparsity.sparsity` gives it, so that "exactly at
            the target" is decided on exact integers.
        target_sparsity: ``1 - k/E``.
        multiplier: ``alpha > 1``; a 0-dim fp32 tensor where it depends on what is on the device.

    Returns:
        ``lambda_{i+1}``, new tensor, dtype and device of ``reg_coeff``, clamped to
        ``[REG_COEFF_MIN, REG_COEFF_MAX]``. Nothing is read on the host.

    Source: arXiv 2412.14711, eq. 7.
    """
    too_dense = sparsity < target_sparsity
    too_sparse = sparsity > target_sparsity
    stepped = torch.where(too_dense, reg_coeff * multiplier, reg_coeff)
    stepped = torch.where(too_sparse, reg_coeff / multiplier, stepped)
    return stepped.clamp(REG_COEFF_MIN, REG_COEFF_MAX)


@torch.no_grad()
def warm_up_reg_coeff(
    reg_coeff: Tensor,
    reached_target: Tensor,
    sparsity: Tensor,
    target_sparsity: float,
    multiplier: float,
    warmup_multiplier: float,
) -> tuple[Tensor, Tensor]:
    """One step of the controller with a larger factor until the target is first reached.

    ``r_{i+1} = max(r_i, [S_i >= 1 - k/E])``, then `update_reg_coeff` with ``W`` while
    ``r_{i+1} = 0`` and ``alpha`` for ever after. While ``r`` is 0 routing is too dense, so ``W``
    never divides; ``W = alpha`` is the controller of eq. 7. Most steps of the dense stage only bring
    lambda from 1e-8 to where it acts. Gates take steps to follow, so the larger ``W``, the further
    lambda is beyond its place when the target is reached: in small runs ``W = 2`` switched nearly all
    experts off for a while, and with E = 32 so did 1.5.

    Args:
        reg_coeff: ``lambda_i``, 0-dim fp32.
        reached_target: ``r_i``, 0-dim fp32, 0 or 1.
        sparsity: ``S_i``, 0-dim fp64; NaN (nothing was counted) changes nothing.
        target_sparsity: ``1 - k/E``.
        multiplier: ``alpha > 1``.
        warmup_multiplier: ``W >= alpha``.

    Returns:
        ``lambda_{i+1}`` and ``r_{i+1}``, new tensors. Nothing is read on the host.
    """
    reached_target = reached_target.maximum((sparsity >= target_sparsity).to(reached_target.dtype))
    factor = torch.where(reached_target > 0, multiplier, warmup_multiplier)
    return update_reg_coeff(reg_coeff, sparsity, target_sparsity, factor), reached_target
