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
    reg_coeff: Tensor, sparsity: Tensor, target_sparsity: float, multiplier: float
) -> Tensor:
    """One step of the sparsity controller.

    ``lambda_{i+1} = lambda_i * alpha^sign((1 - k/E) - S_i)``: too dense, lambda grows; too sparse,
    it shrinks; exactly at the target (or if nothing was counted, ``S = NaN``), it stays.

    Args:
        reg_coeff: ``lambda_i``, 0-dim fp32.
        sparsity: ``S_i``, 0-dim; fp64 as `remoe.sparsity.sparsity` gives it, so that "exactly at
            the target" is decided on exact integers.
        target_sparsity: ``1 - k/E``.
        multiplier: ``alpha > 1``.

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
