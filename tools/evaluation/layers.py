"""What of a model costs: its MoE layers and its matrices, found alike in both checkpoint forms.

An MoE layer is a module with `experts` and a router beside them: `router` in Megatron's models and in
ReMoE's, `gate` in the stock ones of transformers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

_ROUTERS = ("router", "gate")
# Looked up, or counted at the true vocabulary: in Llama's names, Megatron's and GPT-2's.
_VOCABULARY = ("embed", "lm_head", "output_layer", "wte.", "wpe.")


@dataclass(frozen=True)
class MoELayer:
    """A layer with experts.

    Attributes:
        name: Of the module.
        router: Its output ends in the routing map, or in the indices of the chosen experts.
        num_experts: E.
        flops_per_expert: Forward FLOPs of one expert for one token: 2 per weight.
    """

    name: str
    router: nn.Module
    num_experts: int
    flops_per_expert: int


def find_moe_layers(model: nn.Module) -> list[MoELayer]:
    """The MoE layers of a model, in order."""
    layers = []
    for name, module in model.named_modules():
        children = dict(module.named_children())
        router = next((children[key] for key in _ROUTERS if key in children), None)
        if "experts" in children and router is not None:
            # A router that learns nothing, as hash, has no weight.
            num_experts = router.num_experts if router.weight is None else len(router.weight)
            weights = sum(parameter.numel() for parameter in _matrices(children["experts"]))
            layers.append(MoELayer(name, router, num_experts, 2 * weights // num_experts))
    return layers


def flops_of_every_token(model: nn.Module, moe_layers: list[MoELayer]) -> int:
    """Forward FLOPs that any token costs: all but experts and attention scores.

    Two for each weight of a matrix; the output layer at the true vocabulary, whether it is tied to the
    embedding or padded. Norms, activations and softmax are left out.
    """
    # A stock architecture may have a shared expert of width 0, and a gate for it that changes nothing.
    idle = [f"{name}_gate." for name, module in model.named_modules() if _is_empty(module)]
    experts = [f"{layer.name}.experts." for layer in moe_layers]
    weights = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
        and not name.startswith((*experts, *idle))
        and not any(part in name for part in _VOCABULARY)
    )
    return 2 * (weights + model.config.vocab_size * model.config.hidden_size)


def flops_of_a_score(model: nn.Module) -> int:
    """Forward FLOPs for a token that attends to one: ``4 * heads * head_dim`` a layer.

    Two for a weight of the score, two for that of the value; the tokens after it are not counted.
    """
    if hasattr(model, "stored"):  # Megatron's form, whose configuration has not the heads
        args = model.stored.args
        return 4 * args.num_layers * args.num_attention_heads * args.kv_channels
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 4 * config.num_hidden_layers * config.num_attention_heads * head_dim


def _matrices(module: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for parameter in module.parameters() if parameter.dim() > 1)


def _is_empty(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and all(parameter.numel() == 0 for parameter in parameters)
