"""The reference layer against a still more naive one: a loop over tokens and experts, in fp64."""

import pytest
import torch

from remoe import relu_routing
from remoe.reference import ReferenceReMoELayer

# Both compute in fp64; only the order of sums differs. The L1 loss is summed in fp32 by design.
ATOL_FP64, ATOL_LOSS = 1e-12, 1e-6

LAYERS = [
    # tokens, hidden, ffn, experts, topk
    (1, 1, 1, 1, 1),  # the least there is
    (1, 4, 6, 4, 1),  # one token
    (5, 8, 4, 4, 1),
    (9, 8, 12, 8, 2),  # k > 1
    (6, 4, 4, 4, 4),  # target: all experts
]


def naive_layer(layer, tokens, load_balancing):
    """Eq. 1, 5, 8 to 11 written out token by token."""
    num_experts, num_tokens = layer.router.shape[0], tokens.shape[0]
    outputs, counts = [], [0] * num_experts
    gates = torch.zeros(num_tokens, num_experts, dtype=tokens.dtype)
    for t, x in enumerate(tokens):
        output = 0.0 * x
        for e in range(num_experts):
            logit = (x * layer.router[e]).sum()
            if logit.item() <= 0:
                continue
            counts[e] += 1
            gates[t, e] = logit
            gate, up = layer.gate[e] @ x, layer.up[e] @ x
            output = output + logit * (layer.down[e] @ (gate * torch.sigmoid(gate) * up))
        outputs.append(output)
    loss = 0.0
    for e, count in enumerate(counts):
        load = num_experts * count / (layer.topk * num_tokens) if load_balancing else 1.0
        loss = loss + load * gates[:, e].sum() / num_tokens
    return torch.stack(outputs), gates, loss


def gradients(layer, tokens, output, loss, direction):
    inputs = [tokens, *layer.parameters()]
    objective = (output * direction).sum() + 0.1 * loss
    return torch.autograd.grad(objective, inputs, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("load_balancing", [True, False], ids=["eq. 10", "eq. 9"])
@pytest.mark.parametrize(("num_tokens", "hidden", "ffn", "num_experts", "topk"), LAYERS)
def test_it_is_the_loop_over_tokens(num_tokens, hidden, ffn, num_experts, topk, load_balancing):
    torch.manual_seed(num_tokens)
    layer = ReferenceReMoELayer(hidden, ffn, num_experts, topk, load_balancing).double()
    tokens = torch.randn(num_tokens, hidden, dtype=torch.float64, requires_grad=True)
    output, probs, routing_map, loss = layer(tokens)
    naive_output, gates, naive_loss = naive_layer(layer, tokens, load_balancing)

    torch.testing.assert_close(output, naive_output, rtol=0, atol=ATOL_FP64)
    torch.testing.assert_close(probs, gates, rtol=0, atol=ATOL_FP64)
    assert torch.equal(routing_map, gates > 0)
    torch.testing.assert_close(loss.double(), naive_loss + 0.0 * loss, rtol=ATOL_LOSS, atol=1e-9)

    direction = torch.randn_like(output)
    ours = gradients(layer, tokens, output, loss, direction)
    theirs = gradients(layer, tokens, naive_output, naive_loss, direction)
    names = ["tokens", *(name for name, _ in layer.named_parameters())]
    for name, mine, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=ATOL_LOSS, msg=name)


def test_its_gradient_is_the_slope_of_its_output():
    """Against finite differences: eq. 1 is differentiable in tokens, router and experts."""
    torch.manual_seed(0)
    layer = ReferenceReMoELayer(4, 3, 4).double()
    tokens = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    logits = tokens @ layer.router.T
    assert logits.abs().min() > 1e-3, "no logit at the kink of ReLU"
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def output(tokens, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), tokens)[0]

    assert torch.autograd.gradcheck(output, (tokens, *parameters))


def test_a_token_without_an_expert_has_no_output_and_no_gradient():
    layer = ReferenceReMoELayer(4, 8, 4)
    with torch.no_grad():
        layer.router.copy_(torch.eye(4))
    tokens = torch.tensor([[-1.0, -2.0, -3.0, -4.0], [1.0, -1.0, -1.0, -1.0]], requires_grad=True)
    output, _, routing_map, loss = layer(tokens)
    assert routing_map.tolist() == [[False] * 4, [True, False, False, False]]
    assert torch.equal(output[0], torch.zeros(4))
    (output.sum() + loss).backward()
    assert torch.equal(tokens.grad[0], torch.zeros(4)) and tokens.grad[1].abs().sum() > 0
    for expert in range(1, 4):
        assert layer.down.grad[expert].abs().sum() == 0, "an expert without a token"


def test_the_gate_scales_the_output():
    """No normalisation: a router twice as large doubles the output."""
    layer = ReferenceReMoELayer(4, 8, 4)
    tokens = torch.randn(5, 4)
    before = layer(tokens)[0]
    with torch.no_grad():
        layer.router.mul_(2)
    torch.testing.assert_close(layer(tokens)[0], 2 * before)


def test_zero_tokens_pass_with_a_gradient_for_every_parameter():
    layer = ReferenceReMoELayer(4, 8, 4)
    output, probs, routing_map, loss = layer(torch.zeros(0, 4))
    (output.sum() + loss).backward()
    assert output.shape == (0, 4) and probs.shape == routing_map.shape == (0, 4)
    for parameter in layer.parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() == 0


def test_it_routes_by_the_function_that_users_call():
    layer, tokens = ReferenceReMoELayer(4, 8, 4), torch.randn(5, 4)
    _, probs, routing_map, _ = layer(tokens)
    expected = relu_routing(tokens @ layer.router.T)
    torch.testing.assert_close(probs, expected[0])
    assert torch.equal(routing_map, expected[1])
