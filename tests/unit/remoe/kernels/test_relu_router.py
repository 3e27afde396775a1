"""The fused router against a case worked by hand and against its reference.

`test_relu_router_triton.py` runs this file once more with the Triton kernels, in their interpreter.

Three tokens, four experts; g is the gradient of the gate values, c that of their sums:

    logits           probs            g              (g + c) on active pairs
    t0  .5 -1  2  0     .5  0  2  0      1  2  3  4     11  0 33  0
    t1 -.3 -.2 1 -4      0  0  1  0      5  6  7  8      0  0 37  0     as padding:  0 0 7 0
    t2 -1 -1 -1 -1       0  0  0  0      9  9  9  9      0  0  0  0
    sums                .5  0  3  0      c = 10 20 30 40
"""

from itertools import product

import pytest
import torch

from remoe import expert_load, l1_loss, l1_loss_of_sums, relu_router, relu_routing, routing_counts
from remoe.kernels import relu_router as module
from remoe.kernels.choice import triton_kernels
from remoe.kernels.relu_router import relu_router_reference
from triton_interpreter import IS_INTERPRETED

LOGITS = [[0.5, -1.0, 2.0, 0.0], [-0.3, -0.2, 1.0, -4.0], [-1.0, -1.0, -1.0, -1.0]]
GRAD_PROBS = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0] * 4]
GRAD_SUMS = [10.0, 20.0, 30.0, 40.0]

RTOL_SUM = 2e-6  # fp32 sums of positive numbers in another order
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SIZES = [
    # tokens, experts
    (0, 8),  # no token
    (1, 1),  # the least there is
    (1, 8),  # one token
    (7, 5),  # no power of two, no multiple of eight
    (33, 24),  # several words a row, an odd number of rows
    (512, 8),  # more tokens than a byte counts
    (3, 512),  # the most experts that are supported
]
CONTENTS = {
    "ragged": lambda x: x,
    "all active": lambda x: x.abs() + 0.1,
    "none active": lambda x: -x.abs(),
    "zeros": torch.zeros_like,  # a logit of exactly 0 is inactive
}
PADDING = {"no mask": None, "no padding": 0.0, "some padding": 0.4, "all padding": 1.0}

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, GPU])])
def device(request):
    return request.param


def make_case(num_tokens, num_experts, content, padding, dtype=torch.float32, device="cpu"):
    """Logits, mask, and the gradients of both differentiable outputs."""
    generator = torch.Generator().manual_seed(num_tokens * num_experts)
    logits = torch.randn(num_tokens, num_experts, generator=generator)
    grad_probs = torch.randn(num_tokens, num_experts, generator=generator)
    grad_sums = torch.randn(num_experts, generator=generator)
    mask = None
    if PADDING[padding] is not None:
        mask = (torch.rand(num_tokens, generator=generator) < PADDING[padding]).to(device)
    logits = CONTENTS[content](logits).to(device, dtype)
    return logits, mask, grad_probs.to(device, dtype), grad_sums.to(device)


def run(op, logits, mask, grad_probs, grad_sums):
    """All outputs and the gradient of the logits."""
    leaf = logits.clone().requires_grad_()
    probs, routing_map, counts, sums = op(leaf, mask)
    torch.autograd.backward([probs, sums], [grad_probs, grad_sums])
    return probs.detach(), routing_map, counts, sums.detach(), leaf.grad


def assert_alike(ours, theirs):
    for mine, other in zip(ours[:3], theirs[:3], strict=True):
        assert mine.dtype == other.dtype and torch.equal(mine, other)
    torch.testing.assert_close(ours[3], theirs[3], rtol=RTOL_SUM, atol=0.0)


def assert_gradient(ours, theirs, logits, mask, grad_probs, grad_sums):
    """No further from the gradient in fp64 than twice the reference; inactive pairs exactly 0."""
    constant = grad_sums.double().expand(logits.shape)
    if mask is not None:
        constant = constant.masked_fill(mask.unsqueeze(1), 0.0)
    truth = (grad_probs.double() + constant) * (logits > 0)
    assert ours.dtype == logits.dtype and not ours[logits <= 0].any()
    errors = [(g.double() - truth).abs().sum().item() for g in (ours, theirs)]
    assert errors[0] <= 2 * errors[1] + 1e-12


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", [relu_router, relu_router_reference])
def test_the_case_worked_by_hand(op, dtype, device):
    logits = torch.tensor(LOGITS, dtype=dtype, device=device)
    gradients = torch.tensor(GRAD_PROBS, dtype=dtype), torch.tensor(GRAD_SUMS)
    probs, routing_map, counts, sums, grad = run(
        op, logits, None, *(g.to(device) for g in gradients)
    )
    assert probs.dtype == dtype
    assert probs.tolist() == [[0.5, 0, 2, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert routing_map.tolist() == [[1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert counts.tolist() == [1, 0, 2, 0, 3, 1]
    assert sums.dtype == torch.float32 and sums.tolist() == [0.5, 0, 3, 0]
    assert grad.tolist() == [[11, 0, 33, 0], [0, 0, 37, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("op", [relu_router, relu_router_reference])
def test_padding_is_routed_but_neither_counted_nor_given_the_constant(op, device):
    logits, mask = torch.tensor(LOGITS, device=device), torch.tensor([False, True, False])
    gradients = torch.tensor(GRAD_PROBS), torch.tensor(GRAD_SUMS)
    _, routing_map, counts, sums, grad = run(
        op, logits, mask.to(device), *(g.to(device) for g in gradients)
    )
    assert routing_map[1].tolist() == [0, 0, 1, 0]
    assert counts.tolist() == [1, 0, 1, 0, 2, 1]
    assert sums.tolist() == [0.5, 0, 2, 0]
    assert grad.tolist() == [[11, 0, 33, 0], [0, 0, 7, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(("num_tokens", "num_experts"), SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_is_the_reference(num_tokens, num_experts, dtype, device):
    cases = product(CONTENTS, PADDING) if dtype == torch.float32 else [("ragged", "some padding")]
    for content, padding in cases:
        case = make_case(num_tokens, num_experts, content, padding, dtype, device)
        ours, theirs = run(relu_router, *case), run(relu_router_reference, *case)
        assert_alike(ours, theirs)
        assert_gradient(ours[4], theirs[4], *case)


def test_the_kernels_run_where_they_should(device):
    asked = IS_INTERPRETED or device == "cuda"
    kernels = triton_kernels(torch.zeros(1, 1, device=device), "relu_router_triton")
    assert (kernels is not None) == asked


@pytest.mark.parametrize("load_balancing", [True, False], ids=["eq. 10", "eq. 9"])
def test_the_loss_of_the_sums_is_the_loss_of_the_gate_values(load_balancing, device):
    logits = torch.randn(48, 16, generator=torch.Generator().manual_seed(0)).to(device)
    leaves = [logits.clone().requires_grad_() for _ in range(2)]
    _, _, counts, sums = relu_router(leaves[0])
    probs, routing_map = relu_routing(leaves[1])
    loads = [None, None]
    if load_balancing:
        loads = [expert_load(c, 2, 48) for c in (counts[:16], routing_map.sum(0))]
    ours, theirs = l1_loss_of_sums(sums, counts[16], loads[0]), l1_loss(probs, loads[1])
    torch.testing.assert_close(ours, theirs, rtol=RTOL_SUM, atol=0.0)
    (0.3 * ours).backward()
    (0.3 * theirs).backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=RTOL_SUM, atol=0.0)


@pytest.mark.parametrize("used", [["probs"], ["sums"], ["probs", "sums"]], ids=" and ".join)
def test_either_gradient_may_be_missing(used, device):
    case = make_case(9, 8, "ragged", "some padding", device=device)
    gradients = []
    for op in (relu_router, relu_router_reference):
        leaf = case[0].clone().requires_grad_()
        probs, _, _, sums = op(leaf, case[1])
        losses = {"probs": (probs * case[2]).sum(), "sums": (sums * case[3]).sum()}
        sum(losses[name] for name in used).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_logits_and_gradients_need_not_be_contiguous(device):
    logits, mask, grad_probs, grad_sums = make_case(16, 8, "ragged", "some padding", device=device)
    strided = (logits.T.contiguous().T, mask, grad_probs.T.contiguous().T, grad_sums)
    assert not strided[0].is_contiguous()
    for mine, other in zip(
        run(relu_router, *strided),
        run(relu_router, logits, mask, grad_probs, grad_sums),
        strict=True,
    ):
        assert torch.equal(mine, other)


def test_a_row_of_nan_is_seen_and_sent_nowhere(device):
    logits = torch.ones(2, 8, device=device)
    logits[0, 3] = torch.nan
    for op in (relu_router, relu_router_reference):
        probs, routing_map, counts, sums = op(logits)
        assert probs[0, 3].isnan() and sums[3].isnan()
        assert not routing_map[0, 3] and counts.tolist() == [2, 2, 2, 1, 2, 2, 2, 2, 2, 0]


def test_a_subnormal_gate_is_active(device):
    logits = torch.tensor([[6e-8] + [-1.0] * 7], dtype=torch.float16, device=device)
    probs, routing_map, counts, _ = relu_router(logits)
    assert probs[0, 0] > 0 and routing_map[0, 0] and counts[0] == 1 and counts[9] == 0


@pytest.mark.parametrize("num_experts", [2040, 2048])
def test_no_row_of_words_adds_up_to_nothing(num_experts):
    """Every eighth expert is the highest byte of a word: 256 of them would carry out of it."""
    routing_map = torch.zeros(1, num_experts, dtype=torch.bool)
    routing_map[:, 7::8] = True
    assert torch.equal(module._count(routing_map, None), routing_counts(routing_map))


def test_it_gives_the_same_bits_again(device):
    case = make_case(512, 8, "ragged", "some padding", device=device)
    for first, second in zip(run(relu_router, *case), run(relu_router, *case), strict=True):
        assert torch.equal(first, second)


def test_counts_and_map_take_no_part_in_gradients(device):
    logits, mask, *_ = make_case(9, 8, "ragged", "some padding", device=device)
    probs, routing_map, counts, sums = relu_router(logits.requires_grad_(), mask)
    assert probs.requires_grad and sums.requires_grad
    assert not routing_map.requires_grad and not counts.requires_grad


def test_the_host_reads_nothing(host_reads):
    if IS_INTERPRETED:
        pytest.skip("the interpreter reads everything")
    case = make_case(64, 8, "ragged", "some padding")
    with host_reads:
        run(relu_router, *case)
        run(relu_router, case[0], None, *case[2:])
    assert host_reads.names == []
