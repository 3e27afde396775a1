"""What a model is, in neither form's words: what both forms' settings are read into."""

from dataclasses import dataclass, field


class ConversionError(ValueError):
    """A conversion that cannot be made, said in one line with the file or flag and the mend."""


@dataclass(frozen=True)
class Experts:
    """The mixture-of-experts layers of a model.

    Attributes:
        num_experts: E, after `--moe-granularity`.
        topk: Experts a token; under ReLU routing the target of their mean.
        width: Of one expert.
        layers: 1 for each layer with experts, 0 for a dense one.
        relu: ReLU routing; else TopK.
        renormalised: TopK whose k gates sum to one (the softmax is taken over the k).
        shared_width: Of the shared expert; 0 without one.
        shared_gate: Whether a sigmoid gate multiplies the shared expert.
        router_dtype: `float32`, or None for the dtype of the weights.
        thresholds: Of the logits, one a layer, where active experts were changed after training.
    """

    num_experts: int
    topk: int
    width: int
    layers: tuple[int, ...]
    relu: bool
    renormalised: bool = False
    shared_width: int = 0
    shared_gate: bool = False
    router_dtype: str | None = None
    thresholds: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Controller:
    """What moves lambda while a ReMoE model is trained."""

    reg_coeff_init: float = 1e-8
    reg_coeff_multiplier: float = 1.2
    load_balancing: bool = True
    reached_target: bool | None = None


@dataclass(frozen=True)
class Architecture:
    """A decoder of the Llama kind: RMSNorm, rotary positions, SwiGLU, grouped queries.

    Attributes:
        vocab_size: Of the tokenizer, without padding.
        padded_vocab_size: Rows of the embedding in Megatron's form.
        ffn_width: Of dense layers.
        qkv_bias: Of queries, keys and values only.
        qk_norm: A norm over each head's queries and keys.
        experts: None for a dense model.
        controller: None unless it routes by ReLU.
    """

    num_layers: int
    hidden_size: int
    ffn_width: int
    num_heads: int
    num_groups: int
    head_dim: int
    vocab_size: int
    padded_vocab_size: int
    max_positions: int
    norm_eps: float
    rope_theta: float
    init_std: float = 0.02
    attention_dropout: float = 0.0
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    experts: Experts | None = None
    controller: Controller | None = field(default=None)

    @property
    def routing(self) -> str:
        """`dense`, `TopK` or `ReMoE`."""
        if self.experts is None:
            return "dense"
        return "ReMoE" if self.experts.relu else "TopK"

    def has_experts(self, layer: int) -> bool:
        """Whether a layer is one of experts."""
        return self.experts is not None and bool(self.experts.layers[layer])
