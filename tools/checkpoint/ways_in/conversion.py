"""Makes a ReMoE model of a dense or a TopK model; its routers are fitted to recorded hidden states."""

import torch
from torch import Tensor

from remoe.calibration import RouterFit, fit_relu_router, fit_router_to_clusters
from remoe.hf import ReMoEConfig, ReMoEForCausalLM
from ways_in.families import dense_settings, topk_gates, topk_settings
from ways_in.measuring import record_inputs

# For a fit that is not tuned: near where the controller takes it, which costs less than a climb from
# smaller values (experiments/ways_in).
REG_COEFF_INIT = 1e-2


def remoe_from_dense(
    model, sequences: Tensor, num_experts: int, topk: int, active: float
) -> tuple[ReMoEForCausalLM, list[RouterFit]]:
    """Each layer's gated unit as `num_experts` copies, behind a router whose gates sum to about one.

    Args:
        model: Llama or Qwen3.
        sequences: To calibrate on, ``[num_sequences, sequence_length]``.
        num_experts: ``E``.
        topk: Target of the controller.
        active: Mean active experts to start from.

    Returns:
        The new model, and the fit of each layer.
    """
    settings = dense_settings(model.config, num_experts, topk)
    config = ReMoEConfig(**settings, reg_coeff_init=REG_COEFF_INIT)
    blocks = [layer.mlp for layer in model.model.layers]
    generator = torch.Generator().manual_seed(0)
    fits = [
        fit_router_to_clusters(hidden_states, num_experts, active, generator)
        for hidden_states in record_inputs(model, blocks, sequences)
    ]
    state = {name: value for name, value in model.state_dict().items() if ".mlp." not in name}
    for i, (block, fit) in enumerate(zip(blocks, fits, strict=True)):
        unit = torch.cat((block.gate_proj.weight, block.up_proj.weight))
        state[f"model.layers.{i}.mlp.experts.gate_up_proj"] = unit.expand(num_experts, -1, -1)
        down = block.down_proj.weight.expand(num_experts, -1, -1)
        state[f"model.layers.{i}.mlp.experts.down_proj"] = down
        state[f"model.layers.{i}.mlp.router.weight"] = fit.weight
    return _build(config, state, model), fits


def remoe_from_topk(
    model, sequences: Tensor, active: float
) -> tuple[ReMoEForCausalLM, list[RouterFit]]:
    """The experts of a TopK model as they are, behind ReLU routers that follow its gates.

    Args:
        model: Mixtral, OLMoE, Qwen2Moe or Qwen3Moe.
        sequences: To calibrate on, ``[num_sequences, sequence_length]``.
        active: Mean active experts to start from.

    Returns:
        The new model, and the fit of each layer with experts.
    """
    settings = topk_settings(model.config)
    config = ReMoEConfig(**settings, reg_coeff_init=REG_COEFF_INIT)
    layers = [i for i in range(config.num_hidden_layers) if config.has_experts(i)]
    blocks = [model.model.layers[i].mlp for i in layers]
    state = dict(model.state_dict())
    fits = []
    for i, hidden_states in zip(layers, record_inputs(model, blocks, sequences), strict=True):
        router = state.pop(f"model.layers.{i}.mlp.gate.weight").float().cpu()
        gates = topk_gates(model.config, hidden_states @ router.T)
        fits.append(fit_relu_router(hidden_states, gates, active))
        state[f"model.layers.{i}.mlp.router.weight"] = fits[-1].weight
    _drop_empty_shared_experts(config, state)
    return _build(config, state, model), fits


def _drop_empty_shared_experts(config, state: dict[str, Tensor]) -> None:
    # Qwen2Moe has a shared expert always; a model that has none is written with one of zeros.
    downs = [name for name in state if name.endswith("mlp.shared_expert.down_proj.weight")]
    if config.shared_expert_intermediate_size and any(state[name].any() for name in downs):
        return
    config.shared_expert_intermediate_size, config.shared_expert_gate = None, False
    for name in [name for name in state if ".mlp.shared_expert" in name]:
        del state[name]


def _build(config, state: dict[str, Tensor], source) -> ReMoEForCausalLM:
    new = ReMoEForCausalLM(config)
    for i in range(config.num_hidden_layers):
        if config.has_experts(i):
            name = f"model.layers.{i}.mlp.router.reg_coeff"
            state[name] = torch.tensor(config.reg_coeff_init, dtype=torch.float32)
    if config.tie_word_embeddings:
        state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    new.load_state_dict(state)
    return new.to(device=source.device, dtype=source.dtype).eval()
