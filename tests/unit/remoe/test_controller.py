"""The controller of lambda: direction, bounds, precision, and nothing read by the host."""

import math

import pytest
import torch

from remoe import update_reg_coeff
from remoe.controller import REG_COEFF_MAX, REG_COEFF_MIN

TARGET = 0.875


def step(coeff, measured, multiplier=1.2):
    measured = torch.tensor(measured, dtype=torch.float64)
    return update_reg_coeff(coeff, measured, TARGET, multiplier)


@pytest.mark.parametrize(
    ("measured", "factor"),
    [
        (0.0, 1.2),  # all active
        (0.5, 1.2),  # the start of a run
        (math.nextafter(TARGET, 0), 1.2),  # one bit too dense
        (TARGET, 1.0),  # exactly there: sign(0) = 0
        (math.nextafter(TARGET, 1), 1 / 1.2),  # one bit too sparse
        (1.0, 1 / 1.2),  # nothing active
        (math.nan, 1.0),  # nothing counted
    ],
)
def test_lambda_moves_by_the_sign_of_the_difference(measured, factor):
    coeff = torch.tensor(1e-5)
    new = step(coeff, measured)
    torch.testing.assert_close(new, coeff * factor, rtol=2e-7, atol=0.0)
    if factor == 1.0:
        assert torch.equal(new, coeff)


def test_the_old_value_is_left_alone():
    coeff = torch.tensor(1e-5)
    step(coeff, 0.0)
    assert coeff == torch.tensor(1e-5)


@pytest.mark.parametrize("multiplier", [1.001, 1.2, 2.0, 1e6])
@pytest.mark.parametrize(
    ("measured", "bound", "back"),
    [(0.0, REG_COEFF_MAX, 1.0), (1.0, REG_COEFF_MIN, 0.0)],
    ids=["too dense for ever", "too sparse for ever"],
)
def test_lambda_stops_at_its_bounds_and_moves_off_them(measured, bound, back, multiplier):
    coeff = torch.tensor(1e-8)
    for _ in range(20 if multiplier > 1e3 else 300 if multiplier > 1.1 else 100):
        coeff = step(coeff, measured, multiplier)
        assert coeff.isfinite() and coeff > 0
    if multiplier > 1.1:
        assert coeff == torch.tensor(bound)
    at_bound = torch.tensor(bound)
    assert torch.equal(step(at_bound, measured, multiplier), at_bound)
    off = step(at_bound, back, multiplier)
    assert (off > at_bound) if measured == 1.0 else (off < at_bound)
    assert torch.equal(step(at_bound, math.nan, multiplier), at_bound)


def test_lambda_can_still_be_multiplied_by_a_gate_at_its_bounds():
    """The margin that the bounds leave: lambda * f_e / T for 2^20 tokens and 128 experts."""
    for bound in (REG_COEFF_MIN, REG_COEFF_MAX):
        coeff = torch.tensor(bound)
        assert (coeff * 128).isfinite() and coeff / 2**20 > torch.finfo(torch.float32).tiny


@pytest.mark.parametrize("shape", [(), (1,)], ids=["0-dim", "[1]"])
def test_lambda_keeps_dtype_shape_and_device(shape):
    new = step(torch.full(shape, 1e-8), 0.5)
    assert new.dtype == torch.float32 and new.shape == shape and new.device.type == "cpu"
    assert not new.requires_grad


def test_a_step_of_a_thousandth_is_not_lost():
    """bf16 could not take it: 1e-8 * 1.001 rounds back."""
    coeff = torch.tensor(1e-8)
    for _ in range(1000):
        coeff = step(coeff, 0.0, multiplier=1.001)
    assert coeff.item() == pytest.approx(1e-8 * 1.001**1000, rel=1e-3)


def test_up_and_down_come_back():
    coeff = torch.tensor(1e-8)
    for measured in (0.0, 1.0) * 50:
        coeff = step(coeff, measured)
    assert coeff.item() == pytest.approx(1e-8, rel=1e-5)


@pytest.mark.parametrize("measured", [0.0, TARGET, 1.0, math.nan])
def test_the_host_reads_nothing(measured, host_reads):
    coeff, measured = torch.tensor(1e-8), torch.tensor(measured, dtype=torch.float64)
    with host_reads:
        update_reg_coeff(coeff, measured, TARGET, 1.2)
    assert host_reads.names == []


def test_the_counter_of_host_reads_would_notice(host_reads):
    """The test above can fail: each way to read a tensor is seen."""
    value = torch.tensor([1.0])
    with host_reads:
        value.item()
        bool(value > 0)
        float(value)
        value.tolist()
        value.nonzero()
    assert len(set(host_reads.names)) >= 4
