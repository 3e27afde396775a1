"""What a run was asked to do, from the arguments that Megatron stored in its events."""

from dataclasses import dataclass

from run_log.methods import METHOD_NAMES


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
        """One of `METHOD_NAMES`, or another name that a record gave."""
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
    return METHOD_NAMES.get(method, method)
