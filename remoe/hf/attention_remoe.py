"""Causal self-attention with rotary positions, grouped heads and optional norms of query and key."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .compat_remoe import update_cache
from .configuration_remoe import ReMoEConfig


class ReMoERMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension, in fp32, rounded once."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalise; the result has the dtype of the argument."""
        weight = self.weight.to(hidden_states.dtype)  # under autocast it may be wider
        return F.rms_norm(hidden_states, weight.shape, weight, self.eps)


def rotary_embeddings(
    config: ReMoEConfig, position_ids: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles.

    Nothing is kept: a buffer would have to be filled anew in a model that is built on the meta device,
    and would lose its precision when the model is cast.

    Args:
        config: Its `rope_parameters` and `head_dim`.
        position_ids: ``[b, s]``.
        dtype: Of the result; angles are computed in fp32.

    Returns:
        Two tensors ``[b, 1, s, head_dim]``, the second half of the last dimension equal to the first.
    """
    kind, scaling = config.rope_parameters["rope_type"], 1.0
    if kind == "default":
        exponents = torch.arange(0, config.head_dim, 2, device=position_ids.device).float()
        frequencies = 1.0 / config.rope_parameters["rope_theta"] ** (exponents / config.head_dim)
    else:
        frequencies, scaling = ROPE_INIT_FUNCTIONS[kind](config, position_ids.device)
    angles = position_ids[:, None, :, None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return (angles.cos() * scaling).to(dtype), (angles.sin() * scaling).to(dtype)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair ``(x_i, x_{i + d/2})`` of ``[b, n, s, d]`` by its position's angle."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-second, first), dim=-1) * sin


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention written out, which alone returns its weights; transformers' interface.

    Args:
        module: The attention; whether it trains.
        query: ``[b, n, s, d]``.
        key: ``[b, m, t, d]``, ``n`` a multiple of ``m``.
        value: As `key`.
        attention_mask: Added to the scores ``[b, 1, s, t]``; None = nothing is hidden.
        scaling: Of the scores.
        dropout: Of the weights.
        kwargs: Those of other implementations.

    Returns:
        ``[b, s, n, d]`` and the weights ``[b, n, s, t]``.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class ReMoEAttention(nn.Module):
    """One layer's attention; `config._attn_implementation` says by which of transformers' kernels."""

    is_causal = True

    def __init__(self, config: ReMoEConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx, self.head_dim = config, layer_idx, config.head_dim
        # transformers' kernels read it here
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.head_dim**-0.5
        width_q = config.num_attention_heads * config.head_dim
        width_kv = config.num_key_value_heads * config.head_dim
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, width_q, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, width_kv, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, width_kv, bias=bias)
        self.o_proj = nn.Linear(width_q, config.hidden_size, bias=False)
        if config.qk_norm is not None:
            is_full = config.qk_norm == "full"
            eps = config.rms_norm_eps
            self.q_norm = ReMoERMSNorm(width_q if is_full else config.head_dim, eps)
            self.k_norm = ReMoERMSNorm(width_kv if is_full else config.head_dim, eps)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            hidden_states: ``[b, s, h]``.
            position_embeddings: Of `rotary_embeddings`.
            attention_mask: As transformers' mask functions make it for the implementation.
            past_key_values: Keys and values of earlier tokens; updated.
            kwargs: For the implementation.

        Returns:
            ``[b, s, h]``, and the weights where the implementation gives them.
        """
        query, key = self.q_proj(hidden_states), self.k_proj(hidden_states)
        if self.config.qk_norm == "full":
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = self._heads(query), self._heads(key)
        value = self._heads(self.v_proj(hidden_states))
        if self.config.qk_norm == "head":
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = rotate(query, *position_embeddings), rotate(key, *position_embeddings)
        if past_key_values is not None:
            key, value = update_cache(past_key_values, key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get(self.config._attn_implementation, eager_attention)
        dropout = self.config.attention_dropout if self.training else 0.0
        output, weights = attend(
            self, query, key, value, attention_mask, scaling=self.scaling, dropout=dropout, **kwargs
        )
        return self.o_proj(output.flatten(2)), weights

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [b, heads, s, d]
