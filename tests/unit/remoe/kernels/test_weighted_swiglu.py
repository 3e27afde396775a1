"""`weighted_swiglu` against its reference: by hand, forward, every gradient, and what is kept."""

import math

import pytest
import torch

from remoe.kernels.weighted_swiglu import weighted_swiglu, weighted_swiglu_reference

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}


def test_by_hand():
    silu_of_2 = 2 / (1 + math.exp(-2))
    output = weighted_swiglu(torch.tensor([[2.0, 0.0, 3.0, 5.0]]), torch.tensor([[0.5]]))
    assert torch.allclose(output, torch.tensor([[0.5 * 3 * silu_of_2, 0.0]]))


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
            ],
        ),
    ]
)
def device(request):
    return request.param


def run(function, hidden, probs, direction):
    hidden, probs = hidden.clone().requires_grad_(), probs.clone().requires_grad_()
    output = function(hidden, probs)
    output.backward(direction.to(output.dtype))
    return output.detach(), hidden.grad, probs.grad


def inputs(rows, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, 12), (rows, 1), (rows, 6))
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes
    ]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [0, 1, 65])
def test_it_is_the_reference(rows, dtype, device):
    given = [x.to(device) for x in inputs(rows, dtype)]
    for ours, theirs in zip(
        run(weighted_swiglu, *given), run(weighted_swiglu_reference, *given), strict=True
    ):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("probs_dtype", [torch.bfloat16, torch.float32])
def test_in_bf16_it_errs_no_more_than_twice_torch(probs_dtype, device):
    hidden, probs, direction = (x.to(device) for x in inputs(257, torch.bfloat16))
    probs = probs.to(probs_dtype)
    exact = run(weighted_swiglu_reference, *(x.double() for x in (hidden, probs, direction)))
    ours = run(weighted_swiglu, hidden, probs, direction)
    theirs = run(weighted_swiglu_reference, hidden, probs, direction)
    for mine, their, truth in zip(ours, theirs, exact, strict=True):
        assert mine.dtype == their.dtype
        assert (mine - truth).abs().max() <= 2 * (their - truth).abs().max()


def test_only_its_arguments_are_kept():
    hidden, probs, _ = inputs(3, torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        weighted_swiglu(hidden.requires_grad_(), probs.requires_grad_())
    assert kept == [hidden.shape, probs.shape]
