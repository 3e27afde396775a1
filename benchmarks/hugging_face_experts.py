"""Chooses transformers' fastest implementation of experts on this device by trying each."""

from collections.abc import Callable

EXPERTS = ("grouped_mm", "eager", "batched_mm")
MOST_COPIED = 2**30  # bytes: batched_mm copies an expert's weights for each row


def choose_experts(config, num_tokens: int, seconds: Callable[[], float]) -> str:
    """Set the fastest in the configuration that the experts read.

    Args:
        config: Of Mixtral or OLMoE.
        num_tokens: Of a step.
        seconds: Runs steps with what is set, and gives the time of one.

    Returns:
        Its name.
    """
    times = {}
    for name in EXPERTS:
        if fits(name, config, num_tokens):
            config._experts_implementation = name
            times[name] = seconds()
    config._experts_implementation = min(times, key=times.get)
    return config._experts_implementation


def fits(name: str, config, num_tokens: int) -> bool:
    """Whether an implementation does not copy more than there is room for."""
    rows = num_tokens * config.num_experts_per_tok
    copied = 3 * 4 * rows * config.hidden_size * config.intermediate_size
    return name != "batched_mm" or copied <= MOST_COPIED
