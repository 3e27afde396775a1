"""The dictionary of names: which tensors of the one form are which of the other.

One table for both directions. A rule names one tensor of Megatron's form, as the layer (and expert) that
it belongs to would own it, and those of the Hugging Face form that hold the same numbers. How the
checkpoint stacks Megatron's over layers is left to `megatron_folder`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from megatron.remoe.conversion.architecture import Architecture
from megatron.remoe.conversion.families import family_of
from megatron.remoe.conversion.tensors import join_gate_up, join_qkv, split_gate_up, split_qkv

Shape = tuple[int, ...]

# Rows of the embeddings beyond the vocabulary: kept apart, so that they come back to the bit.
PADDING = "padding."
# As both forms name it where they may differ: Megatron's local layers keep it with the projection.
MLP_NORM = "pre_mlp_layernorm.weight"
REG_COEFF = "mlp.router.state.reg_coeff"


@dataclass(frozen=True)
class Place:
    """Where Megatron's form keeps a tensor.

    Attributes:
        name: In its layer, or in the model where it belongs to none.
        layer: From 0, over the whole model; None for one of no layer.
        expert: From 0; None for a tensor of no expert, or of all experts of the layer.
    """

    name: str
    layer: int | None = None
    expert: int | None = None

    def __str__(self) -> str:
        layer = "" if self.layer is None else f"decoder.layers.{self.layer}."
        expert = "" if self.expert is None else f" of expert {self.expert}"
        return f"{layer}{self.name}{expert}"


def _alone(tensor: Tensor) -> list[Tensor]:
    return [tensor]


def _only(tensors: Sequence[Tensor]) -> Tensor:
    (tensor,) = tensors
    return tensor


@dataclass(frozen=True)
class Rule:
    """One tensor of Megatron's form and the same numbers in the other.

    Attributes:
        place: In Megatron's form.
        shape: There.
        hf: Names and shapes in the Hugging Face form, in the order of `split`. Empty where its
            config.json holds the value.
        split: Megatron's tensor -> the others.
        join: Its inverse.
        is_state: A value of the controller: fp32 whatever the weights are.
    """

    place: Place
    shape: Shape
    hf: dict[str, Shape]
    split: Callable[[Tensor], Sequence[Tensor]] = _alone
    join: Callable[[Sequence[Tensor]], Tensor] = _only
    is_state: bool = False


def rules(model: Architecture) -> list[Rule]:
    """Every tensor of a model, in the order in which data passes them."""
    return list(_rules(model))


def constants(model: Architecture) -> dict[str, Shape]:
    """Names and shapes of what the Hugging Face architecture has and the model does not: zeros.

    Qwen2-MoE has a shared expert; of width 0 it adds nothing, whatever its gate is.
    """
    if family_of(model) != "qwen2_moe" or model.experts.shared_width:
        return {}
    found: dict[str, Shape] = {}
    for layer in range(model.num_layers):
        if model.has_experts(layer):
            found |= _shared_names(model, f"model.layers.{layer}.mlp.")
            found[f"model.layers.{layer}.mlp.shared_expert_gate.weight"] = (1, model.hidden_size)
    return found


def _rules(model: Architecture) -> Iterator[Rule]:
    yield _vocabulary("embedding.word_embeddings.weight", "model.embed_tokens.weight", model)
    for layer in range(model.num_layers):
        yield from _attention(layer, model)
        norm = f"model.layers.{layer}.post_attention_layernorm.weight"
        yield _same(Place(MLP_NORM, layer), norm, model.hidden_size)
        if model.has_experts(layer):
            yield from _moe_layer(layer, model)
        else:
            yield from _mlp(layer, "mlp.", f"model.layers.{layer}.mlp.", model.ffn_width, model)
    yield _same(Place("decoder.final_layernorm.weight"), "model.norm.weight", model.hidden_size)
    if not model.tied:
        yield _vocabulary("output_layer.weight", "lm_head.weight", model)


def _same(place: Place, hf: str, *shape: int) -> Rule:
    return Rule(place, shape, {hf: shape})


def _vocabulary(name: str, hf: str, model: Architecture) -> Rule:
    rows, width = model.padded_vocab_size, model.hidden_size
    if rows == model.vocab_size:
        return _same(Place(name), hf, rows, width)
    sizes = [model.vocab_size, rows - model.vocab_size]
    shapes = {hf: (sizes[0], width), PADDING + name: (sizes[1], width)}
    return Rule(
        Place(name),
        (rows, width),
        shapes,
        partial(torch.split, split_size_or_sections=sizes),
        torch.cat,
    )


def _attention(layer: int, model: Architecture) -> Iterator[Rule]:
    hf, width = f"model.layers.{layer}.", model.hidden_size
    heads, group = model.num_heads * model.head_dim, model.num_groups * model.head_dim
    here = "self_attention.linear_qkv."
    yield _same(Place(f"{here}layer_norm_weight", layer), f"{hf}input_layernorm.weight", width)
    how = {"num_groups": model.num_groups, "head_dim": model.head_dim}
    split, join = partial(split_qkv, **how), partial(join_qkv, **how)
    for kind, rest in (("weight", (width,)), ("bias", ())):
        if kind == "bias" and not model.qkv_bias:
            continue
        names = [f"{hf}self_attn.{part}_proj.{kind}" for part in "qkv"]
        shapes = dict(zip(names, [(heads, *rest), (group, *rest), (group, *rest)], strict=True))
        shape = (heads + 2 * group, *rest)
        yield Rule(Place(here + kind, layer), shape, shapes, split, join)
    if model.qk_norm:
        for part in "qk":
            place = Place(f"self_attention.{part}_layernorm.weight", layer)
            yield _same(place, f"{hf}self_attn.{part}_norm.weight", model.head_dim)
    place = Place("self_attention.linear_proj.weight", layer)
    yield _same(place, f"{hf}self_attn.o_proj.weight", width, heads)


def _mlp(layer: int, name: str, hf: str, ffn: int, model: Architecture) -> Iterator[Rule]:
    """A SwiGLU: a dense layer's, or the shared expert."""
    width = model.hidden_size
    gate_up = {f"{hf}gate_proj.weight": (ffn, width), f"{hf}up_proj.weight": (ffn, width)}
    place = Place(f"{name}linear_fc1.weight", layer)
    yield Rule(place, (2 * ffn, width), gate_up, split_gate_up, join_gate_up)
    yield _same(Place(f"{name}linear_fc2.weight", layer), f"{hf}down_proj.weight", width, ffn)


def _moe_layer(layer: int, model: Architecture) -> Iterator[Rule]:
    experts, width, family = model.experts, model.hidden_size, family_of(model)
    hf = f"model.layers.{layer}." + ("block_sparse_moe." if family == "mixtral" else "mlp.")
    router = "router" if family == "remoe" else "gate"
    place = Place("mlp.router.weight", layer)
    yield _same(place, f"{hf}{router}.weight", experts.num_experts, width)
    if experts.relu:
        yield from _controller(layer, f"{hf}router.", model)
        yield from _stacked_experts(layer, f"{hf}experts.", model)
    else:
        for expert in range(experts.num_experts):
            yield from _expert(layer, expert, f"{hf}experts.{expert}.", model)
    if experts.shared_width:
        here = "mlp.shared_experts."
        yield from _mlp(layer, here, f"{hf}shared_expert.", experts.shared_width, model)
        if experts.shared_gate:
            place = Place(f"{here}gate_weight", layer)
            yield _same(place, f"{hf}shared_expert_gate.weight", 1, width)


def _controller(layer: int, hf: str, model: Architecture) -> Iterator[Rule]:
    yield Rule(Place(REG_COEFF, layer), (), {f"{hf}reg_coeff": ()}, is_state=True)
    reached = model.controller.reached_target
    if reached is not None:

        def value(tensors: Sequence[Tensor]) -> Tensor:
            return torch.tensor(float(reached))

        place = Place("mlp.router.state.reached_target", layer)
        yield Rule(place, (), {}, lambda tensor: [], value, is_state=True)


def _stacked_experts(layer: int, hf: str, model: Architecture) -> Iterator[Rule]:
    """All experts of a layer in one tensor, on both sides."""
    experts, width = model.experts, model.hidden_size
    num, ffn = experts.num_experts, experts.width
    here = "mlp.experts.experts."
    yield _same(Place(f"{here}linear_fc1.weight", layer), f"{hf}gate_up_proj", num, 2 * ffn, width)
    yield _same(Place(f"{here}linear_fc2.weight", layer), f"{hf}down_proj", num, width, ffn)


def _expert(layer: int, expert: int, hf: str, model: Architecture) -> Iterator[Rule]:
    """One expert, as files of stock architectures name it."""
    width, ffn = model.hidden_size, model.experts.width
    is_mixtral = family_of(model) == "mixtral"
    gate, down, up = ("w1", "w2", "w3") if is_mixtral else ("gate_proj", "down_proj", "up_proj")
    gate_up = {f"{hf}{gate}.weight": (ffn, width), f"{hf}{up}.weight": (ffn, width)}
    place = Place("mlp.experts.experts.linear_fc1.weight", layer, expert)
    yield Rule(place, (2 * ffn, width), gate_up, split_gate_up, join_gate_up)
    place = Place("mlp.experts.experts.linear_fc2.weight", layer, expert)
    yield _same(place, f"{hf}{down}.weight", width, ffn)


def _shared_names(model: Architecture, hf: str) -> dict[str, Shape]:
    """Of a shared expert of width 0."""
    width = model.hidden_size
    parts = {"gate_proj": (0, width), "up_proj": (0, width), "down_proj": (width, 0)}
    return {f"{hf}shared_expert.{name}.weight": shape for name, shape in parts.items()}
