"""What differs between the releases of transformers 5, and nothing else."""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig
from transformers.masking_utils import create_causal_mask

# Releases before 5.4 want to be told which places of the cache the new tokens take.
WANTS_CACHE_POSITION = "cache_position" in inspect.signature(create_causal_mask).parameters
EMBEDS = "inputs_embeds"
if EMBEDS not in inspect.signature(create_causal_mask).parameters:
    EMBEDS = "input_embeds"


def causal_mask(
    config: PreTrainedConfig,
    inputs_embeds: Tensor,
    attention_mask: Tensor | None,
    past_key_values: Cache | None,
    position_ids: Tensor,
) -> Any:
    """The mask that the attention of the configuration wants; see transformers' function."""
    arguments: dict[str, Any] = {
        EMBEDS: inputs_embeds,
        "config": config,
        "attention_mask": attention_mask,
        "past_key_values": past_key_values,
        "position_ids": position_ids,
    }
    if WANTS_CACHE_POSITION:
        arguments["cache_position"] = token_positions(inputs_embeds, past_key_values)
    return create_causal_mask(**arguments)


def update_cache(
    past_key_values: Cache, key: Tensor, value: Tensor, layer_idx: int
) -> tuple[Tensor, Tensor]:
    """Append a layer's keys and values ``[b, heads, s, d]``; returns those of all tokens."""
    if not WANTS_CACHE_POSITION:
        return past_key_values.update(key, value, layer_idx)
    seen = past_key_values.get_seq_length(layer_idx)
    places = {"cache_position": torch.arange(key.shape[2], device=key.device) + seen}
    return past_key_values.update(key, value, layer_idx, places)


def token_positions(inputs_embeds: Tensor, past_key_values: Cache | None) -> Tensor:
    """Places ``[s]`` of the new tokens among all."""
    seen = 0 if past_key_values is None else past_key_values.get_seq_length()
    return torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + seen
