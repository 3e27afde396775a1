"""Shapes of the models that are timed, as Megatron's flags and as settings of transformers."""

from dataclasses import dataclass, replace

AUX_LOSS_COEFF = 0.01
# Megatron's own layers, each expert a module of its own.
SEQUENTIAL = ("--transformer-impl", "local")


@dataclass(frozen=True)
class Shape:
    """A model with SwiGLU, RMSNorm, RoPE, no bias and untied embeddings, and the tokens of a step.

    Attributes:
        layers, hidden, ffn, heads, groups: Sizes; `ffn` of one expert; `groups` of keys and values.
        experts, topk: E, and k of TopK, which is ReMoE's target.
        vocabulary: A multiple of 128, else Megatron pads it and the sides are not of one size.
        length, sequences: Of a step's tokens.
        bf16: Whether weights are bf16.
    """

    layers: int = 4
    hidden: int = 128
    ffn: int = 512
    heads: int = 4
    groups: int = 4
    experts: int = 8
    topk: int = 1
    vocabulary: int = 4096
    length: int = 256
    sequences: int = 8
    bf16: bool = False

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.length * self.sequences

    def with_tokens(self, tokens: int) -> "Shape":
        """The same with as many sequences as make `tokens`.

        Raises:
            ValueError: Where they are no whole sequences.
        """
        if tokens % self.length or tokens <= 0:
            raise ValueError(f"--tokens {tokens}: give a multiple of {self.length}")
        return replace(self, sequences=tokens // self.length)

    def num_parameters(self, dense: bool = False) -> int:
        """Of all weights, with every expert."""
        heads = self.hidden * 2 + 2 * self.hidden * self.groups // self.heads
        mlp = 3 * self.hidden * self.ffn if dense else self.num_layer_parameters()
        layer = self.hidden * heads + mlp + 2 * self.hidden
        return self.layers * layer + 2 * self.vocabulary * self.hidden + self.hidden

    def num_layer_parameters(self) -> int:
        """Of one MoE layer: router and experts."""
        return self.experts * (3 * self.hidden * self.ffn + self.hidden)

    def flops(self, active: float, dense: bool = False) -> float:
        """Of a step forward and backward, in products alone; causal attention counts half.

        Args:
            active: Mean active experts a token.
            dense: Without a router.
        """
        width = 2 * self.hidden + 2 * self.hidden * self.groups // self.heads
        router = 0 if dense else self.experts * self.hidden
        layer = self.hidden * width + active * 3 * self.hidden * self.ffn + router
        layer += self.length * self.hidden  # two products of length x hidden, half of each
        return 6 * self.tokens * (self.layers * layer + self.vocabulary * self.hidden)

    def megatron_flags(self) -> list[str]:
        """The dense model's, and the training's."""
        flags = (
            f"--num-layers {self.layers} --hidden-size {self.hidden} --ffn-hidden-size {self.ffn} "
            f"--num-attention-heads {self.heads} --seq-length {self.length} "
            f"--max-position-embeddings {self.length} --micro-batch-size {self.sequences} "
            f"--global-batch-size {self.sequences} --vocab-size {self.vocabulary} --lr 1e-3 "
            "--lr-decay-style constant --swiglu --normalization RMSNorm --position-embedding-type rope "
            "--disable-bias-linear --attention-dropout 0 --hidden-dropout 0 --clip-grad 1.0 "
            "--untie-embeddings-and-output-weights --eval-iters 0 --eval-interval 1000000 "
            "--log-interval 1000000 --num-workers 0 --tokenizer-type NullTokenizer --split 100,0,0 "
            "--train-iters 5000"
        ).split()
        if self.groups != self.heads:
            flags += ["--group-query-attention", "--num-query-groups", str(self.groups)]
        return flags + ["--bf16"] * self.bf16

    def expert_flags(self) -> list[str]:
        """Those that TopK and ReMoE share."""
        return [
            *("--num-experts", str(self.experts), "--moe-router-topk", str(self.topk)),
            *("--moe-token-dispatcher-type", "alltoall", "--moe-router-dtype", "fp32"),
        ]

    def hugging_face(self) -> dict:
        """Settings that transformers' configurations of Mixtral and LLaMA share."""
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.groups,
            "max_position_embeddings": self.length,
            "tie_word_embeddings": False,
            "attn_implementation": "sdpa",
            "use_cache": False,
        }

    def hugging_face_experts(self) -> dict:
        """What Mixtral's has beyond them."""
        return {"num_local_experts": self.experts, "num_experts_per_tok": self.topk}


SHAPES = {
    "small": Shape(),
    "182m": Shape(12, 768, 3072, 12, 4, 8, 1, 51200, 1024, 16, True),
}
# lambda starts large, to be in stage III soon, and moves slower than by default: a step here has few
# tokens, and what is compared is the cost of k active experts.
RELU = (
    *("--moe-grouped-gemm", "--moe-relu-routing", "--moe-relu-l1-reg-coeff-init", "1e-3"),
    *("--moe-relu-l1-reg-coeff-multiplier", "1.1"),
)
TOPK = (
    *("--moe-router-pre-softmax", "--moe-router-load-balancing-type", "aux_loss"),
    *("--moe-aux-loss-coeff", str(AUX_LOSS_COEFF)),
)


def megatron_sides(shape: Shape) -> dict[str, list[str]]:
    """Flags of `pretrain_gpt.py` for each side that Megatron trains."""
    model, experts = shape.megatron_flags(), shape.expert_flags()
    return {
        "ReMoE": [*model, *experts, *RELU],
        "TopK": [*model, *experts, *TOPK, "--moe-grouped-gemm"],
        "local TopK": [*model, *experts, *TOPK, *SEQUENTIAL],
        "dense": model,
    }
