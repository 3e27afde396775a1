"""ReLU routing from degenerate to real sizes and in every dtype."""

import pytest
import torch

from remoe import relu_routing

SIZES = [
    (0, 4),  # a rank that got no token
    (1, 1),  # the least there is
    (1, 8),  # one token
    (3, 8),
    (257, 64),  # an odd number of tokens, many experts
]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("num_tokens", "num_experts"), SIZES)
def test_probs_are_the_positive_logits_in_their_own_dtype(num_tokens, num_experts, dtype):
    logits = torch.randn(num_tokens, num_experts).to(dtype)
    probs, routing_map = relu_routing(logits)
    assert probs.dtype == dtype and routing_map.dtype == torch.bool
    assert torch.equal(probs, logits.clamp(min=0))
    assert torch.equal(routing_map, logits > 0)


@pytest.mark.parametrize(
    ("sign", "active"), [(-1.0, False), (0.0, False), (1.0, True)], ids=["none", "zero", "all"]
)
def test_any_number_of_experts_is_a_route(sign, active):
    _, routing_map = relu_routing(torch.full((5, 8), sign))
    assert (routing_map == active).all()


@pytest.mark.parametrize(
    ("dtype", "tiny"),
    [
        (torch.float16, 1e-8),  # below half of fp16's least subnormal, 6e-8
        (torch.bfloat16, 2e-41),  # below half of bf16's, 9.2e-41
    ],
    ids=str,
)
def test_a_logit_that_rounds_to_zero_is_inactive(dtype, tiny):
    """Kernels treat a zero gate as padding: map and gate must agree in the dtype that is sent."""
    logits = torch.tensor([[tiny, 1.0]], dtype=torch.float32)
    assert (logits > 0).all(), "positive before the cast"
    probs, routing_map = relu_routing(logits.to(dtype))
    assert routing_map.tolist() == [[False, True]]
    assert torch.equal(routing_map, probs > 0)


def test_a_subnormal_gate_is_active():
    probs, routing_map = relu_routing(torch.tensor([[6e-8]], dtype=torch.float16))
    assert probs.item() > 0 and routing_map.item()


def test_gradient_passes_active_pairs_and_no_others():
    logits = torch.tensor([[-1.0, 0.0, 2.0]], requires_grad=True)
    probs, _ = relu_routing(logits)
    probs.backward(torch.tensor([[3.0, 5.0, 7.0]]))
    assert logits.grad.tolist() == [[0.0, 0.0, 7.0]]


def test_rows_are_not_normalised():
    probs, _ = relu_routing(torch.tensor([[2.0, 3.0], [0.1, -1.0]]))
    torch.testing.assert_close(probs.sum(1), torch.tensor([5.0, 0.1]))


def test_nan_logits_stay_visible():
    """A NaN must reach the loss, where Megatron's own check stops the run."""
    probs, routing_map = relu_routing(torch.tensor([[float("nan"), 1.0]]))
    assert probs[0, 0].isnan() and not routing_map[0, 0]


@pytest.mark.parametrize(
    ("threshold", "probs"),
    [
        (0.0, [0.0, 0.25, 0.5, 2.0]),
        (0.5, [0.0, 0.0, 0.0, 2.0]),  # gates that stay keep their value
        (-0.5, [0.0, 0.75, 1.0, 2.5]),  # -0.5 itself is not above it
        (-1.0, [0.5, 1.25, 1.5, 3.0]),
    ],
)
def test_a_threshold_drops_small_gates_or_raises_all(threshold, probs):
    logits = torch.tensor([[-0.5, 0.25, 0.5, 2.0]], requires_grad=True)
    found, routing_map = relu_routing(logits, threshold)
    assert found.tolist() == [probs]
    assert torch.equal(routing_map, found > 0)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert torch.equal(gradient, routing_map.float())


def test_hugging_face_models_route_by_the_same_thresholds():
    from remoe.hf.router_remoe import relu_routing as theirs

    logits = torch.randn(50, 8)
    for threshold in (-0.7, 0.0, 0.3):
        for one, other in zip(
            relu_routing(logits, threshold), theirs(logits, threshold), strict=True
        ):
            assert torch.equal(one, other)
