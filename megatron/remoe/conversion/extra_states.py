"""The empty objects that Megatron asks for beside the weights of each linear layer.

Megatron keeps a place for the scaling factors of fp8 layers (`_extra_state`) and refuses a checkpoint
that lacks one, whether or not anything is in it.
"""

from collections.abc import Iterator

from megatron.remoe.conversion.architecture import Architecture

ATTENTION = ("self_attention.linear_proj", "self_attention.linear_qkv")
MLP = ("linear_fc1", "linear_fc2")
# Where TransformerEngine's layers ask for one and Megatron's local ones do not.
TE_ATTENTION = ("self_attention.core_attention",)
TE_QK_NORMS = ("self_attention.q_layernorm", "self_attention.k_layernorm")


def extra_states(model: Architecture, transformer_impl: str) -> Iterator[str]:
    """The names under which a model asks for them.

    Args:
        model: The model.
        transformer_impl: `local` or `transformer_engine`.
    """
    is_uneven = bool(model.experts) and not all(model.experts.layers)
    is_te = transformer_impl == "transformer_engine"
    attention = ATTENTION + (TE_ATTENTION if is_te else ())
    attention += TE_QK_NORMS if is_te and model.qk_norm else ()
    if is_te:
        yield _name("decoder.final_layernorm", ())
    for layer in range(model.num_layers):
        prefix = f"decoder.layers.{layer}." if is_uneven else "decoder.layers."
        where = () if is_uneven else ((layer, model.num_layers),)
        names = list(attention)
        if not model.has_experts(layer):
            names += [f"mlp.{part}" for part in MLP]
        else:
            yield from _of_experts(prefix, where, model)
            names += ["pre_mlp_layernorm"] if is_te else []
            if model.experts.shared_width:
                names += [f"mlp.shared_experts.{part}" for part in MLP]
        for name in names:
            yield _name(prefix + name, where)


def _of_experts(prefix: str, where: tuple, model: Architecture) -> Iterator[str]:
    for expert in range(model.experts.num_experts):
        for part in MLP:
            here = (*where, (expert, model.experts.num_experts))
            yield _name(f"{prefix}mlp.experts.experts.{part}", here)


def _name(name: str, where: tuple) -> str:
    """`<name>._extra_state/shard_<index in each dimension>_<size of each>`."""
    where = where or ((0, 1),)
    index, size = (".".join(str(pair[i]) for pair in where) for i in (0, 1))
    return f"{name}._extra_state/shard_{index}_{size}"
