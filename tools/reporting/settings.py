"""What a run was asked to do, from the arguments that Megatron stored in its events."""

from dataclasses import dataclass

METHODS = {
    "dense": "dense",
    "topk": "TopK with auxiliary loss",
    "topk-unbalanced": "TopK without balancing",
    "topk-warmup": "TopK with near-dense warm-up",
    "topk-bias": "TopK with bias, no auxiliary loss",
    "expert-choice": "expert choice",
    "hash": "hash",
    "sparsemixer": "SparseMixer-v2",
    "relu": "ReMoE (ReLU)",
    "relu-l1": "ReMoE with plain L1",
}


@dataclass(frozen=True)
class Settings:
    """Settings of a run by the names of Megatron's arguments; None where they are not known."""

    arguments: dict[str, str]

    def number(self, name: str) -> int | None:
        """A whole number, None where it was not given."""
        try:
            return int(self.arguments[name])
        except (KeyError, ValueError):
            return None

    @property
    def method(self) -> str | None:
        """One of `METHODS`, or another name that a record gave."""
        if not self.arguments:
            return None
        named = self.arguments.get("moe_routing", "None")
        if named != "None":
            return named
        if self.number("num_experts") is None:
            return "dense"
        if self.arguments.get("moe_relu_routing") == "True":
            plain = self.arguments.get("moe_relu_load_balancing") == "none"
            return "relu-l1" if plain else "relu"
        if self.arguments.get("moe_router_enable_expert_bias") == "True":
            return "topk-bias"
        balanced = "aux_loss" in self.arguments.get("moe_router_load_balancing_type", "")
        return "topk" if balanced else "topk-unbalanced"

    @property
    def tokens_a_step(self) -> int | None:
        """Tokens of the global batch."""
        sequences, length = self.number("global_batch_size"), self.number("seq_length")
        return None if sequences is None or length is None else sequences * length


def method_name(method: str | None) -> str | None:
    """A method's name in words; a name that is not known stays as it is."""
    return METHODS.get(method, method)
