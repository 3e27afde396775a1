"""A layer of experts against the plain reference layer: forward, every gradient, and the edges."""

import pytest
import torch

from hf_models import tiny_config
from remoe.hf.experts_remoe import ReMoEExperts, grouped_mm, has_grouped_mm, loop_of_mm
from remoe.hf.router_remoe import ReMoESparseBlock, relu_routing
from remoe.reference import ReferenceReMoELayer

IMPLEMENTATIONS = ["grouped_mm", "loop"]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}  # fp32: the order of sums alone differs


def block(implementation="grouped_mm", reference=None, **settings):
    torch.manual_seed(0)
    config = tiny_config(**settings)
    config._experts_implementation = implementation
    layer = ReMoESparseBlock(config, 0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    if reference is not None:
        with torch.no_grad():
            layer.router.weight.copy_(reference.router)
            layer.experts.gate_up_proj.copy_(torch.cat((reference.gate, reference.up), dim=1))
            layer.experts.down_proj.copy_(reference.down)
    return layer


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("load_balancing", [True, False], ids=["eq. 10", "eq. 9"])
@pytest.mark.parametrize("num_tokens", [1, 2, 33])
def test_output_loss_and_every_gradient_are_the_references(
    implementation, load_balancing, num_tokens
):
    torch.manual_seed(num_tokens)
    reference = ReferenceReMoELayer(32, 16, 4, topk=2, load_balancing=load_balancing)
    layer = block(implementation, reference, num_experts_per_tok=2, load_balancing=load_balancing)
    layer.router.reg_coeff.fill_(0.5)
    x = torch.randn(num_tokens, 32, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    wanted, _, routing_map, wanted_loss = reference(x)
    output, _, loss, counts = layer(y[None], is_counted=True)
    torch.testing.assert_close(output[0], wanted, **TOLERANCE)
    torch.testing.assert_close(loss, 0.5 * wanted_loss, **TOLERANCE)
    assert torch.equal(counts[:-1], routing_map.sum(dim=0)) and counts[-1] == num_tokens
    wanted.square().sum().add(0.5 * wanted_loss).backward()
    output.square().sum().add(loss).backward()
    gate, up = layer.experts.gate_up_proj.grad.chunk(2, dim=1)
    for got, of in (
        (y.grad, x.grad),
        (layer.router.weight.grad, reference.router.grad),
        (gate, reference.gate.grad),
        (up, reference.up.grad),
        (layer.experts.down_proj.grad, reference.down.grad),
    ):
        torch.testing.assert_close(got, of, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("threshold", "wanted"),
    [
        (0.0, [0.0, 0.0, 0.25, 1.0]),
        (0.25, [0.0, 0.0, 0.0, 1.0]),  # a logit at the threshold is off; one above keeps its value
        (-0.5, [0.0, 0.5, 0.75, 1.5]),  # ReLU(logits + 0.5)
    ],
)
def test_threshold_of_a_hand_worked_row(threshold, wanted):
    probs, routing_map = relu_routing(torch.tensor([[-1.0, 0.0, 0.25, 1.0]]), threshold)
    assert torch.equal(probs, torch.tensor([wanted]))
    assert torch.equal(routing_map, probs > 0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_tokens_without_an_expert_get_zeros_and_the_gradients_exist(implementation):
    layer = block(implementation)
    with torch.no_grad():
        layer.router.weight.fill_(-1.0)
    x = torch.rand(1, 5, 32, requires_grad=True)  # positive: every logit is negative
    output, logits, loss, counts = layer(x, is_counted=True)
    assert torch.equal(output, torch.zeros_like(output)) and (logits < 0).all()
    assert counts.tolist() == [0, 0, 0, 0, 5] and loss == 0
    (output.sum() + loss).backward()
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in layer.parameters())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_all_experts_active_is_a_sum_over_all(implementation):
    reference = ReferenceReMoELayer(32, 16, 4)
    with torch.no_grad():
        reference.router.abs_()
    x = torch.rand(1, 6, 32)
    output, _, _, counts = block(implementation, reference)(x, is_counted=True)
    assert counts.tolist() == [6, 6, 6, 6, 6]
    torch.testing.assert_close(output[0], reference(x[0])[0], **TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_and_loop_agree_in_values_and_gradients(dtype):
    torch.manual_seed(0)
    lengths = torch.tensor([3, 0, 5, 1])
    rows, weight = torch.randn(9, 32), torch.randn(4, 24, 32)
    results = []
    for multiply in (grouped_mm, loop_of_mm):
        r, w = (t.to(dtype, copy=True).requires_grad_() for t in (rows, weight))
        product = multiply(r, w, lengths)
        product.sum().backward()  # an expanded gradient
        results.append((product, r.grad, w.grad))
    exact = torch.cat(
        [x @ w.t() for x, w in zip(rows.split(lengths.tolist()), weight, strict=True)]
    )
    tolerance = TOLERANCE if dtype == torch.float32 else {"rtol": 2e-2, "atol": 5e-2}
    torch.testing.assert_close(results[0][0].float(), exact, **tolerance)
    for grouped, looped in zip(*results, strict=True):
        torch.testing.assert_close(grouped, looped, **tolerance)
    assert results[0][2][1].count_nonzero() == 0  # the expert without rows


@pytest.mark.parametrize(
    ("dtype", "widths", "takes"),
    [
        (torch.float32, (32, 16), True),
        (torch.float32, (32, 15), False),  # 60 bytes
        (torch.bfloat16, (32, 12), False),  # 24 bytes
        (torch.float64, (32, 16), False),
    ],
)
def test_grouped_mm_is_left_where_torch_takes_it_not(dtype, widths, takes):
    assert has_grouped_mm(dtype, *widths) is takes


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_float64_and_odd_widths_run(implementation):
    layer = block(implementation, moe_intermediate_size=15).double()
    x = torch.randn(1, 7, 32, dtype=torch.float64)
    assert layer(x)[0].dtype == torch.float64


def test_router_stays_fp32_in_a_bf16_model_and_under_autocast():
    layer, x = block().bfloat16(), torch.randn(1, 8, 32, dtype=torch.bfloat16)
    exact = x[0].float() @ layer.router.weight.float().t()
    assert torch.equal(layer(x)[1], exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, logits, *_ = block()(x)
    assert logits.dtype == torch.float32 and output.dtype == torch.bfloat16


def test_bf16_error_is_at_most_twice_that_of_plain_pytorch():
    reference = ReferenceReMoELayer(32, 16, 4)
    x = torch.randn(64, 32)
    exact = reference(x)[0]
    in_bf16 = ReferenceReMoELayer(32, 16, 4)
    in_bf16.load_state_dict(reference.state_dict())
    plain = in_bf16.bfloat16()(x.bfloat16())[0]
    ours = block(reference=reference, router_dtype=None).bfloat16()(x.bfloat16()[None])[0][0]
    assert (ours - exact).abs().max() <= 2 * (plain - exact).abs().max()


def test_gated_shared_expert_is_added():
    settings = {"shared_expert_intermediate_size": 24, "shared_expert_gate": True}
    layer, x = block(**settings), torch.randn(1, 7, 32)
    routed = layer.experts(x[0], *layer.router(x[0])[1:])
    shared = layer.shared_expert
    wanted = shared.down_proj(
        torch.nn.functional.silu(shared.gate_proj(x)) * shared.up_proj(x)
    ) * torch.sigmoid(x @ layer.shared_expert_gate.weight.t())
    torch.testing.assert_close(layer(x)[0], routed + wanted, **TOLERANCE)


def test_experts_of_no_rows_at_all():
    experts = ReMoEExperts(tiny_config())
    experts.config._experts_implementation = "loop"
    nothing = torch.zeros(0, 4)
    assert experts(torch.zeros(0, 32), nothing, nothing > 0).shape == (0, 32)
