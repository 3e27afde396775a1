"""A ReMoE layer of Megatron and the reference layer with the same weights, for parity tests.

Weights and tokens are made so that the router produces a routing map that the test chose, and all
results have one set of names: `output`, `hidden_states`, `router`, `expert 0 fc1`, `expert 0 fc2`, ...
"""

import torch
import torch.nn.functional as F

from remoe.reference import ReferenceReMoELayer

FFN = 24
# Of the largest element of a tensor. fp32 sums in another order differ by a few 1e-7 of it.
RELATIVE_ERROR = {torch.float32: 3e-6, torch.float64: 1e-12}
LAMBDA = 0.5  # large, so that a wrong regulariser shows in every gradient


def make_config(num_experts=8, topk=2, hidden=32, dtype=torch.float32, **changes):
    """A `ReMoETransformerConfig` of one layer with SwiGLU experts, for the `local` spec."""
    from megatron.remoe.config import ReMoETransformerConfig

    options = {
        "num_layers": 1,
        "hidden_size": hidden,
        "num_attention_heads": 2,
        "ffn_hidden_size": 4 * hidden,
        "moe_ffn_hidden_size": FFN,
        "num_moe_experts": num_experts,
        "moe_router_topk": topk,
        "moe_router_load_balancing_type": "none",
        "moe_router_pre_softmax": True,
        "moe_token_dispatcher_type": "alltoall",
        "moe_relu_l1_reg_coeff_init": LAMBDA,
        "add_bias_linear": False,
        "gated_linear_unit": True,
        "activation_func": F.silu,
        "bias_activation_fusion": False,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "use_cpu_initialization": True,
        "transformer_impl": "local",
        "bf16": dtype == torch.bfloat16,
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
    }
    return ReMoETransformerConfig(**{**options, **changes})


def build_layer(config, layer_number=1):
    """The MoE layer that the project's layer spec gives, by the call that `TransformerLayer` makes.

    Its experts are torch's grouped ones where the configuration has `moe_grouped_gemm`.
    """
    from megatron.core.transformer.moe.moe_utils import get_default_pg_collection
    from megatron.training.models.gpt import GPTModelConfig, default_layer_spec

    from megatron.remoe.layer_specs import remoe_layer_spec, torch_native_layer_spec

    base = torch_native_layer_spec if config.moe_grouped_gemm else default_layer_spec
    block = remoe_layer_spec(GPTModelConfig(transformer=config), base=base)
    build = block.layer_specs[0].submodules.mlp
    groups = get_default_pg_collection()
    layer = build(config=config, pg_collection=groups, is_mtp_layer=False, name="mlp")
    layer.set_layer_number(layer_number)
    return layer


class RouterStack(torch.nn.Module):
    """MoE layers as the step hook sees them: routers that count."""

    def __init__(self, config, layer_numbers=(1, 2)):
        super().__init__()
        self.layers = torch.nn.ModuleList(build_layer(config, n) for n in layer_numbers)

    def forward(self, active):
        """Route a micro-batch in every layer: one token for each entry, `active` experts each."""
        for layer in self.layers:
            experts = torch.arange(layer.config.num_moe_experts)
            is_active = experts < torch.tensor(active).unsqueeze(1)
            layer.router.routing(torch.where(is_active, 1.0, -1.0).unsqueeze(1))


def make_reference(num_experts, topk, hidden=32, seed=0, load_balancing=True):
    torch.manual_seed(seed)
    return ReferenceReMoELayer(hidden, FFN, num_experts, topk, load_balancing)


def tokens_for_map(reference, routing_map, seed=0):
    """Tokens ``[T, hidden]`` that `reference`'s router sends exactly where `routing_map` says.

    Solves ``x W^T = logits``; the logits keep clear of zero so that bf16 rounds none across it.
    """
    generator = torch.Generator().manual_seed(seed)
    size = torch.rand(routing_map.shape, generator=generator) + 0.5
    logits = torch.where(routing_map, size, -size)
    with torch.no_grad():
        return logits @ torch.linalg.pinv(reference.router).T


def by_expert(experts, read):
    """What `read` gives for the fc1 and the fc2 weight of each expert, of either kind of experts."""
    if hasattr(experts, "weight1"):
        return list(zip(read(experts.weight1), read(experts.weight2), strict=True))
    return [(read(e.linear_fc1.weight), read(e.linear_fc2.weight)) for e in experts.local_experts]


def written_by(experts, offsets=()):
    """What is written, by key and place, and from which tensor (None: an object that holds nothing)."""
    from megatron.core.dist_checkpointing.mapping import apply_factories

    state = experts.sharded_state_dict("mlp.experts.", offsets, {"dp_cp_group": experts.dp_group})
    apply_factories(state)
    found = {}
    for value in state.values():
        for piece in value if isinstance(value, list) else [value]:
            where = (piece.key, piece.global_shape, piece.global_offset, piece.replica_id)
            if piece.data is not None:
                where += (piece.local_shape, piece.prepend_axis_num, piece.axis_fragmentations)
            assert where not in found
            found[where] = piece.data
    return found


def copy_weights(reference, layer):
    """Give `layer`, which may hold a part of the experts, the weights of `reference`."""
    with torch.no_grad():
        layer.router.weight.copy_(reference.router)
        weights = by_expert(layer.experts, lambda weight: weight)
        for index, (fc1, fc2) in zip(layer.local_expert_indices, weights, strict=True):
            fc1.copy_(torch.cat([reference.gate[index], reference.up[index]]))
            fc2.copy_(reference.down[index])


def run_layer(layer, tokens, direction, batch=2):
    """Forward and backward of ``sum(output * direction) + lambda * L_reg``.

    Args:
        layer: Megatron's, in training mode.
        tokens: ``[T, hidden]``; given to the layer as ``[T / batch, batch, hidden]``.
        direction: ``[T, hidden]``.
    """
    hidden_states = tokens.view(-1, batch, tokens.shape[1]).clone().requires_grad_()
    output, bias = layer(hidden_states)
    assert bias is None and output.shape == hidden_states.shape
    (output.view_as(tokens) * direction).sum().backward()
    results = {"output": output.detach().reshape(tokens.shape)}
    results["hidden_states"] = hidden_states.grad.reshape(tokens.shape)
    results["router"] = layer.router.weight.grad
    gradients = by_expert(layer.experts, lambda weight: weight.grad)
    for index, (fc1, fc2) in zip(layer.local_expert_indices, gradients, strict=True):
        results[f"expert {index} fc1"], results[f"expert {index} fc2"] = fc1, fc2
    return results


def run_reference(reference, tokens, direction, coeff=LAMBDA):
    """The same for the reference, under the same names."""
    reference.zero_grad()
    tokens = tokens.clone().requires_grad_()
    output, _, _, loss = reference(tokens)
    ((output * direction).sum() + coeff * loss).backward()
    results = {"output": output.detach(), "hidden_states": tokens.grad}
    results["router"] = reference.router.grad.clone()
    for index in range(reference.gate.shape[0]):
        fc1 = torch.cat([reference.gate.grad[index], reference.up.grad[index]])
        results[f"expert {index} fc1"] = fc1
        results[f"expert {index} fc2"] = reference.down.grad[index].clone()
    return results


def ragged(num_tokens, num_experts, seed=0):
    """Half of all pairs, but token 0 has no expert, token 1 all of them and token 2 one."""
    generator = torch.Generator().manual_seed(seed)
    routing_map = torch.rand(num_tokens, num_experts, generator=generator) < 0.5
    routing_map[0], routing_map[1], routing_map[2] = False, True, False
    routing_map[2, num_experts // 2] = True
    return routing_map


def assert_parity(ours, theirs, dtype=torch.float32):
    """Every tensor of `theirs` is there and equal; where it is zero, exactly so."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name] is not None, f"{name} has no gradient"
        allowed = RELATIVE_ERROR[dtype] * expected.abs().max().item() if expected.numel() else 0.0
        difference = (ours[name] - expected).abs().max().item() if expected.numel() else 0.0
        assert difference <= allowed, f"{name}: differs by {difference}, allowed {allowed}"
