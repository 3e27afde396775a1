"""lambda's warm-up: a larger factor until sparsity first reaches its target, alpha for ever after."""

import math

import pytest
import torch

from remoe import update_reg_coeff, warm_up_reg_coeff
from remoe.controller import REG_COEFF_MAX

TARGET, ALPHA, W = 0.875, 1.2, 2.0
DENSE, SPARSE = 0.5, 0.9


def course(measured, warmup=W, coeff=1e-8):
    """lambda and whether the target was reached after each step, from 0."""
    coeff, reached, steps = torch.tensor(coeff), torch.tensor(0.0), []
    for value in measured:
        value = torch.tensor(value, dtype=torch.float64)
        coeff, reached = warm_up_reg_coeff(coeff, reached, value, TARGET, ALPHA, warmup)
        steps.append((coeff, reached.item()))
    return steps


def test_it_moves_by_w_up_to_the_target_and_by_alpha_ever_after():
    steps = course([DENSE, DENSE, SPARSE, SPARSE, DENSE, DENSE, SPARSE])
    factors = [2, 2, 1 / 1.2, 1 / 1.2, 1.2, 1.2, 1 / 1.2]
    coeff = 1e-8
    for (ours, _), factor in zip(steps, factors, strict=True):
        coeff *= factor
        assert ours.item() == pytest.approx(coeff, rel=1e-6)
    assert [reached for _, reached in steps] == [0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("measured", "reached", "factor"),
    [
        (0.0, 0, 2),
        (math.nextafter(TARGET, 0), 0, 2),
        (TARGET, 1, 1),  # exactly there: reached, and lambda stays
        (math.nextafter(TARGET, 1), 1, 1 / 1.2),  # divided by alpha, never by W
        (1.0, 1, 1 / 1.2),
        (math.nan, 0, 1),  # nothing counted
    ],
)
def test_the_first_step_decides_by_the_sparsity_of_its_own(measured, reached, factor):
    ((coeff, was_reached),) = course([measured])
    assert was_reached == reached
    assert coeff.item() == pytest.approx(1e-8 * factor, rel=1e-6)


@pytest.mark.parametrize("measured", [DENSE, SPARSE, TARGET, math.nan])
def test_with_alpha_for_w_it_is_the_controller_to_the_bit(measured):
    sparsity, coeff = torch.tensor(measured, dtype=torch.float64), torch.tensor(1.2345678e-8)
    for reached in (0.0, 1.0):
        for w in (ALPHA, 1e3) if reached else (ALPHA,):
            ours, _ = warm_up_reg_coeff(coeff, torch.tensor(reached), sparsity, TARGET, ALPHA, w)
            assert torch.equal(ours, update_reg_coeff(coeff, sparsity, TARGET, ALPHA))


def test_it_stops_at_the_bound_too():
    assert course([DENSE] * 9, warmup=1e6)[-1][0] == torch.tensor(REG_COEFF_MAX)


def test_its_state_is_left_alone_and_keeps_its_dtype():
    coeff, reached = torch.tensor(1e-5), torch.tensor(0.0)
    sparsity = torch.tensor(SPARSE, dtype=torch.float64)
    new = warm_up_reg_coeff(coeff, reached, sparsity, TARGET, ALPHA, W)
    assert coeff == torch.tensor(1e-5) and reached == 0
    assert [(x.dtype, x.shape) for x in new] == [(torch.float32, ())] * 2


def test_the_host_reads_nothing(host_reads):
    state = torch.tensor(1e-8), torch.tensor(0.0), torch.tensor(DENSE, dtype=torch.float64)
    with host_reads:
        warm_up_reg_coeff(*state, TARGET, ALPHA, W)
    assert host_reads.names == []
