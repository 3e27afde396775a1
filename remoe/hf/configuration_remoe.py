"""The configuration of a ReMoE model in Hugging Face's form."""

from typing import Any

from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig

SIZES_THAT_MAY_BE_ABSENT = ("intermediate_size", "shared_expert_intermediate_size")
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "num_experts",
    "moe_intermediate_size",
    "max_position_embeddings",
    *SIZES_THAT_MAY_BE_ABSENT,
)
QK_NORMS = (None, "head", "full")
ROUTER_DTYPES = (None, "float32")
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")
UNSUPPORTED_ROPE_TYPES = ("dynamic", "longrope")


class ReMoEConfig(PreTrainedConfig):
    """Sizes and choices of a Llama-like decoder whose layers route by ReLU (arXiv 2412.14711).

    The defaults are the paper's smallest model (182M without its experts).

    Args:
        vocab_size: Rows of the embedding.
        hidden_size: ``h``.
        intermediate_size: Width of the layers without experts; None where every layer has them.
        moe_intermediate_size: Width ``f`` of one expert.
        num_hidden_layers: Layers, with and without experts.
        num_attention_heads: Query heads.
        num_key_value_heads: Key and value heads; None = as many as query heads.
        head_dim: Width of a head; None = ``hidden_size / num_attention_heads``.
        hidden_act: Activation of the gated units.
        max_position_embeddings: Tokens that the model was trained on at once.
        initializer_range: Standard deviation of new weights.
        rms_norm_eps: Added to the mean square.
        use_cache: Keep keys and values while generating.
        tie_word_embeddings: Whether the head is the embedding.
        rope_parameters: ``{"rope_type": "default", "rope_theta": 1e6}``, or a static scaling.
        attention_bias: Bias of the query, key and value projections (not of the output's).
        attention_dropout: Of the attention weights, while training.
        qk_norm: None; "head" (one weight of `head_dim` for all heads); "full" (over all heads).
        num_experts: ``E``, after granularity.
        num_experts_per_tok: ``k``, the target of the mean number of active experts: no limit.
        moe_layers: 0 or 1 a layer: whether it has experts; None = all do.
        shared_expert_intermediate_size: Width of an expert that sees every token; None = there is none.
        shared_expert_gate: Whether ``sigmoid(x w)`` multiplies what it gives.
        router_dtype: "float32", or None for that of the weights.
        router_thresholds: One a layer (0.0 where it has no experts); None = plain ReLU.
        load_balancing: Eq. 10 if true, eq. 9 if false.
        reg_coeff_init: ``lambda_0`` of the L1 loss.
        reg_coeff_multiplier: ``alpha`` of the controller.
        reached_target: Whether training had ended the controller's warm-up; None where there was none.
        output_router_logits: Return the router's logits of every layer with experts.
        pad_token_id: Padding; None = there is none.
        bos_token_id: Begin of a text.
        eos_token_id: End of a text.
        kwargs: What every configuration of transformers takes.

    Raises:
        ValueError: A line for each value that cannot be.
    """

    model_type = "remoe"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012

    def __init__(
        self,
        vocab_size: int = 51200,
        hidden_size: int = 768,
        intermediate_size: int | None = None,
        moe_intermediate_size: int = 3072,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        num_key_value_heads: int | None = 4,
        head_dim: int | None = None,
        hidden_act: str = "silu",
        max_position_embeddings: int = 1024,
        initializer_range: float = 0.01,
        rms_norm_eps: float = 1e-5,
        use_cache: bool = True,
        tie_word_embeddings: bool = False,
        rope_parameters: dict[str, Any] | None = None,
        attention_bias: bool = False,
        attention_dropout: float = 0.0,
        qk_norm: str | None = None,
        num_experts: int = 8,
        num_experts_per_tok: int = 1,
        moe_layers: list[int] | None = None,
        shared_expert_intermediate_size: int | None = None,
        shared_expert_gate: bool = False,
        router_dtype: str | None = "float32",
        router_thresholds: list[float] | None = None,
        load_balancing: bool = True,
        reg_coeff_init: float = 1e-8,
        reg_coeff_multiplier: float = 1.2,
        reached_target: bool | None = None,
        output_router_logits: bool = False,
        pad_token_id: int | None = None,
        bos_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.moe_intermediate_size = moe_intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        if num_key_value_heads is None:
            num_key_value_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.hidden_act = hidden_act
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.rms_norm_eps = rms_norm_eps
        self.use_cache = use_cache
        self.rope_parameters = rope_parameters or {"rope_type": "default", "rope_theta": 1e6}
        self.attention_bias = attention_bias
        self.attention_dropout = attention_dropout
        self.qk_norm = qk_norm
        self.num_experts = num_experts
        self.num_experts_per_tok = num_experts_per_tok
        self.moe_layers = None if moe_layers is None else [int(has) for has in moe_layers]
        self.shared_expert_intermediate_size = shared_expert_intermediate_size
        self.shared_expert_gate = shared_expert_gate
        self.router_dtype = router_dtype
        self.router_thresholds = router_thresholds
        self.load_balancing = load_balancing
        self.reg_coeff_init = reg_coeff_init
        self.reg_coeff_multiplier = reg_coeff_multiplier
        self.reached_target = reached_target
        self.output_router_logits = output_router_logits
        self.tie_word_embeddings = tie_word_embeddings
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self._check_sizes(head_dim)
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self._check_routing()
        self._check_layers()
        # Releases of transformers differ in which of these their own initialisation sets (to None).
        tokens = {name: getattr(self, name) for name in TOKENS}
        super().__init__(**kwargs, **tokens, tie_word_embeddings=tie_word_embeddings)  # type: ignore

    def has_experts(self, layer: int) -> bool:
        """Whether layer `layer` (from 0) routes to experts."""
        return self.moe_layers is None or bool(self.moe_layers[layer])

    def router_threshold(self, layer: int) -> float:
        """The threshold of layer `layer` (from 0): 0 is plain ReLU."""
        return 0.0 if self.router_thresholds is None else float(self.router_thresholds[layer])

    def _check_sizes(self, head_dim: int | None) -> None:
        """Refuse widths and numbers of heads that no attention can have."""
        for name in SIZES:
            value = getattr(self, name)
            is_absent = value is None and name in SIZES_THAT_MAY_BE_ABSENT
            if not (is_absent or (isinstance(value, int) and value > 0)):
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        if head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is no multiple of num_attention_heads="
                f"{self.num_attention_heads}: give head_dim"
            )
        if (head_dim or self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError(f"head_dim must be even for rotary positions, got {head_dim}")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is none of transformers' activations")
        if self.qk_norm not in QK_NORMS:
            raise ValueError(f"qk_norm must be one of {QK_NORMS}, got {self.qk_norm!r}")
        if (kind := self.rope_parameters.get("rope_type")) in UNSUPPORTED_ROPE_TYPES:
            raise ValueError(
                f"rope_type={kind!r} changes with the text's length: not supported here"
            )

    def _check_routing(self) -> None:
        """Refuse targets and coefficients with which the controller cannot work."""
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise ValueError(
                f"num_experts_per_tok must be between 1 and num_experts={self.num_experts}, "
                f"got {self.num_experts_per_tok}"
            )
        if self.router_dtype not in ROUTER_DTYPES:
            raise ValueError(
                f"router_dtype must be one of {ROUTER_DTYPES}, got {self.router_dtype!r}"
            )
        if not self.reg_coeff_init > 0:
            raise ValueError(f"reg_coeff_init must be above 0, got {self.reg_coeff_init}")
        if not self.reg_coeff_multiplier > 1:
            raise ValueError(
                f"reg_coeff_multiplier must be above 1, got {self.reg_coeff_multiplier}"
            )
        if self.shared_expert_gate and self.shared_expert_intermediate_size is None:
            raise ValueError("shared_expert_gate=True needs shared_expert_intermediate_size")

    def _check_layers(self) -> None:
        """Refuse lists of another length than the layers', and layers without a width."""
        for name in ("moe_layers", "router_thresholds"):
            values = getattr(self, name)
            if values is not None and len(values) != self.num_hidden_layers:
                raise ValueError(
                    f"{name} must hold one value a layer: {len(values)} values for "
                    f"num_hidden_layers={self.num_hidden_layers}"
                )
        if not set(self.moe_layers or ()) <= {0, 1}:
            raise ValueError(f"moe_layers must hold 0 or 1 a layer, got {self.moe_layers}")
        has_dense = 0 in (self.moe_layers or ())
        if has_dense and self.intermediate_size is None:
            raise ValueError("moe_layers names layers without experts: give intermediate_size")
        if not all(abs(float(t)) < float("inf") for t in self.router_thresholds or ()):
            raise ValueError(f"router_thresholds must be finite, got {self.router_thresholds}")
