"""Permutation and its inverse against a case worked by hand, the reference, and Megatron's order.

`test_permute_triton.py` runs this file once more with the Triton kernels, in their interpreter.

Three tokens, two experts; token 0 has both, token 1 none, token 2 the first:

    map      rows (expert 0: t0, t2; expert 1: t0)   tokens   pairs (t * 2 + e)   rows by token
    1 1      t0 t2 t0                                0 2 0    0 4 1               t0: 0 2   t2: 1
    0 0
    1 0
"""

import pytest
import torch

from remoe.kernels.choice import triton_kernels
from remoe.kernels.permute import (
    permute,
    permute_reference,
    unpermute,
    unpermute_reference,
)
from triton_interpreter import IS_INTERPRETED

SIZES = [
    # tokens, experts, hidden
    (0, 4, 8),  # no token
    (1, 1, 1),  # the least there is
    (1, 8, 16),  # one token
    (7, 5, 3),  # nothing is a power of two
    (2, 128, 6),  # many experts
    (24, 8, 20),
]
CONTENTS = {
    "ragged": lambda x: x < 0.4,
    "all active": lambda x: x >= 0,
    "none active": lambda x: x < 0,
    "one expert": lambda x: torch.arange(x.shape[1]).expand(x.shape) == x.shape[1] - 1,
}

# Triton's interpreter cuts bf16 off where a GPU rounds to the nearest: up to twice the error of each.
TIMES_THE_REFERENCE = 4 if IS_INTERPRETED else 2
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
BOTH = pytest.mark.parametrize(
    "ops",
    [(permute, unpermute), (permute_reference, unpermute_reference)],
    ids=["fused", "reference"],
)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, GPU])])
def device(request):
    return request.param


def make_case(size, content="ragged", dtype=torch.float32, device="cpu"):
    """Hidden states, gate values, map, and a direction for the output's gradient."""
    num_tokens, num_experts, hidden = size
    generator = torch.Generator().manual_seed(num_tokens)
    routing_map = CONTENTS[content](torch.rand(num_tokens, num_experts, generator=generator))
    probs = torch.rand(num_tokens, num_experts, generator=generator) * routing_map
    hidden_states, direction = torch.randn(2, num_tokens, hidden, generator=generator).to(dtype)
    return [x.to(device) for x in (hidden_states, probs, routing_map, direction)]


def run(ops, case, num_rows=None):
    """All outputs and gradients of ``unpermute(rows * gate)`` along the direction."""
    forth, back = ops
    hidden_states, probs, routing_map, direction = case
    leaves = hidden_states.clone().requires_grad_(), probs.clone().requires_grad_()
    num_rows = int(routing_map.sum()) if num_rows is None else num_rows
    rows, gates, ids = forth(*leaves, routing_map, num_rows)
    output = back((rows * gates.unsqueeze(1)).to(rows.dtype), ids)
    output.backward(direction)
    return {
        "rows": rows.detach(),
        "gates": gates.detach(),
        "output": output.detach(),
        "hidden_states": leaves[0].grad,
        "probs": leaves[1].grad,
        **ids._asdict(),
    }


@BOTH
def test_the_case_worked_by_hand(ops, device):
    forth, back = ops
    routing_map = torch.tensor([[1, 1], [0, 0], [1, 0]], dtype=torch.bool, device=device)
    hidden_states = torch.tensor([[1.0, 10], [2, 20], [3, 30]], device=device, requires_grad=True)
    probs = torch.tensor([[0.5, 0.25], [0, 0], [2, 0]], device=device, requires_grad=True)
    rows, gates, ids = forth(hidden_states, probs, routing_map, 3)
    assert rows.tolist() == [[1, 10], [3, 30], [1, 10]]
    assert gates.tolist() == [0.5, 2, 0.25]
    assert ids.tokens.tolist() == [0, 2, 0] and ids.pairs.tolist() == [0, 4, 1]
    assert ids.rows_by_token.tolist() == [0, 2, 1] and ids.starts.tolist() == [0, 2, 2, 3]
    torch.autograd.backward(
        [rows, gates],
        [
            torch.tensor([[1.0, 2], [3, 4], [5, 6]], device=device),
            torch.tensor([7.0, 8, 9], device=device),
        ],
    )
    assert hidden_states.grad.tolist() == [[6, 8], [0, 0], [3, 4]]
    assert probs.grad.tolist() == [[7, 9], [0, 0], [8, 0]]
    rows = torch.tensor([[1.0, 2], [3, 4], [5, 6]], device=device, requires_grad=True)
    output = back(rows, ids)
    assert output.tolist() == [[6, 8], [0, 0], [3, 4]]
    output.backward(torch.tensor([[1.0, 2], [3, 4], [5, 6]], device=device))
    assert rows.grad.tolist() == [[1, 2], [5, 6], [1, 2]]


@pytest.mark.parametrize(
    ("content", "dtype"),
    [*((content, torch.float32) for content in CONTENTS), ("ragged", torch.bfloat16)],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_the_reference(size, dtype, content, device):
    case = make_case(size, content, dtype, device)
    ours, theirs = (
        run((permute, unpermute), case),
        run((permute_reference, unpermute_reference), case),
    )
    in_fp64 = run(
        (permute_reference, unpermute_reference),
        [case[0].double(), case[1].double(), case[2], case[3].double()],
    )
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype and value.shape == theirs[name].shape, name
        if name in ("output", "hidden_states", "probs"):
            errors = [(x[name].double() - in_fp64[name]).abs().sum() for x in (ours, theirs)]
            assert errors[0] <= TIMES_THE_REFERENCE * errors[1] + 1e-12, name
        else:
            assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("surplus", [1, 20])
@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_rows_to_spare_change_nothing(size, surplus, device):
    """Garbage in absent rows, forward and backward, reaches no token and no gate."""
    case = make_case(size, device=device)
    expected, num_rows = run((permute, unpermute), case), int(case[2].sum())
    leaves = [x.clone().requires_grad_() for x in case[:2]]
    rows, gates, ids = permute(*leaves, case[2], num_rows + surplus)
    weighted = rows * gates.unsqueeze(1)
    garbage = torch.full_like(weighted[num_rows:], torch.nan)
    output = unpermute(torch.cat([weighted[:num_rows], garbage]), ids)
    assert torch.equal(output, expected["output"])
    torch.autograd.backward([output, rows, gates], [case[3], *absent(rows, gates, num_rows)])
    assert torch.equal(leaves[0].grad, expected["hidden_states"])
    assert torch.equal(leaves[1].grad, expected["probs"])
    assert ids.tokens[num_rows:].tolist() == [size[0]] * surplus


def absent(rows, gates, num_rows):
    """Gradients that are NaN for absent rows and zero for the others."""
    gradients = torch.zeros_like(rows), torch.zeros_like(gates)
    for gradient in gradients:
        gradient[num_rows:] = torch.nan
    return gradients


@pytest.mark.parametrize("num_rows", [0, 1, 40])
def test_too_few_rows_hold_the_first_pairs_and_the_rest_is_left_out(num_rows, device):
    case = make_case((32, 8, 20), device=device)
    ours, theirs = (
        run(ops, case, num_rows)
        for ops in ((permute, unpermute), (permute_reference, unpermute_reference))
    )
    for name in ("rows", "gates", "tokens", "pairs", "rows_by_token", "starts"):
        assert torch.equal(ours[name], theirs[name]), name
    for name in ("output", "hidden_states", "probs"):
        torch.testing.assert_close(ours[name], theirs[name])


def test_it_gives_the_same_bits_again(device):
    case = make_case((32, 8, 20), device=device)
    first, second = (run((permute, unpermute), case) for _ in range(2))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("used", ["rows", "gates"])
def test_either_gradient_may_be_missing(used, device):
    hidden_states, probs, routing_map, _ = make_case((7, 5, 3), device=device)
    leaves = hidden_states.requires_grad_(), probs.requires_grad_()
    rows, gates, _ = permute(*leaves, routing_map, int(routing_map.sum()))
    {"rows": rows, "gates": gates}[used].sum().backward()
    counts = routing_map.sum(1, keepdim=True).float()
    expected = {"rows": (counts.expand(-1, 3), 0.0), "gates": (0.0, routing_map.float())}[used]
    for leaf, gradient in zip(leaves, expected, strict=True):
        assert torch.equal(leaf.grad, torch.zeros_like(leaf) + gradient)


def test_a_frozen_side_gets_no_gradient(device):
    hidden_states, probs, routing_map, _ = make_case((7, 5, 3), device=device)
    rows, gates, ids = permute(
        hidden_states, probs.requires_grad_(), routing_map, int(routing_map.sum())
    )
    unpermute(rows * gates.unsqueeze(1), ids).sum().backward()
    assert hidden_states.grad is None and probs.grad is not None


def test_inputs_and_gradients_need_not_be_contiguous(device):
    case = make_case((32, 8, 20), device=device)
    strided = [x.T.contiguous().T for x in case]
    assert not strided[0].is_contiguous()
    ours, theirs = run((permute, unpermute), strided), run((permute, unpermute), case)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_the_kernels_run_where_they_should(device):
    asked = IS_INTERPRETED or device == "cuda"
    assert (triton_kernels(torch.zeros(1, device=device), "permute_triton") is not None) == asked


def test_the_host_reads_nothing(host_reads):
    if IS_INTERPRETED:
        pytest.skip("the interpreter reads everything")
    case = make_case((32, 8, 20))
    with host_reads:
        run((permute, unpermute), case, num_rows=300)
    assert host_reads.names == []
